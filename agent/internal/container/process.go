package container

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"woodlot.dev/agent/internal/cgroup"
	"woodlot.dev/agent/internal/fail"
	"woodlot.dev/agent/internal/launchspec"
	"woodlot.dev/agent/internal/reap"
	"woodlot.dev/agent/internal/stdio"
)

// ProcessSpec is a process to run.
type ProcessSpec struct {
	launchspec.Process
	// Stdin keeps standard input open.
	Stdin         bool
	Rows, Columns uint16
	// Init puts a small init above the process.
	Init bool
}

// Process runs in the container.
type Process struct {
	*stdio.Streams

	child    *reap.Child
	group    *cgroup.Group
	oomKills int64
}

// Exit is how a process ended.
type Exit struct {
	// Code is the status, or 128 + Signal.
	Code, Signal uint32
	OOMKilled    bool
}

// Start runs a process, the container's first or one more. The caller closes its streams after its end.
func (m *Manager) Start(spec *ProcessSpec) (*Process, error) {
	if spec.First {
		return m.startFirst(spec)
	}
	return m.startMore(spec)
}

func (m *Manager) startFirst(spec *ProcessSpec) (*Process, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.spec == nil {
		return nil, noContainer()
	}
	if m.first != nil && !isDone(m.first) {
		return nil, fail.New(fail.FailedPrecondition, "the container's first process runs already")
	}
	s := m.staged
	m.staged = nil
	if s != nil && isDone(s.child) {
		s.abandon()
		s = nil
	}
	if s == nil { // run before: namespaces anew on the same root filesystem
		var err error
		if s, err = m.newStage(); err != nil {
			return nil, err
		}
	}
	p, err := startIn(s, s.view.pts, m.group, spec)
	if err != nil {
		s.abandon()
		return nil, err
	}
	s.release()
	m.view.drop()
	m.first, m.view = s.child, s.view
	return p, nil
}

// startMore holds the lock only to look: a program that is slow to execute delays no other.
func (m *Manager) startMore(spec *ProcessSpec) (*Process, error) {
	first, pts, group, err := m.running()
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(pts) }()
	s, err := m.joinStage(first, group)
	if err != nil {
		return nil, err
	}
	p, err := startIn(s, pts, group, spec)
	if err != nil {
		s.abandon()
		return nil, err
	}
	s.release()
	return p, nil
}

// running gives what a further process needs; the /dev/pts is a copy.
func (m *Manager) running() (*reap.Child, int, *cgroup.Group, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.spec == nil {
		return nil, -1, nil, noContainer()
	}
	if m.first == nil || isDone(m.first) {
		return nil, -1, nil, fail.New(fail.FailedPrecondition, "the container is not running")
	}
	pts, err := unix.FcntlInt(uintptr(m.view.pts), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, -1, nil, fmt.Errorf("duplicate /dev/pts: %w", err)
	}
	return m.first, pts, m.group, nil
}

func noContainer() error { return fail.New(fail.FailedPrecondition, "there is no container") }

func startIn(s *stage, pts int, group *cgroup.Group, spec *ProcessSpec) (*Process, error) {
	var streams *stdio.Streams
	var err error
	if spec.Tty {
		streams, err = stdio.NewTerminal(pts, spec.Rows, spec.Columns)
	} else {
		streams, err = stdio.NewPipes(spec.Stdin)
	}
	if err != nil {
		return nil, err
	}
	spec.PtyIndex = streams.PtyIndex
	kills := group.OOMKills()
	err = s.execute(&spec.Process, streams.ChildFds(), spec.Init)
	streams.CloseChild()
	if err != nil {
		streams.Close()
		return nil, err
	}
	return &Process{Streams: streams, child: s.child, group: group, oomKills: kills}, nil
}

func isDone(c *reap.Child) bool {
	select {
	case <-c.Done():
		return true
	default:
		return false
	}
}

// PID is the process's id in the agent's namespace.
func (p *Process) PID() int { return p.child.PID }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.child.Done() }

// Signal sends a signal, 1 to 64.
func (p *Process) Signal(number uint32) error {
	if number < 1 || number > 64 {
		return fail.New(fail.InvalidArgument, fmt.Sprintf("no signal has number %d", number))
	}
	if err := p.child.Signal(syscall.Signal(number)); err != nil {
		return fmt.Errorf("send signal %d: %w", number, err)
	}
	return nil
}

// Kill ends the process.
func (p *Process) Kill() { _ = p.child.Signal(unix.SIGKILL) }

// Exit tells how it ended; valid after Done.
func (p *Process) Exit() Exit {
	ws := p.child.Status()
	e := Exit{Code: uint32(ws.ExitStatus()), OOMKilled: p.group.OOMKills() > p.oomKills}
	if ws.Signaled() {
		e.Signal = uint32(ws.Signal())
		e.Code = 128 + e.Signal
	}
	return e
}
