package watchfs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// A handle is the lower file's descriptor, and what it was opened for.
const (
	playedHandle = 1 << 62
	appendHandle = 1 << 40
)

func handle(fd int, flags uint32) uint64 {
	fh := uint64(fd)
	if flags&unix.O_APPEND != 0 {
		fh |= appendHandle
	}
	return fh
}

func descriptor(fh uint64) int { return int(fh & (appendHandle - 1)) }

func writes(flags uint32) bool { return flags&unix.O_ACCMODE != unix.O_RDONLY }

// openFlags are those for the lower file, which has no cache of its own: O_DIRECT is ours to see to.
func openFlags(flags uint32) int {
	return int(flags)&^(unix.O_DIRECT|unix.O_NOFOLLOW|unix.O_EXCL|unix.O_TRUNC) | unix.O_CLOEXEC
}

// Open opens the host's file.
func (t *tree) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if t.player.made(&in.InHeader) {
		out.Fh = playedHandle
		return fuse.OK
	}
	n := t.node(in.NodeId)
	if n.ghost() {
		return fuse.Status(unix.ESTALE)
	}
	if writes(in.Flags) {
		t.expect(n, closeEvent)
	}
	fd, err := unix.Open(procPath(n.fd), openFlags(in.Flags), 0)
	if err != nil {
		if writes(in.Flags) {
			for _, p := range t.placesOf(n) {
				t.echoes.retract(p, closeEvent)
			}
		}
		return fuse.ToStatus(err)
	}
	out.Fh = handle(fd, in.Flags)
	return fuse.OK
}

// Release closes it.
func (t *tree) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	if in.Fh != playedHandle {
		_ = unix.Close(descriptor(in.Fh))
	}
}

// Read fills buf, as far as the file goes.
func (t *tree) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	n, err := unix.Pread(descriptor(in.Fh), buf, int64(in.Offset))
	if err != nil {
		return nil, fuse.ToStatus(err)
	}
	return fuse.ReadResultData(buf[:n]), fuse.OK
}

// Write passes data on. It is at the end of a file opened with O_APPEND, wherever the kernel believes that to be; what
// was written to a mapping of such a file has a place, though.
func (t *tree) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	node := t.node(in.NodeId)
	t.expectWrite(node)
	fd := descriptor(in.Fh)
	if in.Fh&appendHandle != 0 && in.WriteFlags&fuse.WRITE_CACHE != 0 {
		var err error
		if fd, err = unix.Open(procPath(node.fd), unix.O_WRONLY|unix.O_CLOEXEC, 0); err != nil {
			return 0, fuse.ToStatus(err)
		}
		t.expect(node, closeEvent)
		defer func() { _ = unix.Close(fd) }()
	}
	n, err := unix.Pwrite(fd, data, int64(in.Offset))
	return uint32(max(n, 0)), fuse.ToStatus(err)
}

// Flush has nothing to do: what was written is on the host. The kernel does not ask again.
func (*tree) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.ENOSYS }

// Fsync has the host's disk take what was written.
func (*tree) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return flushed(descriptor(in.Fh), in.FsyncFlags)
}

func flushed(fd int, flags uint32) fuse.Status {
	const dataOnly = 1 // FUSE_FSYNC_FDATASYNC
	if flags&dataOnly != 0 {
		return fuse.ToStatus(unix.Fdatasync(fd))
	}
	return fuse.ToStatus(unix.Fsync(fd))
}

// Fallocate makes room or holes.
func (t *tree) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	t.expectWrite(t.node(in.NodeId))
	return fuse.ToStatus(unix.Fallocate(descriptor(in.Fh), in.Mode, int64(in.Offset), int64(in.Length)))
}

// Lseek finds data and holes.
func (*tree) Lseek(_ <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	offset, err := unix.Seek(descriptor(in.Fh), int64(in.Offset), int(in.Whence))
	out.Offset = uint64(max(offset, 0))
	return fuse.ToStatus(err)
}

// CopyFileRange lets the host copy.
func (t *tree) CopyFileRange(_ <-chan struct{}, in *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	t.expectWrite(t.node(in.NodeIdOut))
	from, to := int64(in.OffIn), int64(in.OffOut)
	n, err := unix.CopyFileRange(descriptor(in.FhIn), &from, descriptor(in.FhOut), &to, int(min(in.Len, 1<<30)), int(in.Flags))
	return uint32(max(n, 0)), fuse.ToStatus(err)
}
