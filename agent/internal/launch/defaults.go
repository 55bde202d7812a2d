package launch

import (
	"golang.org/x/sys/unix"

	"woodlot.dev/agent/internal/fail"
	"woodlot.dev/agent/internal/rootpath"
)

// defaultMounts are filesystems that every container has and that nothing of it shapes: made ahead, mounted nowhere.
type defaultMounts struct {
	// fds are in the order of the table; -1 is one that the kernel does not have.
	fds [len(defaultTable)]int
}

const quiet = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC

var defaultTable = [...]struct {
	target, fsType, source string
	attributes             int
	// options are names and values by turns; a value may be empty.
	options  []string
	optional bool
}{
	{"/proc", "proc", "proc", quiet, nil, false},
	{"/dev", "tmpfs", "tmpfs", unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_STRICTATIME,
		[]string{"mode", "755", "size", "65536k"}, false},
	{"/dev/pts", "devpts", "devpts", unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC,
		[]string{"newinstance", "", "ptmxmode", "0666", "mode", "0620", "gid", "5"}, false},
	{"/dev/mqueue", "mqueue", "mqueue", quiet, nil, true},
	{"/sys", "sysfs", "sysfs", quiet | unix.MOUNT_ATTR_RDONLY, nil, false},
	{"/sys/fs/cgroup", "cgroup2", "cgroup", quiet | unix.MOUNT_ATTR_RDONLY, nil, false},
}

// makeDefaults makes them, in the PID, IPC and cgroup namespaces that will be the container's.
func makeDefaults() (*defaultMounts, error) {
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return nil, fail.Wrap(fail.Internal, "unshare(CLONE_NEWCGROUP)", err)
	}
	umask := unix.Umask(0)
	defer unix.Umask(umask)
	d := &defaultMounts{}
	for i, m := range defaultTable {
		fd, err := makeMount(m.fsType, m.source, m.attributes, m.options)
		if err == unix.ENODEV && m.optional {
			d.fds[i] = -1
			continue
		}
		if err != nil {
			return nil, fail.Wrap(fail.Internal, "make the filesystem "+m.fsType, err)
		}
		d.fds[i] = fd
		if m.target == "/dev" {
			if err := fillDev(fd); err != nil {
				return nil, err
			}
		}
	}
	return d, nil
}

// makeMount gives a mount that is nowhere yet.
func makeMount(fsType, source string, attributes int, options []string) (int, error) {
	fs, err := unix.Fsopen(fsType, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer func() { _ = unix.Close(fs) }()
	if err := unix.FsconfigSetString(fs, "source", source); err != nil {
		return -1, err
	}
	for i := 0; i < len(options); i += 2 {
		if options[i+1] == "" {
			err = unix.FsconfigSetFlag(fs, options[i])
		} else {
			err = unix.FsconfigSetString(fs, options[i], options[i+1])
		}
		if err != nil {
			return -1, err
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, err
	}
	return unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attributes)
}

// fillDev makes what Docker has in /dev, and the directories that are mounted on there.
func fillDev(dir int) error {
	for _, d := range []struct {
		name         string
		major, minor uint32
	}{
		{"null", 1, 3},
		{"zero", 1, 5},
		{"full", 1, 7},
		{"random", 1, 8},
		{"urandom", 1, 9},
		{"tty", 5, 0},
	} {
		if err := unix.Mknodat(dir, d.name, unix.S_IFCHR|0o666, int(unix.Mkdev(d.major, d.minor))); err != nil {
			return fail.Wrap(fail.Internal, "mknod /dev/"+d.name, err)
		}
	}
	for _, l := range [][2]string{
		{"/proc/self/fd", "fd"},
		{"/proc/self/fd/0", "stdin"},
		{"/proc/self/fd/1", "stdout"},
		{"/proc/self/fd/2", "stderr"},
		{"/proc/kcore", "core"},
		{"pts/ptmx", "ptmx"},
	} {
		if err := unix.Symlinkat(l[0], dir, l[1]); err != nil {
			return fail.Wrap(fail.Internal, "symlink /dev/"+l[1], err)
		}
	}
	for _, name := range []string{"pts", "mqueue", "shm"} {
		if err := unix.Mkdirat(dir, name, 0o755); err != nil {
			return fail.Wrap(fail.Internal, "mkdir /dev/"+name, err)
		}
	}
	return nil
}

// attach mounts them where they belong.
func (d *defaultMounts) attach() error {
	for i, m := range defaultTable {
		if d.fds[i] < 0 {
			continue
		}
		// /sys/fs/cgroup is there in sysfs; those of the image may be made.
		if err := rootpath.RealDir(m.target); err != nil {
			return err
		}
		if err := unix.MoveMount(d.fds[i], "", unix.AT_FDCWD, m.target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return fail.Wrap(fail.Internal, "mount "+m.fsType+" on "+m.target, err)
		}
		_ = unix.Close(d.fds[i])
	}
	return nil
}
