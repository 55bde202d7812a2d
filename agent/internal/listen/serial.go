package listen

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"woodlot.dev/agent/internal/uevent"
)

// FindPort waits for the virtio-serial port of a name and gives its device node.
func FindPort(ctx context.Context, name string) (string, error) {
	var node string
	err := uevent.Wait(ctx, func() (bool, error) {
		names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
		if err != nil {
			return false, err
		}
		for _, n := range names {
			b, err := os.ReadFile(n)
			if err == nil && strings.TrimSpace(string(b)) == name {
				node = filepath.Join("/dev", filepath.Base(filepath.Dir(n)))
				_, err := os.Lstat(node)
				return err == nil, nil
			}
		}
		return false, nil
	})
	return node, err
}

// port is the byte stream below a serial listener.
type port interface {
	io.ReadWriteCloser
	// awaitPeer returns once the other side is open.
	awaitPeer() error
	// interrupt makes reads and writes, those under way too, fail until resume.
	interrupt()
	resume()
}

// serialListener makes connections, one after the other, out of a stream that has none. A connection begins with the
// HTTP/2 client preface: bytes before it are what a former host left, and are dropped. It ends when the other side
// closes the port, or when a new preface shows that it was closed and opened again unnoticed, as after a restore.
type serialListener struct {
	port port

	mu     sync.Mutex
	idle   *sync.Cond
	active *serialConn
	closed bool
	// ahead holds the bytes of the next connection that the last one read.
	ahead []byte
	// reading and writing are held while the port is used.
	reading, writing sync.Mutex
}

// Serial opens the port's device node and listens on it.
func Serial(node string) (net.Listener, error) {
	fd, err := unix.Open(node, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", node, err)
	}
	return newSerialListener(&devicePort{File: os.NewFile(uintptr(fd), node), fd: fd}), nil
}

func newSerialListener(p port) *serialListener {
	l := &serialListener{port: p}
	l.idle = sync.NewCond(&l.mu)
	return l
}

// Accept gives the next connection, after the former one was closed.
func (l *serialListener) Accept() (net.Conn, error) {
	l.mu.Lock()
	for l.active != nil && !l.closed {
		l.idle.Wait()
	}
	if l.closed {
		l.mu.Unlock()
		return nil, net.ErrClosed
	}
	c := &serialConn{l: l, ahead: l.ahead}
	l.ahead = nil
	l.active = c
	l.mu.Unlock()
	// The former connection's calls have been interrupted; nothing of it may touch the port from here on.
	l.reading.Lock()
	l.writing.Lock()
	l.port.resume()
	l.writing.Unlock()
	l.reading.Unlock()
	if len(c.ahead) == 0 {
		if err := l.port.awaitPeer(); err != nil {
			return nil, fmt.Errorf("wait for the host: %w", err)
		}
	}
	return c, nil
}

func (l *serialListener) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.idle.Broadcast()
	return l.port.Close()
}

func (l *serialListener) Addr() net.Addr { return addr("virtio-serial") }

// serialConn is one stretch of the stream.
type serialConn struct {
	l *serialListener

	// Used by the one reader only.
	hunt   hunt
	found  bool
	frames frames
	// ahead was read from the port before this connection began, ready is found to be this connection's.
	ahead, ready []byte

	mu     sync.Mutex
	closed bool
	ended  bool
}

// Read gives bytes of this connection only, beginning with the preface.
func (c *serialConn) Read(b []byte) (int, error) {
	c.l.reading.Lock()
	defer c.l.reading.Unlock()
	for {
		if n := copy(b, c.ready); n > 0 {
			c.ready = c.ready[n:]
			return n, nil
		}
		if closed, ended := c.state(); closed {
			return 0, net.ErrClosed
		} else if ended {
			return 0, io.EOF
		}
		n := copy(b, c.ahead)
		if c.ahead = c.ahead[n:]; n == 0 {
			var err error
			if n, err = c.l.port.Read(b); err != nil {
				return 0, err
			}
		}
		got := b[:n]
		if !c.found {
			i, ok := c.hunt.feed(got)
			if !ok {
				continue
			}
			c.found = true
			// Copied: the caller's buffer may be smaller than what is left of the preface and what follows.
			c.ready = append([]byte(preface), c.own(got[i:])...)
			continue
		}
		if got = c.own(got); len(got) > 0 {
			return len(got), nil
		}
	}
}

// own gives the part of got that is of this connection and keeps the rest for the next one.
func (c *serialConn) own(got []byte) []byte {
	end, rest, next := c.frames.feed(got)
	if next {
		ahead := append([]byte(preface[:frameHeaderLen]), got[rest:]...)
		ahead = append(ahead, c.ahead...)
		c.ahead = nil
		c.l.mu.Lock()
		c.l.ahead = ahead
		c.l.mu.Unlock()
		c.mu.Lock()
		c.ended = true
		c.mu.Unlock()
	}
	return got[:end]
}

func (c *serialConn) state() (closed, ended bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed, c.ended
}

// Write fails once the connection has ended, so that the next one's host does not read it.
func (c *serialConn) Write(b []byte) (int, error) {
	c.l.writing.Lock()
	defer c.l.writing.Unlock()
	if closed, ended := c.state(); closed || ended {
		return 0, net.ErrClosed
	}
	return c.l.port.Write(b)
}

// Close lets the listener go on to the next connection.
func (c *serialConn) Close() error {
	c.mu.Lock()
	again := c.closed
	c.closed = true
	c.mu.Unlock()
	if again {
		return nil
	}
	c.l.port.interrupt()
	c.l.mu.Lock()
	defer c.l.mu.Unlock()
	c.l.active = nil
	c.l.idle.Broadcast()
	return nil
}

func (c *serialConn) LocalAddr() net.Addr              { return addr("virtio-serial") }
func (c *serialConn) RemoteAddr() net.Addr             { return addr("virtio-serial-host") }
func (c *serialConn) SetDeadline(time.Time) error      { return nil }
func (c *serialConn) SetReadDeadline(time.Time) error  { return nil }
func (c *serialConn) SetWriteDeadline(time.Time) error { return nil }

// devicePort is /dev/vportNpM.
type devicePort struct {
	*os.File

	fd int
}

// awaitPeer sleeps in an edge-triggered epoll of its own: while the host side is closed the port reports a hang-up all
// the time, but the kernel wakes its waiters when the host opens it.
func (p *devicePort) awaitPeer() error {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(ep) }()
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLET&0xffffffff}
	if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, p.fd, &event); err != nil {
		return err
	}
	events := make([]unix.EpollEvent, 1)
	for {
		n, err := unix.EpollWait(ep, events, -1)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		if n == 1 && events[0].Events&unix.EPOLLHUP == 0 {
			return nil
		}
	}
}

func (p *devicePort) interrupt() { _ = p.SetDeadline(time.Unix(1, 0)) }
func (p *devicePort) resume()    { _ = p.SetDeadline(time.Time{}) }

var _ net.Conn = (*serialConn)(nil)
