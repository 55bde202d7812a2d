// Package copyup fills a new volume with what the image has where it is mounted.
package copyup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"woodlot.dev/agent/internal/fail"
)

const maxXattrs = 64 << 10

// file tells hard links apart from other files.
type file struct{ dev, ino uint64 }

type copier struct {
	ctx context.Context
	// links holds, for each file with several names, the first of them below the target.
	links map[file]string
	to    int
}

// Fill empties the directory target, then copies into it what root has at destination: files of every kind with
// owners, modes, times, extended attributes and hard links among them. Nothing there is an
// empty directory, and nothing copied.
// It is for a volume nobody uses yet: what a copy that was cut short has left is removed.
func Fill(ctx context.Context, root, destination, target string, cutShort bool) (copied bool, err error) {
	to, err := unix.Open(target, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, fmt.Errorf("open the volume: %w", err)
	}
	defer func() { _ = unix.Close(to) }()
	// Only then: another container may be using a volume that was empty a moment ago.
	if cutShort {
		if err := empty(target); err != nil {
			return false, fmt.Errorf("empty the volume: %w", err)
		}
	}
	from, err := openInRoot(root, destination)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if errors.Is(err, unix.ENOTDIR) {
		return false, fail.New(fail.InvalidArgument, "the image has a file there, and a volume is a directory")
	}
	if err != nil {
		return false, fmt.Errorf("open %s in the image: %w", destination, err)
	}
	defer func() { _ = unix.Close(from) }()
	c := &copier{ctx: ctx, links: make(map[file]string), to: to}
	var st unix.Stat_t
	if err := unix.Fstat(from, &st); err != nil {
		return false, fmt.Errorf("stat %s: %w", destination, err)
	}
	if err := c.entries(from, to, "."); err != nil {
		return false, explain(err)
	}
	if err := attributes(from, to, &st); err != nil {
		return false, explain(fmt.Errorf("the volume's own directory: %w", err))
	}
	// Whoever hears that it is filled never fills it again: from here on the machine may end at any moment.
	if err := unix.Syncfs(to); err != nil {
		return false, explain(fmt.Errorf("write the volume to its disk: %w", err))
	}
	return true, nil
}

// openInRoot resolves symlinks as they would be inside the container.
func openInRoot(root, name string) (int, error) {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer func() { _ = unix.Close(dir) }()
	return unix.Openat2(dir, path.Clean("/"+name), &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
}

func empty(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.RemoveAll(path.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// explain tells what an owner that the host cannot represent is: chown gives EINVAL for it.
func explain(err error) error {
	if errors.Is(err, unix.EINVAL) {
		return fail.Wrap(fail.FailedPrecondition, "the host's user has no ids for the image's owners", err)
	}
	return err
}

func (c *copier) entries(from, to int, below string) error {
	names, err := list(from)
	if err != nil {
		return fmt.Errorf("list %s: %w", below, err)
	}
	for _, name := range names {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		if err := c.entry(from, to, name, path.Join(below, name)); err != nil {
			return err
		}
	}
	return nil
}

func (c *copier) entry(from, to int, name, whole string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(from, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("stat %s: %w", whole, err)
	}
	kind := st.Mode & unix.S_IFMT
	if kind != unix.S_IFDIR && st.Nlink > 1 {
		id := file{st.Dev, st.Ino}
		if first, ok := c.links[id]; ok {
			return wrap("link", whole, unix.Linkat(c.to, first, to, name, 0))
		}
		c.links[id] = whole
	}
	switch kind {
	case unix.S_IFDIR:
		return c.directory(from, to, name, whole, &st)
	case unix.S_IFREG:
		return regular(from, to, name, whole, &st)
	case unix.S_IFLNK:
		return symlink(from, to, name, whole, &st)
	default:
		return special(to, name, whole, &st)
	}
}

func (c *copier) directory(from, to int, name, whole string, st *unix.Stat_t) error {
	source, err := unix.Openat(from, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return wrap("open", whole, err)
	}
	defer func() { _ = unix.Close(source) }()
	if err := unix.Mkdirat(to, name, 0o700); err != nil {
		return wrap("make", whole, err)
	}
	target, err := unix.Openat(to, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return wrap("open the new", whole, err)
	}
	defer func() { _ = unix.Close(target) }()
	if err := c.entries(source, target, whole); err != nil {
		return err
	}
	return wrap("copy", whole, attributes(source, target, st))
}

func regular(from, to int, name, whole string, st *unix.Stat_t) error {
	fd, err := unix.Openat(from, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return wrap("open", whole, err)
	}
	source := os.NewFile(uintptr(fd), whole)
	defer source.Close()
	fd, err = unix.Openat(to, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return wrap("make", whole, err)
	}
	target := os.NewFile(uintptr(fd), whole)
	defer target.Close()
	if _, err := io.Copy(target, source); err != nil {
		return fmt.Errorf("copy %w", err)
	}
	return wrap("copy", whole, attributes(int(source.Fd()), int(target.Fd()), st))
}

func symlink(from, to int, name, whole string, st *unix.Stat_t) error {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(from, name, buf)
	if err != nil {
		return wrap("readlink", whole, err)
	}
	if err := unix.Symlinkat(string(buf[:n]), to, name); err != nil {
		return wrap("make", whole, err)
	}
	return wrap("copy", whole, named(to, name, st))
}

func special(to int, name, whole string, st *unix.Stat_t) error {
	kind := st.Mode & unix.S_IFMT
	if kind == unix.S_IFSOCK { // without the process that bound it, nothing
		return nil
	}
	if err := unix.Mknodat(to, name, kind|0o600, int(st.Rdev)); err != nil {
		return wrap("make", whole, err)
	}
	// No symlink can be here: it was made just now, in a directory that nobody else knows.
	if err := unix.Fchmodat(to, name, st.Mode&0o7777, 0); err != nil {
		return wrap("chmod", whole, err)
	}
	return wrap("copy", whole, named(to, name, st))
}

// attributes gives the open file to what the open file from has; the mode after the owner, which takes setuid away.
func attributes(from, to int, st *unix.Stat_t) error {
	if err := unix.Fchown(to, int(st.Uid), int(st.Gid)); err != nil {
		return fmt.Errorf("chown to %d:%d: %w", st.Uid, st.Gid, err)
	}
	if err := unix.Fchmod(to, st.Mode&0o7777); err != nil {
		return fmt.Errorf("chmod: %w", err)
	}
	if err := xattrs(from, to); err != nil {
		return err
	}
	times := []unix.Timespec{st.Atim, st.Mtim}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", to), times, 0); err != nil {
		return fmt.Errorf("set the times: %w", err)
	}
	return nil
}

func named(dir int, name string, st *unix.Stat_t) error {
	if err := unix.Fchownat(dir, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("chown to %d:%d: %w", st.Uid, st.Gid, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		// Again: the change of owner may have taken bits away.
		if err := unix.Fchmodat(dir, name, st.Mode&0o7777, 0); err != nil {
			return fmt.Errorf("chmod: %w", err)
		}
	}
	times := []unix.Timespec{st.Atim, st.Mtim}
	return unix.UtimesNanoAt(dir, name, times, unix.AT_SYMLINK_NOFOLLOW)
}

func xattrs(from, to int) error {
	names := make([]byte, maxXattrs)
	n, err := unix.Flistxattr(from, names)
	if errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list the extended attributes: %w", err)
	}
	value := make([]byte, maxXattrs)
	for start, i := 0, 0; i < n; i++ {
		if names[i] != 0 {
			continue
		}
		name := string(names[start:i])
		start = i + 1
		size, err := unix.Fgetxattr(from, name, value)
		if err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		err = unix.Fsetxattr(to, name, value[:size], 0)
		// The host's filesystem need not know all of them; of capabilities alone a program could miss them.
		if err != nil && (name == "security.capability" || !(errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM))) {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	return nil
}

func list(dir int) ([]string, error) {
	fd, err := unix.FcntlInt(uintptr(dir), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "directory")
	defer f.Close()
	return f.Readdirnames(-1)
}

func wrap(what, name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %s: %w", what, name, err)
}
