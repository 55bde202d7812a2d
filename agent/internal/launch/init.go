package launch

import (
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"

	"woodlot.dev/agent/internal/capability"
	"woodlot.dev/agent/internal/fail"
)

// becomeInit forks: a second launch takes over the socket and becomes the program, this process stays as the init of
// the container, forwards signals, reaps, and ends with the program's status.
func (l *launcher) becomeInit() (int, error) {
	signals := make(chan os.Signal, 128)
	signal.Notify(signals)
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return 0, fail.Wrap(fail.Internal, "prctl(PR_SET_CHILD_SUBREAPER)", err)
	}
	// The agent's root is no longer part of this namespace, but its directory can still be worked in.
	if err := unix.Fchdir(l.outerRoot); err != nil {
		return 0, fail.Wrap(fail.Internal, "fchdir", err)
	}
	child, err := syscall.ForkExec(l.self, []string{"launch"}, &syscall.ProcAttr{
		Env:   os.Environ(),
		Files: []uintptr{0, 1, 2, uintptr(l.ctl)},
	})
	if err != nil {
		return 0, fail.Wrap(fail.Internal, "fork below init", err)
	}
	_ = unix.Close(l.ctl)
	_ = unix.Close(l.outerRoot)
	_ = unix.Chdir("/")
	_ = writeFile("/proc/self/comm", "init")
	// All it still needs is to signal the program, whatever user that has become. More would do no harm: processes of
	// the container hold fewer capabilities than it had and so cannot touch it.
	_ = capability.DropBounding(capability.Kill)
	_ = capability.Apply(capability.Kill)
	return serveInit(child, signals), nil
}

// serveInit returns the child's status once it has ended, 128 + n for signal n.
func serveInit(child int, signals <-chan os.Signal) int {
	for s := range signals {
		n, ok := s.(syscall.Signal)
		switch {
		case !ok || n == unix.SIGURG: // the Go runtime's own
		case n == unix.SIGCHLD:
			if status, ended := reap(child); ended {
				return status
			}
		default:
			_ = unix.Kill(child, n)
		}
	}
	return 0
}

func reap(child int) (status int, ended bool) {
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, unix.WNOHANG, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return status, ended
		}
		if pid != child {
			continue
		}
		ended = true
		if status = ws.ExitStatus(); ws.Signaled() {
			status = 128 + int(ws.Signal())
		}
	}
}
