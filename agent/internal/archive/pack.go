// Package archive makes tars of a container's files and unpacks tars among them. The files may change meanwhile, by
// whoever means harm: every step goes from a descriptor to the next, and no name is looked up twice.
package archive

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"woodlot.dev/agent/internal/fail"
	"woodlot.dev/agent/internal/inroot"
	"woodlot.dev/agent/internal/xattr"
)

const (
	bufferBytes = 256 << 10
	maxDepth    = 512
	// maxLinks bounds what is remembered of files with several names; one beyond that is copied again.
	maxLinks   = 1 << 20
	capability = "security.capability"
	paxXattr   = "SCHILY.xattr."
)

// pseudo are the filesystems whose files are the kernel's words, not data.
var pseudo = map[int64]bool{
	unix.PROC_SUPER_MAGIC: true, unix.SYSFS_MAGIC: true, unix.CGROUP2_SUPER_MAGIC: true, unix.DEVPTS_SUPER_MAGIC: true,
	unix.DEBUGFS_MAGIC: true, unix.TRACEFS_MAGIC: true, unix.SECURITYFS_MAGIC: true, unix.BPF_FS_MAGIC: true,
	mqueueMagic: true,
}

// mqueueMagic is MQUEUE_MAGIC of ipc/mqueue.c.
const mqueueMagic = 0x19800202

// file tells hard links apart from other files.
type file struct{ dev, ino uint64 }

type packer struct {
	ctx context.Context
	tar *tar.Writer
	// keeps tells which extended attributes the tar has.
	keeps func(attribute string) bool
	links map[file]string
	buf   []byte
}

func newPacker(ctx context.Context, w io.Writer, keeps func(string) bool) *packer {
	return &packer{
		ctx: ctx, tar: tar.NewWriter(w), keeps: keeps, links: make(map[file]string), buf: make([]byte, bufferBytes),
	}
}

// Pack writes a tar of what fd is, with all below it, to w: pax, sorted by name, times to the nanosecond, hard links
// among the files, file capabilities. It calls it name; "." gives nothing but what a directory holds. Sockets are left
// out, and what is in a filesystem like /proc.
func Pack(ctx context.Context, w io.Writer, fd int, name string) error {
	st, err := inroot.Stat(fd)
	if err != nil {
		return inroot.Explain(name, err)
	}
	if isPseudo(fd) && !inroot.IsDirectory(st) {
		return fail.New(fail.InvalidArgument, "a file of the kernel's, which has no content of its own; read it with exec")
	}
	if st.Mode&unix.S_IFMT == unix.S_IFSOCK {
		return fail.New(fail.InvalidArgument, "a socket, which cannot be copied")
	}
	p := newPacker(ctx, w, func(attribute string) bool { return attribute == capability })
	if err := p.tree(fd, name, st, 0); err != nil {
		return err
	}
	return p.tar.Close()
}

func isPseudo(fd int) bool {
	var st unix.Statfs_t
	return unix.Fstatfs(fd, &st) == nil && pseudo[int64(st.Type)]
}

// tree packs what fd is with all below it.
func (p *packer) tree(fd int, name string, st *unix.Stat_t, depth int) error {
	if err := p.entry(fd, name, st); err != nil || !inroot.IsDirectory(st) {
		return err
	}
	if depth == maxDepth {
		return fail.New(fail.ResourceExhausted, fmt.Sprintf("%s: more than %d directories in each other", name, maxDepth))
	}
	names, err := List(fd)
	if err != nil {
		return inroot.Explain(name, err)
	}
	for _, child := range names {
		whole := path.Join(name, child)
		if name == "." || strings.HasPrefix(name, "./") {
			whole = "./" + whole
		}
		inner, err := unix.Openat(fd, child, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.ENOENT) { // deleted meanwhile
			continue
		}
		if err != nil {
			return inroot.Explain(whole, err)
		}
		err = p.child(inner, whole, st, depth)
		_ = unix.Close(inner)
		if err != nil {
			return err
		}
	}
	return nil
}

// entry packs what fd is, of a directory nothing below it.
func (p *packer) entry(fd int, name string, st *unix.Stat_t) error {
	if err := p.ctx.Err(); err != nil {
		return err
	}
	h := &tar.Header{
		Format: tar.FormatPAX, Name: name, Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid),
		ModTime: time.Unix(st.Mtim.Unix()),
	}
	if !inroot.IsDirectory(st) && st.Nlink > 1 {
		id := file{st.Dev, st.Ino}
		if first, ok := p.links[id]; ok {
			h.Typeflag, h.Linkname = tar.TypeLink, first
			return p.header(h)
		}
		if len(p.links) < maxLinks {
			p.links[id] = name
		}
	}
	if !inroot.IsLink(st) {
		h.PAXRecords = p.attributes(fd)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		h.Typeflag, h.Name = tar.TypeDir, name+"/"
	case unix.S_IFREG:
		return p.regular(fd, h, st.Size)
	case unix.S_IFLNK:
		link, err := inroot.Readlink(fd)
		if err != nil {
			return inroot.Explain(name, err)
		}
		h.Typeflag, h.Linkname = tar.TypeSymlink, link
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	case unix.S_IFCHR, unix.S_IFBLK:
		h.Typeflag = tar.TypeChar
		if st.Mode&unix.S_IFMT == unix.S_IFBLK {
			h.Typeflag = tar.TypeBlock
		}
		h.Devmajor, h.Devminor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	default: // a socket: without the process that bound it, nothing
		return nil
	}
	return p.header(h)
}

// attributes gives the extended attributes of what fd is that are kept, as records of pax.
func (p *packer) attributes(fd int) map[string]string {
	var records map[string]string
	for name, value := range xattr.Select(inroot.Name(fd), p.keeps) {
		if strings.Contains(name, "=") { // pax has no way to write it
			continue
		}
		if records == nil {
			records = make(map[string]string)
		}
		records[paxXattr+name] = value
	}
	return records
}

func (p *packer) header(h *tar.Header) error {
	if err := p.tar.WriteHeader(h); err != nil {
		return fmt.Errorf("%s: %w", h.Name, err)
	}
	return nil
}

func (p *packer) child(fd int, name string, parent *unix.Stat_t, depth int) error {
	st, err := inroot.Stat(fd)
	if err != nil {
		return inroot.Explain(name, err)
	}
	if st.Dev != parent.Dev && isPseudo(fd) {
		if !inroot.IsDirectory(st) {
			return nil
		}
		return p.header(&tar.Header{
			Format: tar.FormatPAX, Typeflag: tar.TypeDir, Name: name + "/", Mode: int64(st.Mode & 0o7777),
			ModTime: time.Unix(st.Mtim.Unix()),
		})
	}
	return p.tree(fd, name, st, depth+1)
}

// regular writes as many bytes as the file had when it was looked at: one that grows is cut, one that shrinks is filled
// up with zeros, for a program that writes a log must not keep it from being copied.
func (p *packer) regular(fd int, h *tar.Header, size int64) error {
	opened, err := inroot.Reopen(fd, unix.O_RDONLY|unix.O_NOATIME)
	if err != nil {
		return inroot.Explain(h.Name, err)
	}
	source := os.NewFile(uintptr(opened), h.Name)
	defer source.Close()
	h.Typeflag, h.Size = tar.TypeReg, size
	if err := p.header(h); err != nil {
		return err
	}
	for size > 0 {
		if err := p.ctx.Err(); err != nil {
			return err
		}
		n, err := source.Read(p.buf[:min(size, bufferBytes)])
		if errors.Is(err, io.EOF) {
			n = int(min(size, bufferBytes))
			clear(p.buf[:n])
		} else if err != nil {
			return inroot.Explain(h.Name, err)
		}
		if _, err := p.tar.Write(p.buf[:n]); err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
		size -= int64(n)
	}
	return nil
}

// List gives the sorted names in the directory that fd is, opened or not.
func List(fd int) ([]string, error) {
	opened, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(opened), "directory")
	defer f.Close()
	names, err := f.Readdirnames(-1)
	slices.Sort(names)
	return names, err
}
