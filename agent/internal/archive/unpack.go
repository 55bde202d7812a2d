package archive

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"woodlot.dev/agent/internal/fail"
	"woodlot.dev/agent/internal/inroot"
)

const directoryMode = 0o755

type unpacker struct {
	ctx  context.Context
	root *inroot.Root
	// dir is where names of the tar begin, absolute in root.
	dir string
	// parent is the directory that the last entry was made in, -1 before the first.
	parent     int
	parentName string
	buf        []byte
	// made are the directories made, whose times are set when nothing more comes into them.
	made []*tar.Header
}

// Unpack makes what the tar holds in the directory dir of root, with owners, modes, times, file capabilities and user
// attributes. A file takes the place of another, but not of a directory; a directory joins one that is there. What is
// mounted is written into and never replaced. Names with ".." stay within dir; symlinks lead where they lead a process
// of the container.
func Unpack(ctx context.Context, r io.Reader, root *inroot.Root, dir string) error {
	fd, err := root.Directory(dir)
	if err != nil {
		return inroot.Explain(dir, err)
	}
	_ = unix.Close(fd)
	u := &unpacker{ctx: ctx, root: root, dir: dir, parent: -1, buf: make([]byte, bufferBytes)}
	defer u.leave()
	archive := tar.NewReader(r)
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return errors.Join(u.setTimes(), u.sync())
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return explainTar(err)
		}
		if err := u.entry(h, archive); err != nil {
			return err
		}
	}
}

// explainTar tells a tar that is none from a stream that broke.
func explainTar(err error) error {
	if errors.Is(err, tar.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, tar.ErrFieldTooLong) {
		return fail.Wrap(fail.InvalidArgument, "what was sent is no whole tar archive", err)
	}
	return err
}

func (u *unpacker) leave() {
	if u.parent >= 0 {
		_ = unix.Close(u.parent)
		u.parent = -1
	}
}

func (u *unpacker) where(name string) string { return path.Join(u.dir, path.Clean("/"+name)) }

func (u *unpacker) entry(h *tar.Header, content io.Reader) error {
	name := u.where(h.Name)
	if path.Clean("/"+h.Name) == "/" {
		if h.Typeflag != tar.TypeDir {
			return fail.New(fail.InvalidArgument, fmt.Sprintf("the tar has something without a name (%q)", h.Name))
		}
		return nil // the directory itself is there
	}
	if err := u.enter(path.Dir(name)); err != nil {
		return err
	}
	base := path.Base(name)
	there, err := unix.Openat(u.parent, base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return inroot.Explain(name, u.make(h, base, content))
	}
	if err != nil {
		return inroot.Explain(name, err)
	}
	defer func() { _ = unix.Close(there) }()
	return u.replace(h, name, there, content)
}

// replace makes an entry where something is.
func (u *unpacker) replace(h *tar.Header, name string, there int, content io.Reader) error {
	st, err := inroot.Stat(there)
	if err != nil {
		return inroot.Explain(name, err)
	}
	switch isDirectory := inroot.IsDirectory(st); {
	case isDirectory && h.Typeflag == tar.TypeDir:
		return nil
	case isDirectory:
		return fail.New(fail.InvalidArgument, name+": cannot overwrite a directory with something else")
	case h.Typeflag == tar.TypeDir:
		return fail.New(fail.InvalidArgument, name+": cannot overwrite with a directory what is none")
	}
	mounted, err := isMount(there)
	if err != nil {
		return inroot.Explain(name, err)
	}
	if mounted {
		// Unlinking it from here, outside the container's mount namespace, would take the mount off.
		if h.Typeflag != tar.TypeReg || !inroot.IsRegular(st) {
			return inroot.Explain(name, unix.EBUSY)
		}
		return inroot.Explain(name, u.overwrite(h, there, content))
	}
	if err := unix.Unlinkat(u.parent, path.Base(name), 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return inroot.Explain(name, err)
	}
	return inroot.Explain(name, u.make(h, path.Base(name), content))
}

func isMount(fd int) (bool, error) {
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW, 0, &st); err != nil {
		return false, err
	}
	return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
}

// enter opens the directory that entries are made in, and makes it if the tar has no entry for it.
func (u *unpacker) enter(name string) error {
	if u.parent >= 0 && u.parentName == name {
		return nil
	}
	fd, err := u.root.Directory(name)
	if errors.Is(err, unix.ENOENT) && strings.HasPrefix(name, u.dir) && name != u.dir {
		if err := u.enter(path.Dir(name)); err != nil {
			return err
		}
		if err := unix.Mkdirat(u.parent, path.Base(name), directoryMode); err != nil && !errors.Is(err, unix.EEXIST) {
			return inroot.Explain(name, err)
		}
		fd, err = u.root.Directory(name)
	}
	if err != nil {
		return inroot.Explain(name, err)
	}
	u.leave()
	u.parent, u.parentName = fd, name
	return nil
}

// make makes an entry where nothing is.
func (u *unpacker) make(h *tar.Header, base string, content io.Reader) error {
	mode := uint32(h.Mode) & 0o7777
	switch h.Typeflag {
	case tar.TypeReg:
		return u.regular(h, base, content)
	case tar.TypeDir:
		if err := unix.Mkdirat(u.parent, base, 0o700); err != nil {
			return err
		}
		u.made = append(u.made, h)
		return u.attributes(h, base, unix.S_IFDIR)
	case tar.TypeSymlink:
		if err := unix.Symlinkat(h.Linkname, u.parent, base); err != nil {
			return err
		}
		return u.attributes(h, base, unix.S_IFLNK)
	case tar.TypeLink:
		first, err := u.root.Find(u.where(h.Linkname))
		if err != nil {
			return fmt.Errorf("link to %s: %w", h.Linkname, err)
		}
		defer func() { _ = unix.Close(first) }()
		return unix.Linkat(first, "", u.parent, base, unix.AT_EMPTY_PATH)
	case tar.TypeFifo:
		mode |= unix.S_IFIFO
	case tar.TypeChar:
		mode |= unix.S_IFCHR
	case tar.TypeBlock:
		mode |= unix.S_IFBLK
	default:
		return fail.New(fail.InvalidArgument, fmt.Sprintf("the tar has an entry of the unknown type %q", h.Typeflag))
	}
	device := unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))
	if err := unix.Mknodat(u.parent, base, mode&^0o7777|0o600, int(device)); err != nil {
		return err
	}
	return u.attributes(h, base, mode&unix.S_IFMT)
}

func (u *unpacker) regular(h *tar.Header, base string, content io.Reader) error {
	const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(u.parent, base, flags, 0o600)
	if err != nil {
		return err
	}
	return u.fill(h, fd, content)
}

// overwrite writes into the mounted file that the unopened descriptor is.
func (u *unpacker) overwrite(h *tar.Header, there int, content io.Reader) error {
	fd, err := inroot.Reopen(there, unix.O_WRONLY|unix.O_TRUNC)
	if err != nil {
		return err
	}
	return u.fill(h, fd, content)
}

// fill writes the content into the open file and closes it.
func (u *unpacker) fill(h *tar.Header, fd int, content io.Reader) error {
	f := os.NewFile(uintptr(fd), h.Name)
	defer f.Close()
	if _, err := io.CopyBuffer(struct{ io.Writer }{f}, content, u.buf); err != nil {
		return explainTar(err)
	}
	if err := u.apply(h, fd); err != nil {
		return err
	}
	return f.Close()
}

// attributes gives what was just made its owner, mode, attributes and times, unless another kind of thing has taken
// its place.
func (u *unpacker) attributes(h *tar.Header, base string, kind uint32) error {
	fd, err := unix.Openat(u.parent, base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	st, err := inroot.Stat(fd)
	if err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != kind {
		return fail.New(fail.FailedPrecondition, "was replaced while it was made")
	}
	return u.apply(h, fd)
}

// apply sets the mode after the owner, whose change takes setuid away.
func (u *unpacker) apply(h *tar.Header, fd int) error {
	if err := unix.Fchownat(fd, "", h.Uid, h.Gid, unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("give it to %d:%d: %w", h.Uid, h.Gid, err)
	}
	times := []unix.Timespec{unix.NsecToTimespec(h.ModTime.UnixNano()), unix.NsecToTimespec(h.ModTime.UnixNano())}
	if h.Typeflag == tar.TypeSymlink {
		return unix.UtimesNanoAt(u.parent, path.Base(h.Name), times, unix.AT_SYMLINK_NOFOLLOW)
	}
	name := inroot.Name(fd)
	if err := unix.Chmod(name, uint32(h.Mode)&0o7777); err != nil {
		return fmt.Errorf("chmod: %w", err)
	}
	for key, value := range h.PAXRecords {
		attribute, ok := strings.CutPrefix(key, paxXattr)
		if !ok || attribute != capability && !strings.HasPrefix(attribute, "user.") {
			continue
		}
		// Not every filesystem knows them; of capabilities a program could miss one.
		err := unix.Setxattr(name, attribute, []byte(value), 0)
		if err != nil && (attribute == capability || !errors.Is(err, unix.ENOTSUP)) {
			return fmt.Errorf("set %s: %w", attribute, err)
		}
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, name, times, 0)
}

// sync waits until all is on the disk: that the host has no room for it is known only then.
func (u *unpacker) sync() error {
	fd, err := u.root.Directory(u.dir)
	if err != nil {
		return inroot.Explain(u.dir, err)
	}
	defer func() { _ = unix.Close(fd) }()
	opened, err := inroot.Reopen(fd, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return inroot.Explain(u.dir, err)
	}
	defer func() { _ = unix.Close(opened) }()
	return inroot.Explain(u.dir, unix.Syncfs(opened))
}

// setTimes sets those of directories, the inner ones first.
func (u *unpacker) setTimes() error {
	for i := len(u.made) - 1; i >= 0; i-- {
		h := u.made[i]
		fd, err := u.root.Directory(u.where(h.Name))
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) { // gone already
			continue
		}
		if err != nil {
			return inroot.Explain(h.Name, err)
		}
		moment := unix.NsecToTimespec(h.ModTime.UnixNano())
		err = unix.UtimesNanoAt(unix.AT_FDCWD, inroot.Name(fd), []unix.Timespec{moment, moment}, 0)
		_ = unix.Close(fd)
		if err != nil {
			return inroot.Explain(h.Name, err)
		}
	}
	return nil
}
