// Package socket carries connections between Unix sockets of a container and the host.
package socket

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"woodlot.dev/agent/internal/fail"
)

// Spec is a socket to listen on, mounted in the container.
type Spec struct {
	// Name is what Accept finds it by.
	Name string
	// Mode is its permissions.
	Mode uint32
	// Index of the mount in the container's list.
	Index int
}

// maxName keeps the path short enough for an address, whatever the directory.
const maxName = 32

// CheckName sees that name is a plain file name.
func CheckName(name string) error {
	if name == "" || len(name) > maxName || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return fail.New(fail.InvalidArgument, fmt.Sprintf("%q is not the name of a socket", name))
	}
	return nil
}

// Listeners are sockets in the agent's own tree, from which they are mounted in the container: what becomes of the
// mount there does not touch them.
type Listeners struct {
	dir    string
	byName map[string]*listener
}

// Listen makes the sockets below dir; after a failure none is left.
func Listen(dir string, list []Spec) (_ *Listeners, err error) {
	l := &Listeners{dir: filepath.Join(dir, "sockets"), byName: make(map[string]*listener)}
	if len(list) == 0 {
		return l, nil
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close())
		}
	}()
	if err := os.Mkdir(l.dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of sockets: %w", err)
	}
	for _, s := range list {
		u, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: l.Path(s.Name)})
		if err != nil {
			return nil, fail.Wrap(fail.InvalidArgument, "make the socket "+s.Name, err)
		}
		l.byName[s.Name] = newListener(u)
		if err := os.Chmod(l.Path(s.Name), os.FileMode(s.Mode&0o777)); err != nil {
			return nil, fmt.Errorf("set the mode of the socket %s: %w", s.Name, err)
		}
	}
	return l, nil
}

// Path is where the socket of a name is in the agent's tree.
func (l *Listeners) Path(name string) string { return filepath.Join(l.dir, name) }

// Accept gives the next connection to the socket of a name, which the caller closes. Nobody is accepted who was not
// asked for, but one: the rest waits in the kernel's queue.
func (l *Listeners) Accept(ctx context.Context, name string) (*net.UnixConn, error) {
	one, ok := l.byName[name]
	if !ok {
		return nil, fail.New(fail.NotFound, fmt.Sprintf("no socket %q is mounted", name))
	}
	select {
	case conn := <-one.accepted:
		return conn, nil
	case <-one.closed:
		return nil, fail.New(fail.FailedPrecondition, "the container has ended")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Close ends the sockets and whoever waits for a connection.
func (l *Listeners) Close() error {
	for _, one := range l.byName {
		one.close()
	}
	if err := os.RemoveAll(l.dir); err != nil {
		return fmt.Errorf("remove the sockets: %w", err)
	}
	return nil
}

type listener struct {
	*net.UnixListener
	accepted chan *net.UnixConn
	closed   chan struct{}
	once     sync.Once
}

func newListener(u *net.UnixListener) *listener {
	l := &listener{UnixListener: u, accepted: make(chan *net.UnixConn), closed: make(chan struct{})}
	go l.run()
	return l
}

func (l *listener) close() {
	l.once.Do(func() { close(l.closed) })
	_ = l.UnixListener.Close()
}

func (l *listener) run() {
	for {
		conn, err := l.AcceptUnix()
		if errors.Is(err, unix.ECONNABORTED) {
			continue
		}
		if err != nil {
			l.close()
			return
		}
		select {
		case l.accepted <- conn:
		case <-l.closed:
			_ = conn.Close()
			return
		}
	}
}
