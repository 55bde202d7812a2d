// Package reap is the one place that waits for children: its own, and the orphans that PID 1 inherits.
package reap

import (
	"errors"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Child is a process that was started through a Reaper.
type Child struct {
	PID int

	pidfd  int
	mu     sync.Mutex
	done   chan struct{}
	status syscall.WaitStatus
}

// Done is closed once the child has been waited for.
func (c *Child) Done() <-chan struct{} { return c.done }

// Status is how it ended; valid after Done.
func (c *Child) Status() syscall.WaitStatus { return c.status }

// Signal sends a signal; a child that has ended is not an error, and its reused id is never hit.
func (c *Child) Signal(sig syscall.Signal) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pidfd < 0 {
		return nil
	}
	err := unix.PidfdSendSignal(c.pidfd, sig, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// WithPidfd calls f with the child's pidfd; unix.ESRCH if it has ended and been waited for.
func (c *Child) WithPidfd(f func(pidfd int) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pidfd < 0 {
		return unix.ESRCH
	}
	return f(c.pidfd)
}

func (c *Child) finish(status syscall.WaitStatus) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status = status
	_ = unix.Close(c.pidfd)
	c.pidfd = -1
	close(c.done)
}

// Reaper starts and waits for children. Nothing else in the program may wait for any.
type Reaper struct {
	mu       sync.Mutex
	children map[int]*Child
	signals  chan os.Signal
}

// New gives a running Reaper.
func New() *Reaper {
	r := &Reaper{children: map[int]*Child{}, signals: make(chan os.Signal, 1)}
	signal.Notify(r.signals, syscall.SIGCHLD)
	go r.run()
	return r
}

// Start forks argv[0] with attr, whose Sys it completes; the child cannot be waited for before it is known here.
func (r *Reaper) Start(argv []string, attr *syscall.ProcAttr) (*Child, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if attr.Sys == nil {
		attr.Sys = &syscall.SysProcAttr{}
	}
	pidfd := -1
	attr.Sys.PidFD = &pidfd
	pid, err := syscall.ForkExec(argv[0], argv, attr)
	if err != nil {
		return nil, err
	}
	c := &Child{PID: pid, pidfd: pidfd, done: make(chan struct{})}
	r.children[pid] = c
	return c, nil
}

func (r *Reaper) run() {
	for range r.signals {
		r.collect()
	}
}

func (r *Reaper) collect() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if c, ok := r.children[pid]; ok {
			delete(r.children, pid)
			c.finish(status)
		}
	}
}
