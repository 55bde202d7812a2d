// Command lister describes a file tree, one JSON object on a line for each file, to compare what different systems
// make of an image. Mounts below the root are left out. It is a program of its own, without libc, so that it runs in
// any image.
package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/crc64"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"unsafe"
)

type entry struct {
	Path string `json:"path"`
	Mode string `json:"mode"`
	UID  uint32 `json:"uid"`
	GID  uint32 `json:"gid"`
	// LinkOf is the first path of the same file.
	LinkOf string            `json:"link_of,omitempty"`
	Size   int64             `json:"size,omitempty"`
	MTime  string            `json:"mtime,omitempty"`
	Device uint64            `json:"device,omitempty"`
	Target string            `json:"target,omitempty"`
	CRC64  string            `json:"crc64,omitempty"`
	Xattrs map[string]string `json:"xattrs,omitempty"`
}

// contents says whether what is in files is told, too: reading all of a large tree takes an emulated guest minutes.
var contents bool

func main() {
	root := "/"
	if len(os.Args) > 1 {
		root = os.Args[1]
	}
	contents = len(os.Args) < 3 || os.Args[2] != "attributes"
	if err := list(root, json.NewEncoder(os.Stdout)); err != nil {
		fmt.Fprintln(os.Stderr, "lister:", err)
		os.Exit(1)
	}
}

func list(root string, out *json.Encoder) error {
	top, err := stat(root)
	if err != nil {
		return err
	}
	type inode struct{ dev, ino uint64 }
	first := map[inode]string{}
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := stat(path)
		if err != nil {
			return err
		}
		if d.IsDir() && st.Dev != top.Dev {
			return filepath.SkipDir
		}
		e, err := describe(path, st)
		if err != nil {
			return err
		}
		e.Path = "/" + strings.TrimLeft(strings.TrimPrefix(path, root), "/")
		if id := (inode{uint64(st.Dev), st.Ino}); st.Nlink > 1 && !d.IsDir() {
			if e.LinkOf = first[id]; e.LinkOf == "" {
				first[id] = e.Path
			}
		}
		return out.Encode(e)
	})
}

func stat(path string) (*syscall.Stat_t, error) {
	var st syscall.Stat_t
	if err := syscall.Lstat(path, &st); err != nil {
		return nil, fmt.Errorf("%q: %w", path, err)
	}
	return &st, nil
}

func describe(path string, st *syscall.Stat_t) (*entry, error) {
	e := &entry{Mode: fmt.Sprintf("%06o", st.Mode), UID: st.Uid, GID: st.Gid}
	var err error
	if e.Xattrs, err = xattrs(path); err != nil {
		return nil, fmt.Errorf("%q: extended attributes: %w", path, err)
	}
	kind := st.Mode & syscall.S_IFMT
	if kind == syscall.S_IFDIR {
		// Size and times of a directory are the filesystem's own business.
		return e, nil
	}
	e.Size = st.Size
	e.MTime = fmt.Sprintf("%d.%09d", st.Mtim.Sec, st.Mtim.Nsec)
	switch kind {
	case syscall.S_IFLNK:
		e.Target, err = os.Readlink(path)
	case syscall.S_IFREG:
		if !contents {
			break
		}
		e.CRC64, err = hash(path)
	case syscall.S_IFBLK, syscall.S_IFCHR:
		e.Device = uint64(st.Rdev)
	}
	return e, err
}

// hash is a cheap one: there is nobody to forge it, and an emulated processor takes minutes for a cryptographic one.
func hash(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	h := crc64.New(crc64.MakeTable(crc64.ECMA))
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// xattrs are those of the file itself, not of what a symbolic link points to.
func xattrs(path string) (map[string]string, error) {
	p, err := syscall.BytePtrFromString(path)
	if err != nil {
		return nil, err
	}
	buffer := make([]byte, 1<<16)
	n, _, errno := syscall.Syscall(syscall.SYS_LLISTXATTR, uintptr(unsafe.Pointer(p)),
		uintptr(unsafe.Pointer(&buffer[0])), uintptr(len(buffer)))
	if errno == syscall.ENOTSUP || errno == 0 && n == 0 {
		return nil, nil
	} else if errno != 0 {
		return nil, errno
	}
	names := strings.Split(string(bytes.TrimRight(buffer[:n], "\x00")), "\x00")
	sort.Strings(names)
	found := map[string]string{}
	for _, name := range names {
		q, err := syscall.BytePtrFromString(name)
		if err != nil {
			return nil, err
		}
		n, _, errno := syscall.Syscall6(syscall.SYS_LGETXATTR, uintptr(unsafe.Pointer(p)), uintptr(unsafe.Pointer(q)),
			uintptr(unsafe.Pointer(&buffer[0])), uintptr(len(buffer)), 0, 0)
		if errno != 0 {
			return nil, fmt.Errorf("%s: %w", name, errno)
		}
		found[name] = hex.EncodeToString(buffer[:n])
	}
	return found, nil
}
