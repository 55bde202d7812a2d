package socket

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"woodlot.dev/agent/internal/fail"
)

const (
	// connectSeconds is how long a full queue of the one who listens may stay so.
	connectSeconds = 10
	// resolveTries: a rename anywhere makes the kernel give up a path with ".." in it, once each time.
	resolveTries = 64
)

// Connect connects to the Unix socket that has the path name below the directory root (O_PATH); neither symlinks nor
// ".." lead out of it.
func Connect(root int, name string) (*net.UnixConn, error) {
	file, err := resolve(root, name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(file) }()
	var st unix.Stat_t
	if err := unix.Fstat(file, &st); err != nil {
		return nil, fmt.Errorf("stat %s: %w", name, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return nil, fail.New(fail.NotFound, name+" is not a socket")
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make a socket: %w", err)
	}
	// It is the runtime's poller's once it is connected: until then it blocks, for only so does it wait for its turn.
	conn := os.NewFile(uintptr(fd), name)
	defer conn.Close()
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Sec: connectSeconds}); err != nil {
		return nil, fmt.Errorf("limit the wait for %s: %w", name, err)
	}
	if err := connect(fd, file); err != nil {
		return nil, explain(name, err)
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{}); err != nil {
		return nil, fmt.Errorf("lift the limit for %s: %w", name, err)
	}
	c, err := net.FileConn(conn)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", name, err)
	}
	return c.(*net.UnixConn), nil
}

func resolve(root int, name string) (int, error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	var err error
	for range resolveTries {
		var fd int
		if fd, err = unix.Openat2(root, name, &how); err == nil {
			return fd, nil
		}
		if err != unix.EAGAIN && err != unix.EINTR {
			break
		}
	}
	return -1, explain(name, err)
}

// connect gives the file by its descriptor: an address holds 108 bytes, and a path could lead elsewhere by now.
func connect(fd, file int) error {
	for {
		err := unix.Connect(fd, &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d", file)})
		if err != unix.EINTR {
			return err
		}
	}
}

func explain(name string, err error) error {
	kind := fail.Internal
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ECONNREFUSED):
		kind = fail.NotFound
	case errors.Is(err, unix.EPROTOTYPE):
		return fail.New(fail.InvalidArgument, name+" is not a stream socket")
	case errors.Is(err, unix.EAGAIN):
		return fail.New(fail.Timeout, name+": nobody accepts connections")
	}
	return fail.Wrap(kind, "connect to "+name, err)
}
