package launch

import (
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"woodlot.dev/agent/internal/capability"
	"woodlot.dev/agent/internal/fail"
	"woodlot.dev/agent/internal/launchspec"
	"woodlot.dev/agent/internal/rootpath"
	"woodlot.dev/agent/internal/seccomp"
	"woodlot.dev/agent/internal/user"
)

// become turns this process into p; it returns only on failure.
func (l *launcher) become(p *launchspec.Process, fds []int) error {
	if err := l.takeStdio(fds); err != nil {
		return err
	}
	if err := session(p); err != nil {
		return err
	}
	id, err := user.Resolve(p.User)
	if err != nil {
		return err
	}
	if err := ownStdio(id.UID); err != nil {
		return err
	}
	if err := enter(p.Cwd); err != nil {
		return err
	}
	if err := limit(p.Rlimits); err != nil {
		return err
	}
	unix.Umask(0o022)
	if err := shed(p, id); err != nil {
		return err
	}
	env := p.Env
	if !hasEnv(env, "HOME") {
		env = append(env, "HOME="+id.Home)
	}
	program, err := lookup(p.Args[0], env)
	if err != nil {
		return err
	}
	return execError(program, syscall.Exec(program, p.Args, env))
}

// takeStdio puts fds in place of 0, 1, 2; nothing else but the socket, which execve closes, stays open.
func (l *launcher) takeStdio(fds []int) error {
	if len(fds) != 3 {
		return fail.New(fail.Internal, "exec needs three descriptors")
	}
	for i, fd := range fds {
		if err := unix.Dup3(fd, i, 0); err != nil {
			return fail.Wrap(fail.Internal, "dup3", err)
		}
		_ = unix.Close(fd)
	}
	if l.outerRoot >= 0 {
		_ = unix.Close(l.outerRoot)
		l.outerRoot = -1
	}
	if err := unix.Chdir("/"); err != nil {
		return fail.Wrap(fail.Internal, "chdir /", err)
	}
	const closeRangeCloexec = 4
	err := unix.CloseRange(3, ^uint(0)>>33, closeRangeCloexec)
	if err == unix.ENOSYS || err == unix.EINVAL { // before Linux 5.11; every descriptor of ours has the flag anyway
		err = nil
	}
	return fail.Wrap(fail.Internal, "close_range", err)
}

// session gives the process a session of its own, and the terminal for it.
func session(p *launchspec.Process) error {
	if _, err := unix.Setsid(); err != nil && err != unix.EPERM { // EPERM: leader already
		return fail.Wrap(fail.Internal, "setsid", err)
	}
	if !p.Tty {
		return nil
	}
	if err := unix.IoctlSetInt(0, unix.TIOCSCTTY, 0); err != nil {
		return fail.Wrap(fail.Internal, "take the controlling terminal", err)
	}
	if !p.First {
		return nil
	}
	fd, err := unix.Open("/dev/console", unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return fail.Wrap(fail.Internal, "create /dev/console", err)
	}
	_ = unix.Close(fd)
	pts := "/dev/pts/" + strconv.FormatUint(uint64(p.PtyIndex), 10)
	return fail.Wrap(fail.Internal, "bind "+pts+" on /dev/console", unix.Mount(pts, "/dev/console", "", unix.MS_BIND, ""))
}

// ownStdio lets the process open /dev/stdout and its like again after it has changed its user.
func ownStdio(uid uint32) error {
	const null = 1<<8 | 3
	for fd := range 3 {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return fail.Wrap(fail.Internal, "fstat stdio", err)
		}
		if st.Uid == uid || st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == null {
			continue
		}
		if err := unix.Fchown(fd, int(uid), -1); err != nil && err != unix.EROFS && err != unix.EPERM {
			return fail.Wrap(fail.Internal, "fchown stdio", err)
		}
	}
	return nil
}

// enter makes the working directory if missing and goes there. Magic links, the one way out of a root, are refused.
func enter(cwd string) error {
	if cwd == "" {
		cwd = "/"
	}
	dir, err := rootpath.EnsureDir(cwd)
	if err != nil {
		return fail.Context("working directory "+cwd, err)
	}
	fd, err := unix.Openat2(unix.AT_FDCWD, dir, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_NO_MAGICLINKS,
	})
	if err == nil {
		err = unix.Fchdir(fd)
		_ = unix.Close(fd)
	}
	return fail.Wrap(fail.InvalidArgument, "working directory "+cwd, err)
}

func limit(limits []launchspec.Rlimit) error {
	for _, r := range limits {
		lim := unix.Rlimit{Cur: r.Soft, Max: r.Hard}
		if err := unix.Prlimit(0, int(r.Resource), &lim, nil); err != nil {
			return fail.Wrap(fail.InvalidArgument, "set resource limit "+strconv.FormatUint(r.Resource, 10), err)
		}
	}
	return nil
}

// shed gives up what the process may not have: capabilities, root's identity, unfiltered system calls. Every call here
// acts on this thread alone, the one that will be the process.
func shed(p *launchspec.Process, id user.Identity) error {
	caps := capability.Set(p.Caps)
	if p.NoNewPriv {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return fail.Wrap(fail.Internal, "prctl(PR_SET_NO_NEW_PRIVS)", err)
		}
	}
	if err := capability.DropBounding(caps); err != nil {
		return err
	}
	groups := id.Groups
	if err := syscall3(unix.SYS_SETGROUPS, uintptr(len(groups)), pointer(groups), 0); err != nil {
		return fail.Wrap(fail.Internal, "setgroups", err)
	}
	gid, uid := uintptr(id.GID), uintptr(id.UID)
	if err := syscall3(unix.SYS_SETRESGID, gid, gid, gid); err != nil {
		return fail.Wrap(fail.Internal, "setresgid", err)
	}
	if p.Seccomp {
		// Needs CAP_SYS_ADMIN, so before it goes; all that follows is allowed by the profile.
		if err := seccomp.Install(p.Caps); err != nil {
			return err
		}
	}
	if err := syscall3(unix.SYS_SETRESUID, uid, uid, uid); err != nil {
		return fail.Wrap(fail.Internal, "setresuid", err)
	}
	if id.UID != 0 {
		caps = 0
	}
	return capability.Apply(caps)
}

func hasEnv(env []string, name string) bool {
	for _, e := range env {
		if key, _, ok := strings.Cut(e, "="); ok && key == name {
			return true
		}
	}
	return false
}

// lookup finds the program as execvp does, and words its errors as Docker does.
func lookup(name string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		return name, executable(name)
	}
	for _, e := range env {
		key, value, _ := strings.Cut(e, "=")
		if key != "PATH" {
			continue
		}
		for _, dir := range strings.Split(value, ":") {
			if !strings.HasPrefix(dir, "/") {
				continue // a program found by way of the working directory is not run
			}
			if p := strings.TrimRight(dir, "/") + "/" + name; name != "" && executable(p) == nil {
				return p, nil
			}
		}
	}
	return "", fail.New(fail.NotFound, "exec: "+strconv.Quote(name)+": executable file not found in $PATH")
}

func executable(p string) error {
	var st unix.Stat_t
	if err := unix.Stat(p, &st); err != nil {
		kind := fail.NotFound
		if err == unix.EACCES {
			kind = fail.PermissionDenied
		}
		return fail.Wrap(kind, "exec: "+strconv.Quote(p)+": stat "+p, err)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return fail.New(fail.PermissionDenied, "exec: "+strconv.Quote(p)+": is a directory")
	}
	if err := unix.Faccessat(unix.AT_FDCWD, p, unix.X_OK, unix.AT_EACCESS); err == unix.EACCES || st.Mode&0o111 == 0 {
		return fail.New(fail.PermissionDenied, "exec: "+strconv.Quote(p)+": permission denied")
	}
	return nil
}

func execError(program string, err error) error {
	kind := fail.PermissionDenied
	switch err {
	case unix.ENOENT, unix.ENOTDIR: // also: the interpreter that the file names
		kind = fail.NotFound
	case unix.E2BIG:
		kind = fail.InvalidArgument
	case unix.ENOMEM, unix.EAGAIN, unix.EMFILE, unix.ENFILE:
		kind = fail.ResourceExhausted
	}
	return fail.Wrap(kind, "exec "+program, err)
}
