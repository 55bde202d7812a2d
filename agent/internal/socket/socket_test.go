package socket

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"woodlot.dev/agent/internal/fail"
)

func listenAt(t *testing.T, path string) *net.UnixListener {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func TestConnectStaysBelowTheRoot(t *testing.T) {
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	for _, d := range []string{"run/deep", "etc"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	inside, outside := listenAt(t, filepath.Join(root, "run/in")), listenAt(t, filepath.Join(dir, "out"))
	_ = outside.SetDeadline(time.Now())
	for link, target := range map[string]string{
		"absolute": "/run/in", "relative": "run/../run/in", "up": "../../../run/in", "leads-out": dir + "/out",
		"climbs-out": "../out", "run/deep/climbs": "../../../out", "loop": "loop", "nowhere": "/missing",
	} {
		if err := os.Symlink(target, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "etc/file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	stale := listenAt(t, filepath.Join(root, "run/stale"))
	stale.SetUnlinkOnClose(false)
	_ = stale.Close()
	datagram, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: filepath.Join(root, "run/dgram")})
	if err != nil {
		t.Fatal(err)
	}
	defer datagram.Close()
	fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()

	for _, name := range []string{"/run/in", "/absolute", "/relative", "/up", "/../../run/in"} {
		conn, err := Connect(fd, name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		served, err := inside.AcceptUnix()
		if err != nil {
			t.Fatal(err)
		}
		_, _ = served.Write([]byte("hello"))
		_ = served.Close()
		if got, err := io.ReadAll(conn); err != nil || string(got) != "hello" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		_ = conn.Close()
	}
	for name, kind := range map[string]fail.Kind{
		"/leads-out": fail.NotFound, "/climbs-out": fail.NotFound, "/run/deep/climbs": fail.NotFound,
		"/../out": fail.NotFound, "/nowhere": fail.NotFound, "/missing": fail.NotFound, "/loop": fail.Internal,
		"/etc/file": fail.NotFound, "/etc": fail.NotFound, "/run/in/below": fail.NotFound,
		"/run/stale": fail.NotFound, "/run/dgram": fail.InvalidArgument,
	} {
		if conn, err := Connect(fd, name); err == nil || fail.KindOf(err) != kind {
			t.Errorf("%s: %v, %v", name, conn, err)
		}
	}
	if conn, err := outside.Accept(); err == nil {
		t.Errorf("somebody came out: %v", conn)
	}
}

func TestConnectWaitsForItsTurn(t *testing.T) {
	dir := t.TempDir()
	// A queue that is full: only a connect that blocks waits for room in it.
	raw, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(raw, &unix.SockaddrUnix{Name: dir + "/s"}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(raw, 0); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(raw) }()
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	first, err := Connect(fd, "/s")
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	second := make(chan error, 1)
	go func() {
		conn, err := Connect(fd, "/s")
		if err == nil {
			_ = conn.Close()
		}
		second <- err
	}()
	select {
	case err := <-second:
		t.Fatalf("it did not wait: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	for range 2 {
		accepted, _, err := unix.Accept(raw)
		if err != nil {
			t.Fatal(err)
		}
		_ = unix.Close(accepted)
	}
	if err := <-second; err != nil {
		t.Error(err)
	}
}

func TestListenAndAccept(t *testing.T) {
	dir := t.TempDir()
	l, err := Listen(dir, []Spec{{Name: "a", Mode: 0o4620}, {Name: "b", Mode: 0o600}})
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(l.Path("a")); err != nil || st.Mode() != os.ModeSocket|0o620 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	client, err := net.Dial("unix", l.Path("a"))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	served, err := l.Accept(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	defer served.Close()
	// One that gives up takes nothing with it: the next connection is there for the next.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.Accept(ctx, "b"); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := l.Accept(t.Context(), "c"); fail.KindOf(err) != fail.NotFound {
		t.Error(err)
	}
	other, err := net.Dial("unix", l.Path("b"))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if c, err := l.Accept(t.Context(), "b"); err != nil {
		t.Error(err)
	} else {
		_ = c.Close()
	}
	waiting := make(chan error, 1)
	go func() {
		_, err := l.Accept(context.Background(), "a")
		waiting <- err
	}()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := <-waiting; fail.KindOf(err) != fail.FailedPrecondition {
		t.Error(err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "sockets")); !errors.Is(err, os.ErrNotExist) {
		t.Error("something is left:", err)
	}
	if _, err := Listen(dir, []Spec{{Name: "a"}, {Name: "a"}}); fail.KindOf(err) != fail.InvalidArgument {
		t.Error(err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "sockets")); !errors.Is(err, os.ErrNotExist) {
		t.Error("something is left of a failure:", err)
	}
}

// peer is a host on two channels; one that is not read holds the sender back.
type peer struct {
	in   chan []byte
	out  chan []byte
	gone chan struct{}
}

func newPeer() *peer {
	return &peer{in: make(chan []byte), out: make(chan []byte), gone: make(chan struct{})}
}

func (p *peer) Receive() ([]byte, error) {
	select {
	case b, ok := <-p.in:
		if !ok {
			return nil, io.EOF
		}
		return b, nil
	case <-p.gone:
		return nil, io.ErrUnexpectedEOF
	}
}

func (p *peer) Send(b []byte) error {
	select {
	case p.out <- bytes.Clone(b):
		return nil
	case <-p.gone:
		return io.ErrClosedPipe
	}
}

func (p *peer) End() error {
	close(p.out)
	return nil
}

func carried(t *testing.T, p *peer) (*net.UnixConn, <-chan error) {
	t.Helper()
	l := listenAt(t, t.TempDir()+"/s")
	client, err := net.DialUnix("unix", nil, l.Addr().(*net.UnixAddr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	served, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- Carry(t.Context(), served, p) }()
	return client, done
}

func TestCarryEndsEachDirectionByItself(t *testing.T) {
	p := newPeer()
	client, done := carried(t, p)
	_, _ = client.Write([]byte("question"))
	_ = client.CloseWrite()
	var got []byte
	for b := range p.out {
		got = append(got, b...)
	}
	if string(got) != "question" {
		t.Errorf("%q", got)
	}
	// The guest has ended its direction, the host answers all the same.
	p.in <- []byte("ans")
	p.in <- []byte("wer")
	close(p.in)
	if answer, err := io.ReadAll(client); err != nil || string(answer) != "answer" {
		t.Errorf("%q, %v", answer, err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestCarryEndsTheHostsDirectionFirst(t *testing.T) {
	p := newPeer()
	client, done := carried(t, p)
	close(p.in)
	if b, err := io.ReadAll(client); err != nil || len(b) != 0 {
		t.Errorf("%q, %v", b, err)
	}
	_, _ = client.Write([]byte("late"))
	_ = client.Close()
	if b := <-p.out; string(b) != "late" {
		t.Errorf("%q", b)
	}
	if _, more := <-p.out; more {
		t.Error("more came")
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestCarryEndsWithWhoeverBreaks(t *testing.T) {
	// The guest's program is gone and cannot take what comes.
	p := newPeer()
	client, done := carried(t, p)
	_ = client.Close()
	<-p.out
	p.in <- []byte("x")
	if err := <-done; !errors.Is(err, unix.EPIPE) {
		t.Error(err)
	}
	// The host is gone, while the guest's program waits to read and to write.
	p = newPeer()
	client, done = carried(t, p)
	close(p.gone)
	if b, err := io.ReadAll(client); err != nil || len(b) != 0 {
		t.Errorf("%q, %v", b, err)
	}
	if err := <-done; !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error(err)
	}
}
