// Package launch is the program that becomes a container's process. The agent starts it with a socket as descriptor 3
// and tells it, message by message, to build the container around itself or to join a running one, and what to execute.
//
// All of it runs on the main thread, locked: namespaces, credentials and filters belong to a thread, and execve makes
// the calling thread the process.
package launch

import (
	"io"
	"strings"

	"golang.org/x/sys/unix"

	"woodlot.dev/agent/internal/fail"
	"woodlot.dev/agent/internal/launchspec"
)

// ControlFd is the socket to the agent.
const ControlFd = 3

// Exit statuses a shell would give.
const (
	exitNotExecutable = 126
	exitNotFound      = 127
)

type launcher struct {
	ctl int
	// outerRoot is the agent's root directory, for Init to execute this program again from; -1 once given up.
	outerRoot int
	// self is this program's path relative to outerRoot.
	self string
	// defaults are the container's own filesystems until it is set up; nil in a process that joins one.
	defaults *defaultMounts
}

// Main serves the agent's messages; it returns an exit status only if it did not become another program.
func Main() int {
	l := &launcher{ctl: ControlFd, outerRoot: -1}
	unix.CloseOnExec(l.ctl)
	if err := l.prepare(); err != nil {
		return l.failed(err)
	}
	for {
		kind, body, fds, err := launchspec.Receive(l.ctl)
		if err == io.EOF {
			return 0
		}
		if err == nil {
			var status int
			var done bool
			if status, done, err = l.handle(kind, body, fds); done {
				return status
			}
		}
		if err != nil {
			return l.failed(err)
		}
	}
}

// prepare hides this process from those of the container and remembers where its own program is.
func (l *launcher) prepare() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fail.Wrap(fail.Internal, "prctl(PR_SET_DUMPABLE)", err)
	}
	buf := make([]byte, unix.PathMax)
	if n, err := unix.Readlink("/proc/self/exe", buf); err == nil {
		l.self = "." + string(buf[:n])
	}
	fd, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fail.Wrap(fail.Internal, "open /", err)
	}
	l.outerRoot = fd
	return nil
}

func (l *launcher) handle(kind launchspec.Kind, body []byte, fds []int) (status int, done bool, err error) {
	switch kind {
	case launchspec.MsgPrepare:
		if l.defaults, err = makeDefaults(); err != nil {
			return 0, false, err
		}
		return 0, false, launchspec.Send(l.ctl, launchspec.MsgReady, nil)
	case launchspec.MsgSetup:
		var s *launchspec.Setup
		if s, err = launchspec.DecodeSetup(body); err != nil {
			return 0, false, err
		}
		var root, pts int
		if l.defaults == nil {
			return 0, false, fail.New(fail.Internal, "setup comes after prepare")
		}
		if root, pts, err = setup(s, l.defaults); err != nil {
			return 0, false, err
		}
		err = launchspec.Send(l.ctl, launchspec.MsgReady, nil, root, pts)
		_ = unix.Close(root)
		_ = unix.Close(pts)
		return 0, false, err
	case launchspec.MsgJoin:
		if len(fds) != 1 {
			return 0, false, fail.New(fail.Internal, "join needs one descriptor")
		}
		return 0, false, join(fds[0])
	case launchspec.MsgInit:
		status, err = l.becomeInit()
		return status, err == nil, err
	case launchspec.MsgExec:
		var p *launchspec.Process
		if p, err = launchspec.DecodeProcess(body); err != nil {
			return 0, false, err
		}
		return 0, false, l.become(p, fds)
	}
	return 0, false, fail.New(fail.Internal, "unknown message from the agent")
}

func (l *launcher) failed(err error) int {
	_ = launchspec.Send(l.ctl, launchspec.MsgFailed, launchspec.EncodeError(err))
	if fail.KindOf(err) == fail.NotFound {
		return exitNotFound
	}
	return exitNotExecutable
}

// allowOOM undoes the protection from the memory killer that the agent's children are born with.
func allowOOM() error {
	if err := writeFile("/proc/self/oom_score_adj", "0"); err != nil {
		return fail.Context("let the memory killer choose this process", err)
	}
	return nil
}

// join enters the namespaces of the container whose first process pidfd names.
func join(pidfd int) error {
	if err := allowOOM(); err != nil {
		return err
	}
	// A mount namespace is joined by a thread that shares its root and working directory with no other.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fail.Wrap(fail.Internal, "unshare(CLONE_FS)", err)
	}
	err := unix.Setns(pidfd, unix.CLONE_NEWNS|unix.CLONE_NEWIPC|unix.CLONE_NEWUTS|unix.CLONE_NEWCGROUP)
	if err == unix.ESRCH {
		return fail.New(fail.FailedPrecondition, "the container has ended")
	}
	if err != nil {
		return fail.Wrap(fail.Internal, "join the container's namespaces", err)
	}
	return unix.Close(pidfd)
}

func writeFile(name, value string) error {
	fd, err := unix.Open(name, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fail.Wrap(fail.Internal, "open "+name, err)
	}
	defer func() { _ = unix.Close(fd) }()
	if _, err := unix.Write(fd, []byte(value)); err != nil {
		return fail.Wrap(fail.Internal, "write "+strings.TrimSpace(value)+" to "+name, err)
	}
	return nil
}
