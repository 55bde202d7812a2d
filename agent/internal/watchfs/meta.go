package watchfs

import (
	"fmt"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const capabilities = "security.capability"

// procPath names the file of an O_PATH descriptor for calls that take no such descriptor.
func procPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// Lookup finds a name.
func (t *tree) Lookup(_ <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	dir := t.node(in.NodeId)
	if t.player.made(in) {
		return t.player.lookup(dir, name, out)
	}
	return t.lookup(dir, name, out)
}

func (t *tree) lookup(dir *node, name string, out *fuse.EntryOut) fuse.Status {
	fd, st, err := open(dir, name)
	if err != nil {
		if err == unix.ENOENT {
			t.lost(dir, name)
		}
		return fuse.ToStatus(err)
	}
	t.fill(out, t.adopt(dir, name, fd, st), t.convert(st), validity)
	return fuse.OK
}

// GetAttr asks the host.
func (t *tree) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	return t.getattr(t.node(in.NodeId), out)
}

func (t *tree) getattr(n *node, out *fuse.AttrOut) (code fuse.Status) {
	attr, err := t.attributes(n, 0)
	if err != nil {
		return fuse.ToStatus(err)
	}
	out.Attr = attr
	if !n.ghost() {
		out.SetTimeout(validity)
	}
	return fuse.OK
}

// SetAttr changes mode, owner, size and times, in this order.
func (t *tree) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	n := t.node(in.NodeId)
	if t.player.made(&in.InHeader) {
		return t.getattr(n, out)
	}
	if n.ghost() {
		return fuse.Status(unix.ESTALE)
	}
	if err := t.setattr(n, in); err != nil {
		return fuse.ToStatus(err)
	}
	return t.getattr(n, out)
}

func (t *tree) setattr(n *node, in *fuse.SetAttrIn) error {
	if mode, ok := in.GetMode(); ok {
		t.expect(n, attribEvent)
		if err := unix.Chmod(procPath(n.fd), mode); err != nil {
			return err
		}
	}
	uid, withUID := in.GetUID()
	gid, withGID := in.GetGID()
	if withUID || withGID {
		owner, group := -1, -1
		if withUID {
			owner = int(uid)
		}
		if withGID {
			group = int(gid)
		}
		t.expect(n, attribEvent)
		if err := unix.Fchownat(n.fd, "", owner, group, unix.AT_EMPTY_PATH); err != nil {
			return err
		}
	}
	if size, ok := in.GetSize(); ok {
		t.expectWrite(n)
		if fh, ok := in.GetFh(); ok && fh != playedHandle {
			if err := unix.Ftruncate(descriptor(fh), int64(size)); err != nil {
				return err
			}
		} else {
			// virtiofsd opens and closes the file for it.
			t.expect(n, closeEvent)
			if err := unix.Truncate(procPath(n.fd), int64(size)); err != nil {
				return err
			}
		}
	}
	if in.Valid&(fuse.FATTR_ATIME|fuse.FATTR_MTIME) == 0 {
		return nil
	}
	times := []unix.Timespec{
		timespec(in.Valid, fuse.FATTR_ATIME, fuse.FATTR_ATIME_NOW, in.Atime, in.Atimensec),
		timespec(in.Valid, fuse.FATTR_MTIME, fuse.FATTR_MTIME_NOW, in.Mtime, in.Mtimensec),
	}
	if in.Valid&fuse.FATTR_ATIME == 0 {
		t.expectWrite(n) // as fsnotify_change has it: a new mtime alone is a change of the content
	} else {
		t.expect(n, attribEvent)
	}
	return unix.UtimesNanoAt(n.fd, "", times, unix.AT_EMPTY_PATH)
}

func timespec(valid, given, now uint32, seconds uint64, nanos uint32) unix.Timespec {
	switch {
	case valid&given == 0:
		return unix.Timespec{Nsec: unix.UTIME_OMIT}
	case valid&now != 0:
		return unix.Timespec{Nsec: unix.UTIME_NOW}
	}
	return unix.Timespec{Sec: int64(seconds), Nsec: int64(nanos)}
}

// Readlink gives where a symlink leads.
func (t *tree) Readlink(_ <-chan struct{}, in *fuse.InHeader) ([]byte, fuse.Status) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(t.node(in.NodeId).fd, "", buf)
	if err != nil {
		return nil, fuse.ToStatus(err)
	}
	return buf[:n], fuse.OK
}

// GetXAttr reads an extended attribute.
func (t *tree) GetXAttr(_ <-chan struct{}, in *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	n := t.node(in.NodeId)
	now := time.Now().UnixNano()
	if name == capabilities && n.plain.Load() > now {
		return 0, fuse.ENODATA
	}
	size, err := unix.Getxattr(procPath(n.fd), name, dest)
	if name == capabilities && err == unix.ENODATA {
		n.plain.Store(now + int64(validity))
	}
	return uint32(max(size, 0)), fuse.ToStatus(err)
}

// ListXAttr lists the names of the extended attributes.
func (t *tree) ListXAttr(_ <-chan struct{}, in *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	size, err := unix.Listxattr(procPath(t.node(in.NodeId).fd), dest)
	return uint32(max(size, 0)), fuse.ToStatus(err)
}

// SetXAttr sets an extended attribute.
func (t *tree) SetXAttr(_ <-chan struct{}, in *fuse.SetXAttrIn, name string, data []byte) fuse.Status {
	n := t.node(in.NodeId)
	n.plain.Store(0)
	t.expect(n, attribEvent)
	return fuse.ToStatus(unix.Setxattr(procPath(n.fd), name, data, int(in.Flags)))
}

// RemoveXAttr removes an extended attribute.
func (t *tree) RemoveXAttr(_ <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	n := t.node(in.NodeId)
	t.expect(n, attribEvent)
	return fuse.ToStatus(unix.Removexattr(procPath(n.fd), name))
}

// StatFs tells of the host's filesystem.
func (t *tree) StatFs(_ <-chan struct{}, in *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	var st unix.Statfs_t
	if err := unix.Fstatfs(t.node(in.NodeId).fd, &st); err != nil {
		return fuse.ToStatus(err)
	}
	out.Blocks, out.Bfree, out.Bavail = st.Blocks, st.Bfree, st.Bavail
	out.Files, out.Ffree = st.Files, st.Ffree
	out.Bsize, out.Frsize, out.NameLen = uint32(st.Bsize), uint32(st.Frsize), uint32(st.Namelen)
	return fuse.OK
}
