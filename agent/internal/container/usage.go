package container

import (
	"context"
	"os"

	"golang.org/x/sys/unix"

	"woodlot.dev/agent/internal/cgroup"
	"woodlot.dev/agent/internal/inroot"
	"woodlot.dev/agent/internal/procs"
	"woodlot.dev/agent/internal/user"
)

// maxProcesses are told of at most.
const maxProcesses = 4096

// Usage is what the container's processes use.
func (m *Manager) Usage() (cgroup.Usage, error) {
	group := m.live.Load()
	if group == nil {
		return cgroup.Usage{}, noContainer()
	}
	return group.Usage()
}

// Processes lists what runs in the container, tells how many more there are, and names users, as far as the container does.
func (m *Manager) Processes(ctx context.Context) ([]procs.Process, int, map[uint32]string, error) {
	a, err := m.Access(ctx)
	if err != nil {
		return nil, 0, nil, err
	}
	defer a.Close()
	list, more, err := procs.List(a.group.Has, maxProcesses)
	if err != nil {
		return nil, 0, nil, err
	}
	return list, more, a.users(), nil
}

// users is empty for a container without a user database that can be read.
func (a *Access) users() map[uint32]string {
	path, st, err := a.root.Resolve("/etc/passwd", true)
	if err != nil || st == nil {
		return nil
	}
	unopened, err := a.root.Find(path)
	if err != nil {
		return nil
	}
	defer func() { _ = unix.Close(unopened) }()
	fd, err := inroot.Reopen(unopened, unix.O_RDONLY)
	if err != nil {
		return nil
	}
	file := os.NewFile(uintptr(fd), path)
	defer file.Close()
	return user.Names(file)
}

// Pause lets the container's processes stand still until Unpause, and returns once they do.
func (m *Manager) Pause(ctx context.Context) error {
	group := m.live.Load()
	if group == nil {
		return noContainer()
	}
	m.pausing.Lock()
	defer m.pausing.Unlock()
	if m.thaw != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, freezeBound)
	defer cancel()
	thaw, err := group.Freeze(ctx)
	m.thaw = thaw
	return err
}

// Unpause lets them go on, unless somebody else wants them to stand still, too.
func (m *Manager) Unpause() {
	m.pausing.Lock()
	defer m.pausing.Unlock()
	if m.thaw != nil {
		m.thaw()
		m.thaw = nil
	}
}

// Update changes the container's limits; those that are zero stay.
func (m *Manager) Update(limits cgroup.Limits) error {
	group := m.live.Load()
	if group == nil {
		return noContainer()
	}
	return group.Relimit(limits)
}
