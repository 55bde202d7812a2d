// Package container keeps the one container of this guest: its root filesystem, its cgroup, its namespaces (which live
// as long as its first process), and the processes in it.
package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"woodlot.dev/agent/internal/cgroup"
	"woodlot.dev/agent/internal/change"
	"woodlot.dev/agent/internal/fail"
	"woodlot.dev/agent/internal/klog"
	"woodlot.dev/agent/internal/launchspec"
	"woodlot.dev/agent/internal/reap"
	"woodlot.dev/agent/internal/rootfs"
	"woodlot.dev/agent/internal/share"
	"woodlot.dev/agent/internal/socket"
	"woodlot.dev/agent/internal/trace"
)

const (
	cgroupName = "container"
	syncBound  = 5 * time.Second
)

// Spec is a container to make.
type Spec struct {
	ID, Hostname             string
	ImageSerial, UpperSerial string
	ReadOnly                 bool
	Mounts                   []launchspec.Mount
	// Shares are those of Mounts that come from the host; their sources are known once they are mounted.
	Shares []share.Spec
	// Sockets are those of Mounts that the agent listens on; their sources are known once it does.
	Sockets                   []socket.Spec
	Limits                    cgroup.Limits
	MaskedPaths, ReadonlyPath []string
	EtcFiles                  map[string][]byte
	ShmBytes                  int64
}

// Manager owns the container. Its methods may be called concurrently.
type Manager struct {
	dir      string
	launcher string
	reaper   *reap.Reaper

	mu sync.Mutex
	// spec is nil while there is no container.
	spec   *Spec
	root   *rootfs.Mounted
	shares *share.Mounted
	group  *cgroup.Group
	setup  *launchspec.Setup
	ipc    []launchspec.KV
	closed bool
	// waiting is a launch in new namespaces that was told nothing yet.
	waiting *stage
	// staged waits, all set up, to become the first process.
	staged *stage
	// sockets are those of the host that are mounted.
	sockets *socket.Listeners
	// first is the first process once it runs, with its view of the container.
	first *reap.Child
	view  view

	// accesses is nil while there is no container.
	accesses *accesses

	pausing sync.Mutex
	// thaw ends a Pause; nil unless there is one.
	thaw func()

	// live is group, readable without the lock.
	live atomic.Pointer[cgroup.Group]
	// watched is shares, in the same way.
	watched atomic.Pointer[share.Mounted]
}

// NewManager gives a manager that works below dir, a directory on a tmpfs, and starts processes with launcher.
func NewManager(dir, launcher string, reaper *reap.Reaper) (*Manager, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the state directory: %w", err)
	}
	return &Manager{dir: dir, launcher: launcher, reaper: reaper, view: noView}, nil
}

// SetIPCSysctls keeps the settings that belong to an IPC namespace for the container made later.
func (m *Manager) SetIPCSysctls(list []launchspec.KV) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ipc = list
}

// Prepare does ahead what every container needs and none shapes, so that those that start from a saved guest have it.
func (m *Manager) Prepare() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed || m.spec != nil {
		return nil
	}
	return m.prepare()
}

// prepare makes the cgroup and the namespaces, unless they are there.
func (m *Manager) prepare() (err error) {
	defer trace.Begin("cgroup and namespaces")()
	if m.group == nil {
		if m.group, err = cgroup.New(cgroupName); err != nil {
			return err
		}
		m.live.Store(m.group)
	}
	if m.waiting != nil && isDone(m.waiting.child) {
		m.waiting.abandon()
		m.waiting = nil
	}
	if m.waiting == nil {
		m.waiting, err = m.prepareStage()
	}
	return err
}

// Create makes the container; after a failure nothing of it is left.
func (m *Manager) Create(ctx context.Context, spec *Spec) (err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return fail.New(fail.FailedPrecondition, "the guest is shutting down")
	}
	if m.spec != nil {
		return fail.New(fail.AlreadyExists, fmt.Sprintf("container %q exists already", m.spec.ID))
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.dismantle(context.WithoutCancel(ctx)))
		}
	}()
	if m.root, err = rootfs.Mount(ctx, m.dir, spec.ImageSerial, spec.UpperSerial); err != nil {
		return err
	}
	if m.shares, err = share.Mount(ctx, m.dir, m.root.Path, m.reaper, spec.Shares); err != nil {
		return err
	}
	mounts := slices.Clone(spec.Mounts)
	for i, path := range m.shares.Paths {
		mounts[i].Source = path
	}
	if m.sockets, err = socket.Listen(m.dir, spec.Sockets); err != nil {
		return err
	}
	for _, s := range spec.Sockets {
		mounts[s.Index].Source = m.sockets.Path(s.Name)
	}
	etcDir := filepath.Join(m.dir, "etc")
	names, err := writeEtcFiles(etcDir, spec.EtcFiles)
	if err != nil {
		return err
	}
	if err := m.prepare(); err != nil {
		return err
	}
	if err := m.group.Limit(spec.Limits); err != nil {
		return err
	}
	m.setup = &launchspec.Setup{
		Rootfs: m.root.Path, ReadOnly: spec.ReadOnly, Hostname: spec.Hostname, ShmBytes: spec.ShmBytes,
		Mounts: mounts, Masked: spec.MaskedPaths, Readonly: spec.ReadonlyPath,
		EtcDir: etcDir, EtcFiles: names, Sysctls: m.ipc,
	}
	if m.staged, err = m.newStage(); err != nil {
		return err
	}
	m.spec, m.accesses = spec, newAccesses()
	m.watched.Store(m.shares)
	return nil
}

// Reset undoes Create and prepares for the next one.
func (m *Manager) Reset(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return fail.New(fail.FailedPrecondition, "the guest is shutting down")
	}
	m.ipc = nil
	if err := m.dismantle(ctx); err != nil {
		return err
	}
	return m.prepare()
}

// Play raises the events of what changed on the host in a share.
func (m *Manager) Play(source string, changes []change.Change) error {
	shares := m.watched.Load()
	if shares == nil {
		return noContainer()
	}
	return shares.Play(source, changes)
}

func writeEtcFiles(dir string, files map[string][]byte) ([]string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make directory for /etc files: %w", err)
	}
	var names []string
	for name, content := range files {
		if name != filepath.Base(name) || name == "." || name == ".." || name == "/" {
			return nil, fail.New(fail.InvalidArgument, fmt.Sprintf("etc_files: %q is not a file name", name))
		}
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return nil, fmt.Errorf("write /etc/%s: %w", name, err)
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

// Shutdown ends every process, unmounts and syncs. No container can be made after it.
func (m *Manager) Shutdown(ctx context.Context) error {
	// Before the lock, which a program that is being executed may hold.
	var early error
	if group := m.live.Load(); group != nil {
		early = group.Kill(ctx)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if early != nil {
		klog.Warnf("shutdown: %v", early)
	}
	m.closed = true
	err := m.dismantle(ctx)
	return errors.Join(err, share.Within(syncBound, func() error {
		unix.Sync()
		return nil
	}))
}

// dismantle undoes Create, whatever of it was done.
func (m *Manager) dismantle(ctx context.Context) error {
	var errs []error
	// Who uses the files keeps them from being unmounted.
	if m.accesses != nil {
		if err := share.Within(syncBound, m.accesses.end); err != nil {
			errs = append(errs, err)
		}
		m.accesses = nil
	}
	for _, s := range []**stage{&m.waiting, &m.staged} {
		if *s != nil {
			(*s).abandon()
			*s = nil
		}
	}
	if m.group != nil {
		if err := m.group.Kill(ctx); err != nil {
			errs = append(errs, err)
		}
	}
	if m.first != nil {
		<-m.first.Done()
		m.first = nil
	}
	m.view.drop()
	m.live.Store(nil)
	m.watched.Store(nil)
	if m.group != nil {
		if err := m.group.Remove(); err != nil {
			errs = append(errs, err)
		}
		m.group = nil
	}
	// The root filesystem first: it does not depend on anybody on the host.
	if m.root != nil {
		if err := m.root.Unmount(); err != nil {
			errs = append(errs, err)
		}
		m.root = nil
	}
	if m.shares != nil {
		if err := m.shares.Unmount(); err != nil {
			errs = append(errs, err)
		}
		m.shares = nil
	}
	if m.sockets != nil {
		if err := m.sockets.Close(); err != nil {
			errs = append(errs, err)
		}
		m.sockets = nil
	}
	if err := os.RemoveAll(filepath.Join(m.dir, "etc")); err != nil {
		errs = append(errs, fmt.Errorf("remove /etc files: %w", err))
	}
	m.spec = nil
	m.pausing.Lock()
	m.thaw = nil
	m.pausing.Unlock()
	return errors.Join(errs...)
}

// view is the container as its processes see it: its root directory and its /dev/pts (O_PATH).
type view struct{ root, pts int }

var noView = view{root: -1, pts: -1}

// drop closes both, which would keep the container's mounts alive.
func (v *view) drop() {
	for _, fd := range []int{v.root, v.pts} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
	*v = noView
}
