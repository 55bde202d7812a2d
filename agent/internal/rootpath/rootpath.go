// Package rootpath makes and resolves paths inside the calling process's root without ever following a magic link
// of /proc: symlinks are read as text. It is used after pivot_root, so ".." and absolute links end at the root.
package rootpath

import (
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"woodlot.dev/agent/internal/fail"
)

const maxLinks = 40

// EnsureDir makes the directory name and its missing parents (0755) and gives its path without symlinks.
func EnsureDir(name string) (string, error) {
	return resolve(name, func(p string) error { return unix.Mkdir(p, 0o755) })
}

// EnsureFile makes an empty file (0755, as mount points are in Docker) if nothing is there, with its parents.
func EnsureFile(name string) (string, error) {
	dir, base := path.Split(path.Clean("/" + name))
	parent, err := EnsureDir(dir)
	if err != nil {
		return "", err
	}
	target := path.Join(parent, base)
	for range maxLinks {
		var st unix.Stat_t
		err := unix.Lstat(target, &st)
		switch {
		case err == unix.ENOENT:
			fd, err := unix.Open(target, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o755)
			if err != nil {
				return "", fail.Wrap(fail.Internal, "create "+target, err)
			}
			return target, unix.Close(fd)
		case err != nil:
			return "", fail.Wrap(fail.InvalidArgument, "stat "+target, err)
		case st.Mode&unix.S_IFMT == unix.S_IFLNK:
			link, err := readlink(target)
			if err != nil {
				return "", err
			}
			if !path.IsAbs(link) {
				link = path.Join(path.Dir(target), link)
			}
			dir, base := path.Split(path.Clean(link))
			if parent, err = EnsureDir(dir); err != nil {
				return "", err
			}
			target = path.Join(parent, base)
		case st.Mode&unix.S_IFMT == unix.S_IFDIR:
			return "", fail.New(fail.InvalidArgument, name+" is a directory")
		default:
			return target, nil
		}
	}
	return "", fail.Wrap(fail.InvalidArgument, name, unix.ELOOP)
}

// RealDir makes the directory name if missing; a symlink or file in its place is an error.
func RealDir(name string) error {
	err := unix.Mkdir(name, 0o755)
	if err == nil {
		return nil
	}
	var st unix.Stat_t
	if lerr := unix.Lstat(name, &st); lerr != nil {
		return fail.Wrap(fail.Internal, "make directory "+name, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return fail.New(fail.InvalidArgument, "the image has something other than a directory at "+name)
	}
	return nil
}

func readlink(p string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlink(p, buf)
	if err != nil {
		return "", fail.Wrap(fail.InvalidArgument, "readlink "+p, err)
	}
	return string(buf[:n]), nil
}

func resolve(name string, missing func(string) error) (string, error) {
	cur := "/"
	rest := strings.Split(name, "/")
	links := 0
	for len(rest) > 0 {
		c := rest[0]
		rest = rest[1:]
		switch c {
		case "", ".":
			continue
		case "..":
			cur = path.Dir(cur)
			continue
		}
		next := path.Join(cur, c)
		var st unix.Stat_t
		err := unix.Lstat(next, &st)
		if err == unix.ENOENT {
			if err := missing(next); err != nil && err != unix.EEXIST {
				return "", fail.Wrap(fail.InvalidArgument, "make directory "+next, err)
			}
			err = unix.Lstat(next, &st)
		}
		if err != nil {
			return "", fail.Wrap(fail.InvalidArgument, "stat "+next, err)
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			cur = next
		case unix.S_IFLNK:
			if links++; links > maxLinks {
				return "", fail.Wrap(fail.InvalidArgument, name, unix.ELOOP)
			}
			link, err := readlink(next)
			if err != nil {
				return "", err
			}
			if path.IsAbs(link) {
				cur = "/"
			}
			rest = append(strings.Split(link, "/"), rest...)
		default:
			return "", fail.New(fail.InvalidArgument, next+" is not a directory")
		}
	}
	return cur, nil
}
