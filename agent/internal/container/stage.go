package container

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"woodlot.dev/agent/internal/cgroup"
	"woodlot.dev/agent/internal/fail"
	"woodlot.dev/agent/internal/launchspec"
	"woodlot.dev/agent/internal/reap"
	"woodlot.dev/agent/internal/trace"
)

// stage is a launch process under way, and our end of its socket.
type stage struct {
	child *reap.Child
	ctl   int
	// view is the container's, noView for a process that joins.
	view view
}

// spawn starts a launch in the container's cgroup; its standard streams are /dev/null until it gets others.
func (m *Manager) spawn(group *cgroup.Group, cloneFlags uintptr) (*stage, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socketpair: %w", err)
	}
	defer func() { _ = unix.Close(pair[1]) }()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		_ = unix.Close(pair[0])
		return nil, fmt.Errorf("open %s: %w", os.DevNull, err)
	}
	defer null.Close()
	child, err := m.reaper.Start([]string{m.launcher}, &syscall.ProcAttr{
		Dir: "/",
		// One thread's worth of scheduler and no collector: it lives for milliseconds, within the container's limits.
		Env:   []string{"GOMAXPROCS=1", "GOGC=off"},
		Files: []uintptr{null.Fd(), null.Fd(), null.Fd(), uintptr(pair[1])},
		Sys:   &syscall.SysProcAttr{Cloneflags: cloneFlags, UseCgroupFD: true, CgroupFD: group.Fd()},
	})
	if err != nil {
		_ = unix.Close(pair[0])
		kind := fail.Internal
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.ENOMEM) {
			kind = fail.ResourceExhausted
		}
		return nil, fail.Wrap(kind, "start a process in the container", err)
	}
	return &stage{child: child, ctl: pair[0], view: noView}, nil
}

// prepareStage starts a launch in new namespaces and lets it do what needs no container.
func (m *Manager) prepareStage() (*stage, error) {
	s, err := m.spawn(m.group, unix.CLONE_NEWPID|unix.CLONE_NEWIPC|unix.CLONE_NEWUTS)
	if err != nil {
		return nil, err
	}
	if err = launchspec.Send(s.ctl, launchspec.MsgPrepare, nil); err == nil {
		_, err = s.answer()
	}
	if err != nil {
		s.abandon()
		return nil, err
	}
	return s, nil
}

// newStage lets a launch in new namespaces set the container up.
func (m *Manager) newStage() (*stage, error) {
	if err := m.prepare(); err != nil {
		return nil, err
	}
	defer trace.Begin("mounts inside")()
	s := m.waiting
	m.waiting = nil
	if err := launchspec.Send(s.ctl, launchspec.MsgSetup, m.setup.Encode()); err != nil {
		s.abandon()
		return nil, err
	}
	fds, err := s.answer()
	if err != nil {
		s.abandon()
		return nil, err
	}
	if len(fds) != 2 {
		s.abandon()
		return nil, fail.New(fail.Internal, "launch sent no view of the container")
	}
	s.view = view{root: fds[0], pts: fds[1]}
	return s, nil
}

// joinStage starts a launch in the namespaces of the container whose first process is given.
func (m *Manager) joinStage(first *reap.Child, group *cgroup.Group) (*stage, error) {
	var s *stage
	err := first.WithPidfd(func(pidfd int) error {
		var err error
		if s, err = m.spawnInside(pidfd, group); err != nil {
			return err
		}
		if err := launchspec.Send(s.ctl, launchspec.MsgJoin, nil, pidfd); err != nil {
			s.abandon()
			return err
		}
		return nil
	})
	if errors.Is(err, unix.ESRCH) {
		return nil, fail.New(fail.FailedPrecondition, "the container has ended")
	}
	return s, err
}

// spawnInside forks from a thread whose children are born in the PID namespace of pidfd's process.
func (m *Manager) spawnInside(pidfd int, group *cgroup.Group) (*stage, error) {
	type result struct {
		s   *stage
		err error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread()
		own, err := unix.Open("/proc/self/ns/pid", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			runtime.UnlockOSThread()
			done <- result{nil, fmt.Errorf("open our PID namespace: %w", err)}
			return
		}
		defer func() { _ = unix.Close(own) }()
		if err := unix.Setns(pidfd, unix.CLONE_NEWPID); err != nil {
			runtime.UnlockOSThread()
			done <- result{nil, fmt.Errorf("join the container's PID namespace: %w", err)}
			return
		}
		s, err := m.spawn(group, 0)
		if back := unix.Setns(own, unix.CLONE_NEWPID); back == nil {
			runtime.UnlockOSThread() // otherwise the thread ends with this goroutine
		}
		if errors.Is(err, unix.ENOMEM) || errors.Is(err, unix.EINVAL) { // its init is dying
			err = fail.Wrap(fail.FailedPrecondition, "the container is ending", err)
		}
		done <- result{s, err}
	}()
	r := <-done
	return r.s, r.err
}

// answer reads launch's reply to a setup.
func (s *stage) answer() ([]int, error) {
	kind, body, fds, err := launchspec.Receive(s.ctl)
	switch {
	case errors.Is(err, io.EOF):
		return nil, s.died()
	case err != nil:
		return nil, err
	case kind == launchspec.MsgFailed:
		return nil, launchspec.DecodeError(body)
	}
	return fds, nil
}

// execute makes launch the process p; nil once the program runs.
func (s *stage) execute(p *launchspec.Process, stdio []int, withInit bool) error {
	defer trace.Begin("execve")()
	if withInit {
		if err := launchspec.Send(s.ctl, launchspec.MsgInit, nil); err != nil {
			return s.reason(err)
		}
	}
	if err := launchspec.Send(s.ctl, launchspec.MsgExec, p.Encode(), stdio...); err != nil {
		return s.reason(err)
	}
	kind, body, _, err := launchspec.Receive(s.ctl)
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return err
	case kind == launchspec.MsgFailed:
		return launchspec.DecodeError(body)
	}
	return fail.New(fail.Internal, "unexpected message from launch")
}

// reason prefers what launch said before it went to the broken pipe we noticed.
func (s *stage) reason(err error) error {
	if kind, body, _, rerr := launchspec.Receive(s.ctl); rerr == nil && kind == launchspec.MsgFailed {
		return launchspec.DecodeError(body)
	}
	return err
}

// died words the end of a launch that said nothing: a memory or process limit too small for it, most likely.
func (s *stage) died() error {
	<-s.child.Done()
	return fail.New(fail.ResourceExhausted, fmt.Sprintf("launch ended early (%s); are the container's limits too small?",
		describe(s.child.Status())))
}

func describe(ws syscall.WaitStatus) string {
	if ws.Signaled() {
		return "signal " + ws.Signal().String()
	}
	return fmt.Sprintf("status %d", ws.ExitStatus())
}

// release closes our end of the socket; the process goes on.
func (s *stage) release() {
	_ = unix.Close(s.ctl)
	s.ctl = -1
}

// abandon ends the process and waits for it.
func (s *stage) abandon() {
	if s.ctl >= 0 {
		s.release()
	}
	s.view.drop()
	_ = s.child.Signal(syscall.SIGKILL)
	<-s.child.Done()
}
