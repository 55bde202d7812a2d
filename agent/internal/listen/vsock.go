package listen

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"woodlot.dev/agent/internal/klog"
)

type vsockListener struct{ file *os.File }

// Vsock listens on the contract's port; only the host may connect.
func Vsock() (net.Listener, error) {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("vsock: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_ANY, Port: VsockPort}); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("bind vsock port %d: %w", VsockPort, err)
	}
	if err := unix.Listen(fd, 8); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("listen on vsock port %d: %w", VsockPort, err)
	}
	return &vsockListener{os.NewFile(uintptr(fd), "vsock")}, nil
}

func (l *vsockListener) Accept() (net.Conn, error) {
	raw, err := l.file.SyscallConn()
	if err != nil {
		return nil, err
	}
	for {
		var fd int
		var from unix.Sockaddr
		var inner error
		err := raw.Read(func(s uintptr) bool {
			fd, from, inner = unix.Accept4(int(s), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
			return !errors.Is(inner, unix.EAGAIN)
		})
		if err == nil {
			err = inner
		}
		switch {
		case errors.Is(err, unix.ECONNABORTED), errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return nil, fmt.Errorf("accept on vsock: %w", err)
		}
		if vm, ok := from.(*unix.SockaddrVM); !ok || vm.CID != unix.VMADDR_CID_HOST {
			klog.Warnf("refused a vsock connection that is not the host's")
			_ = unix.Close(fd)
			continue
		}
		return fileConn{os.NewFile(uintptr(fd), "vsock")}, nil
	}
}

func (l *vsockListener) Close() error   { return l.file.Close() }
func (l *vsockListener) Addr() net.Addr { return addr("vsock") }

// fileConn is a stream socket whose family the net package does not know.
type fileConn struct{ *os.File }

func (fileConn) LocalAddr() net.Addr                  { return addr("vsock") }
func (fileConn) RemoteAddr() net.Addr                 { return addr("vsock-host") }
func (c fileConn) SetDeadline(t time.Time) error      { return c.File.SetDeadline(t) }
func (c fileConn) SetReadDeadline(t time.Time) error  { return c.File.SetReadDeadline(t) }
func (c fileConn) SetWriteDeadline(t time.Time) error { return c.File.SetWriteDeadline(t) }

var (
	_ net.Conn     = fileConn{}
	_ net.Listener = (*vsockListener)(nil)
)
