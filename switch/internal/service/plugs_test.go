package service_test

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"woodlot.dev/switch/internal/lan"
	"woodlot.dev/switch/internal/pb"
)

// plugs gives the ends of pipes for taps.
type plugs struct {
	mu      sync.Mutex
	failure error
	other   *os.File
	plugged int
}

func (p *plugs) Plug(*lan.Member) (*os.File, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failure != nil {
		return nil, p.failure
	}
	mine, theirs, err := os.Pipe()
	p.other = mine
	p.plugged++
	return theirs, err
}

func (p *plugs) Unplug(*lan.Member) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.plugged--
	return nil
}

func (p *plugs) Count(m *lan.Member) { m.Received.Store(7) }

func (p *plugs) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.plugged
}

func TestATapIsHandedOverOnce(t *testing.T) {
	p := &plugs{}
	f := setupWith(t, p)
	ctx, leave := context.WithCancel(context.Background())
	defer leave()
	f.attach(ctx, t)
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: f.request().GetSocketPath()})
	if err != nil {
		t.Fatal(err)
	}
	data, control := make([]byte, 8), make([]byte, 64)
	n, m, _, _, err := conn.ReadMsgUnix(data, control)
	if err != nil || n != 1 {
		t.Fatal(n, err)
	}
	messages, err := unix.ParseSocketControlMessage(control[:m])
	if err != nil || len(messages) != 1 {
		t.Fatal(messages, err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		t.Fatal(fds, err)
	}
	tap := os.NewFile(uintptr(fds[0]), "tap")
	if _, err := tap.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(f.request().GetSocketPath()); err == nil {
		t.Error("another one could connect")
	}
	answer, err := f.Status(ctx, &pb.StatusRequest{})
	if err != nil || answer.GetMembers()[0].GetFramesReceived() != 7 {
		t.Errorf("%v, %v", answer, err)
	}
	// Nobody else holds it: closed here, it is gone.
	_ = tap.Close()
	if _, err := p.other.Read(data); err != nil {
		t.Fatal(err)
	}
	if _, err := p.other.Read(data); err == nil {
		t.Error("the switch still holds the tap")
	}
	leave()
	eventually(t, "the tap stays", func() bool { return p.count() == 0 })
}

func TestATapThatCannotBeMade(t *testing.T) {
	f := setupWith(t, &plugs{failure: errors.New("no tun here")})
	stream, err := f.Attach(context.Background(), f.request())
	if err != nil {
		t.Fatal(err)
	}
	if _, err = stream.Recv(); status.Code(err) != codes.Internal || status.Convert(err).Message() != "no tun here" {
		t.Errorf("%v", err)
	}
	eventually(t, "its lease stays", func() bool {
		answer, err := f.Status(context.Background(), &pb.StatusRequest{})
		return err == nil && len(answer.GetMembers()) == 0
	})
}
