package launch

import (
	"path"
	"strconv"

	"golang.org/x/sys/unix"

	"woodlot.dev/agent/internal/fail"
	"woodlot.dev/agent/internal/launchspec"
	"woodlot.dev/agent/internal/rootpath"
	"woodlot.dev/agent/internal/user"
)

const defaultShmBytes = 64 << 20

// setup builds the container's view, in the namespaces this process was born in and a mount namespace of its own, and gives
// its root directory and its /dev/pts (O_PATH).
// pivot_root comes first: from then on every path, with whatever symlinks the image holds, ends inside the container.
func setup(s *launchspec.Setup, defaults *defaultMounts) (root, pts int, err error) {
	if err := allowOOM(); err != nil {
		return -1, -1, err
	}
	for _, kv := range s.Sysctls {
		if err := writeFile("/proc/sys/"+kv.Key, kv.Value); err != nil {
			return -1, -1, fail.Wrap(fail.InvalidArgument, "sysctl", err)
		}
	}
	// Only now, so that what the agent has mounted since this process was started is in it.
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return -1, -1, fail.Wrap(fail.Internal, "unshare(CLONE_NEWNS)", err)
	}
	if s.Hostname != "" {
		if err := unix.Sethostname([]byte(s.Hostname)); err != nil {
			return -1, -1, fail.Wrap(fail.InvalidArgument, "set the hostname", err)
		}
	}
	unix.Umask(0)
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return -1, -1, fail.Wrap(fail.Internal, "make mounts private", err)
	}
	etc, err := cloneEtcFiles(s)
	if err != nil {
		return -1, -1, err
	}
	trees, err := cloneTrees(s.Mounts)
	if err != nil {
		return -1, -1, err
	}
	if err := pivot(s.Rootfs); err != nil {
		return -1, -1, err
	}
	steps := []func() error{
		defaults.attach,
		func() error { return mountShm(s.ShmBytes) },
		func() error { return mountRequested(s.Mounts, trees) },
		func() error { return attachEtcFiles(s, etc) },
		linkMtab,
		func() error { return maskPaths(s.Masked) },
		func() error { return protectPaths(s.Readonly) },
		func() error {
			if s.ReadOnly {
				return remountReadOnly("/")
			}
			return nil
		},
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return -1, -1, err
		}
	}
	unix.Umask(0o022)
	const flags = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	if root, err = unix.Open("/", flags, 0); err != nil {
		return -1, -1, fail.Wrap(fail.Internal, "open the root directory", err)
	}
	pts, err = unix.Open("/dev/pts", flags, 0)
	return root, pts, fail.Wrap(fail.Internal, "open /dev/pts", err)
}

// cloneEtcFiles takes a detached mount of each file while the agent's tree is still in sight.
func cloneEtcFiles(s *launchspec.Setup) ([]int, error) {
	fds := make([]int, len(s.EtcFiles))
	for i, name := range s.EtcFiles {
		fd, err := unix.OpenTree(unix.AT_FDCWD, path.Join(s.EtcDir, name), unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if err != nil {
			return nil, fail.Wrap(fail.Internal, "open_tree "+name, err)
		}
		fds[i] = fd
	}
	return fds, nil
}

func attachEtcFiles(s *launchspec.Setup, fds []int) error {
	for i, name := range s.EtcFiles {
		target, err := rootpath.EnsureFile("/etc/" + name)
		if err != nil {
			return err
		}
		if err := unix.MoveMount(fds[i], "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return fail.Wrap(fail.Internal, "bind /etc/"+name, err)
		}
		_ = unix.Close(fds[i])
	}
	return nil
}

// pivot makes root this mount namespace's "/" and takes everything else out of it.
func pivot(root string) error {
	if err := unix.Chdir(root); err != nil {
		return fail.Wrap(fail.Internal, "enter "+root, err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fail.Wrap(fail.Internal, "pivot_root", err)
	}
	// The old root now lies on top of the new one.
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fail.Wrap(fail.Internal, "detach the agent's root", err)
	}
	return fail.Wrap(fail.Internal, "enter the root filesystem", unix.Chdir("/"))
}

func mountShm(bytes int64) error {
	if bytes <= 0 {
		bytes = defaultShmBytes
	}
	err := unix.Mount("tmpfs", "/dev/shm", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC,
		"mode=1777,size="+strconv.FormatInt(bytes, 10))
	return fail.Wrap(fail.Internal, "mount tmpfs on /dev/shm", err)
}

// cloneTrees takes a detached mount of each bind's and socket's source while the agent's tree is still in sight; others get -1.
func cloneTrees(mounts []launchspec.Mount) ([]int, error) {
	fds := make([]int, len(mounts))
	for i, m := range mounts {
		fds[i] = -1
		if m.Type != launchspec.Bind && m.Type != launchspec.Socket {
			continue
		}
		fd, err := unix.OpenTree(unix.AT_FDCWD, m.Source, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if err != nil {
			return nil, fail.Wrap(fail.FailedPrecondition, "clone the mount for "+m.Destination, err)
		}
		fds[i] = fd
	}
	return fds, nil
}

// attachTree mounts a clone on a directory or a file, whichever it is itself. The clone stays open.
func attachTree(m *launchspec.Mount, fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fail.Wrap(fail.FailedPrecondition, "stat what is mounted on "+m.Destination, err)
	}
	ensure := rootpath.EnsureFile
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		ensure = rootpath.EnsureDir
	}
	target, err := ensure(m.Destination)
	if err != nil {
		return err
	}
	if target == "/" {
		return fail.New(fail.InvalidArgument, "a mount may not replace the root filesystem")
	}
	if m.Type == launchspec.Bind {
		if err := setAttributes(m, fd); err != nil {
			return err
		}
	}
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fail.Wrap(fail.Internal, "mount on "+m.Destination, err)
	}
	return nil
}

// giveSocket gives a mounted socket its owner. The user database may itself be mounted, and what is read-only has its
// owner for good: so this comes after all mounts, and before the socket's attributes.
func giveSocket(m *launchspec.Mount, fd int) error {
	owner, err := user.Resolve(m.Owner)
	if err != nil {
		return err
	}
	if err := unix.Fchownat(fd, "", int(owner.UID), int(owner.GID), unix.AT_EMPTY_PATH); err != nil {
		return fail.Wrap(fail.Internal, "set the owner of "+m.Destination, err)
	}
	return setAttributes(m, fd)
}

func setAttributes(m *launchspec.Mount, fd int) error {
	attr := unix.MountAttr{}
	for _, f := range [][2]uint64{
		{unix.MS_RDONLY, unix.MOUNT_ATTR_RDONLY},
		{unix.MS_NOSUID, unix.MOUNT_ATTR_NOSUID},
		{unix.MS_NODEV, unix.MOUNT_ATTR_NODEV},
		{unix.MS_NOEXEC, unix.MOUNT_ATTR_NOEXEC},
	} {
		if m.Flags&f[0] != 0 {
			attr.Attr_set |= f[1]
		}
	}
	if attr.Attr_set != 0 {
		if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
			return fail.Wrap(fail.Internal, "set the options of "+m.Destination, err)
		}
	}
	return nil
}

func mountRequested(mounts []launchspec.Mount, trees []int) error {
	for i, m := range mounts {
		if trees[i] >= 0 {
			if err := attachTree(&m, trees[i]); err != nil {
				return err
			}
			continue
		}
		target, err := rootpath.EnsureDir(m.Destination)
		if err != nil {
			return err
		}
		if target == "/" {
			return fail.New(fail.InvalidArgument, "a mount may not replace the root filesystem")
		}
		data := m.Data
		if m.Type == "tmpfs" && !hasOption(data, "mode") {
			// A tmpfs over a directory of the image takes the directory's mode, as runc does it.
			var st unix.Stat_t
			if err := unix.Stat(target, &st); err == nil {
				data = joinOptions("mode="+strconv.FormatUint(uint64(st.Mode&0o7777), 8), data)
			}
		}
		if err := unix.Mount(m.Source, target, m.Type, uintptr(m.Flags), data); err != nil {
			kind := fail.Internal
			if err == unix.EINVAL || err == unix.ENODEV || err == unix.ENOENT {
				kind = fail.InvalidArgument
			}
			return fail.Wrap(kind, "mount "+m.Type+" on "+m.Destination, err)
		}
	}
	for i, m := range mounts {
		if m.Type == launchspec.Socket {
			if err := giveSocket(&m, trees[i]); err != nil {
				return err
			}
		}
		if trees[i] >= 0 {
			_ = unix.Close(trees[i])
		}
	}
	return nil
}

func joinOptions(a, b string) string {
	if b == "" {
		return a
	}
	return a + "," + b
}

func hasOption(data, name string) bool {
	for data != "" {
		var one string
		one, data = cut(data, ',')
		if key, _ := cut(one, '='); key == name {
			return true
		}
	}
	return false
}

func cut(s string, sep byte) (before, after string) {
	for i := range len(s) {
		if s[i] == sep {
			return s[:i], s[i+1:]
		}
	}
	return s, ""
}

// linkMtab gives /etc/mtab as Docker does, in place of whatever the image has.
func linkMtab() error {
	dir, err := rootpath.EnsureDir("/etc")
	if err != nil {
		return err
	}
	name := path.Join(dir, "mtab")
	buf := make([]byte, 32)
	if n, err := unix.Readlink(name, buf); err == nil && string(buf[:n]) == "/proc/mounts" {
		return nil
	}
	if err := unix.Unlink(name); err != nil && err != unix.ENOENT {
		return nil // a directory: leave it be
	}
	return fail.Wrap(fail.Internal, "symlink /etc/mtab", unix.Symlink("/proc/mounts", name))
}

func maskPaths(paths []string) error {
	for _, p := range paths {
		err := unix.Mount("/dev/null", p, "", unix.MS_BIND, "")
		if err == unix.ENOTDIR { // the path is a directory
			err = unix.Mount("tmpfs", p, "tmpfs", unix.MS_RDONLY, "")
		}
		if err != nil && err != unix.ENOENT && err != unix.ENOTDIR {
			return fail.Wrap(fail.Internal, "mask "+p, err)
		}
	}
	return nil
}

func protectPaths(paths []string) error {
	for _, p := range paths {
		err := unix.Mount(p, p, "", unix.MS_BIND|unix.MS_REC, "")
		if err == unix.ENOENT || err == unix.ENOTDIR {
			continue
		}
		if err != nil {
			return fail.Wrap(fail.Internal, "bind "+p, err)
		}
		if err := remountReadOnly(p); err != nil {
			return err
		}
	}
	return nil
}

// remountReadOnly keeps the mount's other flags.
func remountReadOnly(p string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(p, &st); err != nil {
		return fail.Wrap(fail.Internal, "statfs "+p, err)
	}
	// ST_ flags equal MS_ flags for those that a bind mount keeps, but for ST_RELATIME.
	const keep = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME | unix.MS_NODIRATIME
	flags := uintptr(st.Flags) & keep
	if st.Flags&unix.ST_RELATIME != 0 {
		flags |= unix.MS_RELATIME
	}
	err := unix.Mount("", p, "", flags|unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
	return fail.Wrap(fail.Internal, "remount "+p+" read-only", err)
}
