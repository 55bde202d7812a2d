package reap

import (
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func attr() *syscall.ProcAttr {
	return &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2}}
}

func TestManyShortChildren(t *testing.T) {
	r := New()
	var children []*Child
	for i := range 30 {
		c, err := r.Start([]string{"/bin/sh", "-c", "exit " + string(rune('0'+i%10))}, attr())
		if err != nil {
			t.Fatal(err)
		}
		children = append(children, c)
	}
	for i, c := range children {
		<-c.Done()
		if got := c.Status().ExitStatus(); got != i%10 {
			t.Errorf("child %d: status %d", i, got)
		}
		if err := c.Signal(syscall.SIGKILL); err != nil {
			t.Errorf("signal after the end: %v", err)
		}
		if err := c.WithPidfd(func(int) error { return nil }); err != unix.ESRCH {
			t.Errorf("pidfd after the end: %v", err)
		}
	}
	t.Run("signal", func(t *testing.T) {
		c, err := r.Start([]string{"/bin/sh", "-c", "exec sleep 100"}, attr())
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		<-c.Done()
		if c.Status().Signal() != syscall.SIGKILL {
			t.Error(c.Status())
		}
	})
	t.Run("missing program", func(t *testing.T) {
		if _, err := r.Start([]string{"/nope"}, attr()); err == nil {
			t.Error("started")
		}
	})
}
