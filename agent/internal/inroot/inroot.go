// Package inroot finds files below a directory as a process would whose root it is. Whoever writes there is hostile: no
// symlink leads out of it, however the files change meanwhile, and nothing but directories and regular files is opened.
package inroot

import (
	"errors"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"woodlot.dev/agent/internal/fail"
)

const (
	maxLinks = 40
	// openat2 gives up when something is renamed while it looks at a "..".
	maxTries = 100
)

// Root is a directory that paths end in.
type Root struct{ fd int }

// New takes over fd, a directory.
func New(fd int) *Root { return &Root{fd: fd} }

// Close closes the directory.
func (r *Root) Close() { _ = unix.Close(r.fd) }

// Find gives what name is, unopened (O_PATH): a symlink itself, if the name's last part is one. The caller closes it.
func (r *Root) Find(name string) (int, error) {
	return r.open(name, unix.O_PATH|unix.O_NOFOLLOW)
}

// Directory gives the directory name, unopened (O_PATH), also through a symlink. The caller closes it.
func (r *Root) Directory(name string) (int, error) {
	return r.open(name, unix.O_PATH|unix.O_DIRECTORY)
}

func (r *Root) open(name string, flags uint64) (int, error) {
	for try := 1; ; try++ {
		fd, err := unix.Openat2(r.fd, path.Clean("/"+name), &unix.OpenHow{
			Flags:   flags | unix.O_CLOEXEC,
			Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
		})
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) || try == maxTries {
			return fd, err
		}
	}
}

// Resolve gives name without symlinks, and what is there; nil if only the last part is missing. The last part is
// followed if it is to be, or if it ends in a slash.
func (r *Root) Resolve(name string, follow bool) (string, *unix.Stat_t, error) {
	whole, directory := name, strings.HasSuffix(name, "/")
	cur, rest := "/", split(name)
	st, err := r.stat(cur)
	for links := 0; err == nil && len(rest) > 0; {
		part := rest[0]
		rest = rest[1:]
		if part == ".." {
			cur = path.Dir(cur)
			st, err = r.stat(cur)
			continue
		}
		next := path.Join(cur, part)
		st, err = r.stat(next)
		switch {
		case errors.Is(err, unix.ENOENT) && len(rest) == 0:
			return next, nil, nil
		case err != nil:
		case IsLink(st) && (len(rest) > 0 || follow || directory):
			if links++; links > maxLinks {
				return "", nil, Explain(whole, unix.ELOOP)
			}
			var link string
			if link, err = r.readlink(next); err != nil {
				break
			}
			if path.IsAbs(link) {
				cur = "/"
			}
			rest = append(split(link), rest...)
			st, err = r.stat(cur)
		case len(rest) > 0 && !IsDirectory(st):
			err = unix.ENOTDIR
		default:
			cur = next
		}
	}
	if err != nil {
		return "", nil, Explain(whole, err)
	}
	return cur, st, nil
}

func split(name string) []string {
	return strings.FieldsFunc(strings.ReplaceAll("/"+name+"/", "/./", "/"), func(c rune) bool { return c == '/' })
}

func (r *Root) stat(name string) (*unix.Stat_t, error) {
	fd, err := r.Find(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(fd) }()
	return Stat(fd)
}

func (r *Root) readlink(name string) (string, error) {
	fd, err := r.Find(name)
	if err != nil {
		return "", err
	}
	defer func() { _ = unix.Close(fd) }()
	return Readlink(fd)
}

// Stat is fstat(2).
func Stat(fd int) (*unix.Stat_t, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	return &st, nil
}

// Readlink reads the symlink that fd is.
func Readlink(fd int) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// IsDirectory tells whether it is one.
func IsDirectory(st *unix.Stat_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFDIR }

// IsRegular tells whether it is a file with content.
func IsRegular(st *unix.Stat_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFREG }

// IsLink tells whether it is a symlink.
func IsLink(st *unix.Stat_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFLNK }

// Name is a path by which calls that take no descriptor get at an unopened file, whatever has become of its name.
func Name(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// Reopen opens what an unopened descriptor is, which must be a directory or a regular file: opening anything else can
// wait for ever, or do something.
func Reopen(fd int, flags int) (int, error) {
	st, err := Stat(fd)
	if err != nil {
		return -1, err
	}
	if !IsRegular(st) && !IsDirectory(st) {
		return -1, unix.EINVAL
	}
	return unix.Open(Name(fd), flags|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
}

// Explain gives an error about a path the kind that its cause has.
func Explain(name string, err error) error {
	kind := fail.KindOf(err)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOENT):
		kind = fail.NotFound
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENAMETOOLONG):
		kind = fail.InvalidArgument
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		kind = fail.ResourceExhausted
	case errors.Is(err, unix.EROFS), errors.Is(err, unix.EBUSY), errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		kind = fail.FailedPrecondition
	}
	return fail.Wrap(kind, name, err)
}
