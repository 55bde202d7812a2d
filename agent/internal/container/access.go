package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"woodlot.dev/agent/internal/archive"
	"woodlot.dev/agent/internal/cgroup"
	"woodlot.dev/agent/internal/changes"
	"woodlot.dev/agent/internal/fail"
	"woodlot.dev/agent/internal/inroot"
	"woodlot.dev/agent/internal/layer"
	"woodlot.dev/agent/internal/rootfs"
)

// freezeBound is how long processes may take to stand still: one that waits for a server on the host never does.
const freezeBound = 10 * time.Second

// accesses are the uses of the container's files that are under way; they end before anything is unmounted.
type accesses struct {
	mu     sync.Mutex
	closed bool
	cancel map[*Access]context.CancelFunc
	wg     sync.WaitGroup
}

func newAccesses() *accesses { return &accesses{cancel: make(map[*Access]context.CancelFunc)} }

func (l *accesses) add(a *Access, cancel context.CancelFunc) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return fail.New(fail.FailedPrecondition, "the container is ending")
	}
	l.cancel[a] = cancel
	l.wg.Add(1)
	return nil
}

func (l *accesses) remove(a *Access) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cancel[a]()
	delete(l.cancel, a)
	l.wg.Done()
}

// end cancels all and waits for them; there will be no more.
func (l *accesses) end() error {
	l.mu.Lock()
	l.closed = true
	for _, cancel := range l.cancel {
		cancel()
	}
	l.mu.Unlock()
	l.wg.Wait()
	return nil
}

// Access is one use of the container's files.
type Access struct {
	ctx    context.Context
	among  *accesses
	rootfs *rootfs.Mounted
	group  *cgroup.Group
	// root is "/" as the container's processes see it, while namespace keeps the mounts together.
	root      *inroot.Root
	namespace int
}

// Access begins a use of the container's files; the caller closes it.
func (m *Manager) Access(ctx context.Context) (_ *Access, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.spec == nil {
		return nil, noContainer()
	}
	child := m.first
	if m.staged != nil {
		child = m.staged.child
	}
	if child == nil {
		return nil, fail.New(fail.FailedPrecondition, "the container is not running")
	}
	a := &Access{among: m.accesses, rootfs: m.root, group: m.group, namespace: -1}
	err = child.WithPidfd(func(int) (err error) {
		a.namespace, err = unix.Open(fmt.Sprintf("/proc/%d/ns/mnt", child.PID), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		return err
	})
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOENT) {
		return nil, fail.New(fail.FailedPrecondition, "the container has ended")
	}
	if err != nil {
		return nil, fmt.Errorf("open the container's mount namespace: %w", err)
	}
	defer func() {
		if err != nil {
			a.release()
		}
	}()
	root, err := rootOf(a.namespace)
	if err != nil {
		return nil, err
	}
	a.root = inroot.New(root)
	var cancel context.CancelFunc
	a.ctx, cancel = context.WithCancel(ctx)
	if err := a.among.add(a, cancel); err != nil {
		cancel()
		return nil, err
	}
	return a, nil
}

// rootOf opens "/" of a mount namespace, on a thread that is not used again.
func rootOf(namespace int) (int, error) {
	type result struct {
		fd  int
		err error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread()
		// A mount namespace is joined by a thread that shares its root and working directory with no other.
		err := unix.Unshare(unix.CLONE_FS)
		if err == nil {
			err = unix.Setns(namespace, unix.CLONE_NEWNS)
		}
		fd := -1
		if err == nil {
			fd, err = unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		}
		if err != nil {
			err = fmt.Errorf("enter the container's mount namespace: %w", err)
		}
		done <- result{fd, err}
	}()
	r := <-done
	return r.fd, r.err
}

// Close ends the use.
func (a *Access) Close() {
	a.release()
	a.among.remove(a)
}

func (a *Access) release() {
	if a.root != nil {
		a.root.Close()
	}
	_ = unix.Close(a.namespace)
}

// Stat gives the path without symlinks and what is there, nil if only its last part is missing.
func (a *Access) Stat(name string, follow bool) (string, *unix.Stat_t, error) {
	return a.root.Resolve(name, follow)
}

// Read writes a tar of what is at a path to w, which calls it name.
func (a *Access) Read(path, name string, w io.Writer) error {
	fd, err := a.root.Find(path)
	if err != nil {
		return inroot.Explain(path, err)
	}
	defer func() { _ = unix.Close(fd) }()
	return fail.Context(path, archive.Pack(a.ctx, w, fd, name))
}

// Write unpacks a tar into a directory.
func (a *Access) Write(dir string, r io.Reader) error {
	return archive.Unpack(a.ctx, r, a.root, dir)
}

// Export writes a tar of the root filesystem, without what is mounted in it, while the container's processes stand
// still.
func (a *Access) Export(w io.Writer) error {
	return a.still(func() error {
		// In the agent's own tree nothing is mounted in it.
		fd, err := unix.Open(a.rootfs.Path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open the root filesystem: %w", err)
		}
		defer func() { _ = unix.Close(fd) }()
		return archive.Pack(a.ctx, w, fd, ".")
	})
}

// ExportLayer writes the layer of an image: what differs from the container's. Its processes stand still meanwhile, unless
// they are to go on.
func (a *Access) ExportLayer(w io.Writer, going bool) error {
	write := func() error { return layer.Write(a.ctx, w, a.rootfs.Image, a.rootfs.Upper) }
	if going {
		return write()
	}
	return a.still(write)
}

// still runs f while the container's processes stand still. (Freezing the upper filesystem instead would not do: overlayfs
// may write to it when a directory is read.)
func (a *Access) still(f func() error) error {
	ctx, cancel := context.WithTimeout(a.ctx, freezeBound)
	thaw, err := a.group.Freeze(ctx)
	cancel()
	if err != nil {
		return err
	}
	defer thaw()
	return f()
}

// Changes calls emit for each path that differs from the image.
func (a *Access) Changes(emit func(changes.Change) error) error {
	return changes.Walk(a.ctx, a.rootfs.Image, a.rootfs.Upper, emit)
}
