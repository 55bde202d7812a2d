package listen

import (
	"bytes"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// fakePort gives reads from a queue; an empty string in it is an end of file.
type fakePort struct {
	mu    sync.Mutex
	queue [][]byte
	wrote bytes.Buffer
}

func (p *fakePort) Read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queue) == 0 {
		return 0, io.ErrUnexpectedEOF
	}
	head := p.queue[0]
	if len(head) == 0 {
		p.queue = p.queue[1:]
		return 0, io.EOF
	}
	n := copy(b, head)
	if p.queue[0] = head[n:]; n == len(head) {
		p.queue = p.queue[1:]
	}
	return n, nil
}

func (p *fakePort) Write(b []byte) (int, error) { return p.wrote.Write(b) }
func (p *fakePort) Close() error                { return nil }
func (p *fakePort) awaitPeer() error            { return nil }
func (p *fakePort) interrupt()                  {}
func (p *fakePort) resume()                     {}

func frame(kind byte, payload string) string {
	n := len(payload)
	return string([]byte{byte(n >> 16), byte(n >> 8), byte(n), kind, 0, 0, 0, 0, 1}) + payload
}

// split cuts s into pieces of n bytes.
func split(s string, n int) [][]byte {
	var out [][]byte
	for len(s) > 0 {
		k := min(n, len(s))
		out = append(out, []byte(s[:k]))
		s = s[k:]
	}
	return out
}

func accept(t *testing.T, l net.Listener) net.Conn {
	t.Helper()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestSerialConnections cuts one byte stream into connections however it is chopped up.
func TestSerialConnections(t *testing.T) {
	one := preface + frame(4, "") + frame(0, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n inside a payload is data")
	two := preface + frame(0, string(bytes.Repeat([]byte{'P'}, 70000)))
	for _, size := range []int{1, 2, 3, 5, 8, 9, 10, 23, 24, 25, 64, 4096, 1 << 20} {
		for _, reopened := range []bool{false, true} {
			port := &fakePort{queue: split("left over PRI * HTPRI "+one, size)}
			if reopened {
				port.queue = append(port.queue, nil) // the host closed its side and the guest saw it
			}
			port.queue = append(port.queue, split(two, size)...)
			port.queue = append(port.queue, nil)
			l := newSerialListener(port)
			for i, want := range []string{one, two} {
				c := accept(t, l)
				got, err := io.ReadAll(c)
				if err != nil {
					t.Fatal(err)
				}
				if i == 0 && !reopened {
					// The start of the next preface may have been given out: that end is cut off mid-frame anyway.
					got = got[:min(len(got), len(want))]
				}
				if string(got) != want {
					t.Fatalf("pieces of %d, connection %d: %d bytes, want %d", size, i, len(got), len(want))
				}
				if _, err := c.Write([]byte("late")); i == 0 && !reopened && err == nil {
					t.Error("a replaced connection could write to its successor's host")
				}
				if err := c.Close(); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

func TestSerialAcceptWaitsForClose(t *testing.T) {
	l := newSerialListener(&fakePort{})
	first := accept(t, l)
	second := make(chan net.Conn)
	go func() {
		c, err := l.Accept()
		if err != nil {
			t.Error(err)
		}
		second <- c
	}()
	select {
	case <-second:
		t.Fatal("two connections at once on one stream")
	case <-time.After(20 * time.Millisecond):
	}
	_ = first.Close()
	_ = first.Close()
	<-second
}

func TestSerialCloseEndsAccept(t *testing.T) {
	l := newSerialListener(&fakePort{})
	_ = accept(t, l)
	done := make(chan error)
	go func() {
		_, err := l.Accept()
		done <- err
	}()
	_ = l.Close()
	if err := <-done; err == nil {
		t.Error("Accept gave a connection after Close")
	}
}
