package watchfs

import (
	"bytes"
	"encoding/binary"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const direntsBytes = 16 << 10

// directory is one that is being read.
type directory struct {
	mu sync.Mutex
	fd int
	// unread are entries that the host sent already; next is the position before them.
	buf    [direntsBytes]byte
	unread []byte
	next   uint64
}

// directories are those that are open, by handle.
type directories struct {
	mu   sync.Mutex
	last uint64
	open map[uint64]*directory
}

func (d *directories) add(fd int) uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open == nil {
		d.open = make(map[uint64]*directory)
	}
	d.last++
	d.open[d.last] = &directory{fd: fd}
	return d.last
}

func (d *directories) get(fh uint64) *directory {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.open[fh]
}

func (d *directories) remove(fh uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	_ = unix.Close(d.open[fh].fd)
	delete(d.open, fh)
}

// OpenDir opens a directory to be read.
func (t *tree) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	n := t.node(in.NodeId)
	if n.ghost() {
		return fuse.Status(unix.ESTALE)
	}
	fd, err := unix.Open(procPath(n.fd), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fuse.ToStatus(err)
	}
	out.Fh = t.handles.add(fd)
	return fuse.OK
}

// ReleaseDir closes it.
func (t *tree) ReleaseDir(in *fuse.ReleaseIn) { t.handles.remove(in.Fh) }

// FsyncDir has the host's disk take what was changed in the directory.
func (t *tree) FsyncDir(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return flushed(t.handles.get(in.Fh).fd, in.FsyncFlags)
}

// ReadDir lists names.
func (t *tree) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return fuse.ToStatus(t.handles.get(in.Fh).read(in.Offset, func(e fuse.DirEntry) bool {
		return out.AddDirEntry(e)
	}))
}

// ReadDirPlus lists names with what they stand for.
func (t *tree) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	dir := t.node(in.NodeId)
	return fuse.ToStatus(t.handles.get(in.Fh).read(in.Offset, func(e fuse.DirEntry) bool {
		entry := out.AddDirLookupEntry(e)
		if entry == nil {
			return false
		}
		if e.Name != "." && e.Name != ".." {
			if !t.lookup(dir, e.Name, entry).Ok() {
				*entry = fuse.EntryOut{} // the kernel asks when it wants to know
			} else {
				out.FixMode(entry.Mode)
			}
		}
		return true
	}))
}

// read gives entries from a position on, until yield has no room for one.
func (d *directory) read(offset uint64, yield func(fuse.DirEntry) bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if offset != d.next {
		if _, err := unix.Seek(d.fd, int64(offset), unix.SEEK_SET); err != nil {
			return err
		}
		d.unread, d.next = nil, offset
	}
	for {
		if len(d.unread) == 0 {
			n, err := unix.Getdents(d.fd, d.buf[:])
			if err != nil || n == 0 {
				return err
			}
			d.unread = d.buf[:n]
		}
		entry, size := parseEntry(d.unread)
		if !yield(entry) {
			return nil
		}
		d.unread, d.next = d.unread[size:], entry.Off
	}
}

// parseEntry reads a struct linux_dirent64 (getdents64(2)).
func parseEntry(b []byte) (fuse.DirEntry, int) {
	size := int(binary.NativeEndian.Uint16(b[16:]))
	name, _, _ := bytes.Cut(b[19:size], []byte{0})
	return fuse.DirEntry{
		Ino: binary.NativeEndian.Uint64(b), Off: binary.NativeEndian.Uint64(b[8:]),
		Mode: uint32(b[18]) << 12, Name: string(name),
	}, size
}
