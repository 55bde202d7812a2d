package container

import (
	"context"
	"fmt"
	"net"

	"golang.org/x/sys/unix"

	"woodlot.dev/agent/internal/fail"
	"woodlot.dev/agent/internal/socket"
)

// Connect connects to a Unix socket of the running container.
func (m *Manager) Connect(path string) (*net.UnixConn, error) {
	root, err := m.runningRoot()
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(root) }()
	return socket.Connect(root, path)
}

// Accept waits for a connection to a socket that is mounted in the container.
func (m *Manager) Accept(ctx context.Context, name string) (*net.UnixConn, error) {
	m.mu.Lock()
	sockets := m.sockets
	m.mu.Unlock()
	if sockets == nil {
		return nil, noContainer()
	}
	return sockets.Accept(ctx, name)
}

// runningRoot gives a copy of the container's root directory.
func (m *Manager) runningRoot() (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.first == nil || isDone(m.first) {
		return -1, fail.New(fail.FailedPrecondition, "the container is not running")
	}
	root, err := unix.FcntlInt(uintptr(m.view.root), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("duplicate the root directory: %w", err)
	}
	return root, nil
}
