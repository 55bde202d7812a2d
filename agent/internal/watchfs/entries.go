package watchfs

import (
	"runtime"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const secbitNoSetuidFixup = 1 << 2 // linux/securebits.h

// asCaller makes what f creates the caller's. Nothing else changes: whether the caller may, the kernel has looked at
// already (default_permissions), and the thread keeps its capabilities.
func asCaller(owner fuse.Owner, f func() error) error {
	if owner.Uid == 0 && owner.Gid == 0 {
		return f()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_SECUREBITS, secbitNoSetuidFixup, 0, 0, 0); err != nil {
		return err
	}
	_, _ = unix.SetfsgidRetGid(int(owner.Gid))
	_, _ = unix.SetfsuidRetUid(int(owner.Uid))
	defer func() {
		_, _ = unix.SetfsuidRetUid(0)
		_, _ = unix.SetfsgidRetGid(0)
	}()
	return f()
}

// make creates something with a name, and answers with it.
func (t *tree) make(in *fuse.InHeader, name string, out *fuse.EntryOut, kind uint32, create func(dir int) error) fuse.Status {
	dir := t.node(in.NodeId)
	if t.player.made(in) {
		return t.player.create(dir, name, kind, out)
	}
	if dir.ghost() {
		return fuse.Status(unix.ESTALE)
	}
	at := place{dir, name}
	t.echoes.expect(at, createEvent)
	if err := asCaller(in.Owner, func() error { return create(dir.fd) }); err != nil {
		t.echoes.retract(at, createEvent)
		return fuse.ToStatus(err)
	}
	return t.lookup(dir, name, out)
}

// Mknod makes a file that is no directory and no symlink.
func (t *tree) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	return t.make(&in.InHeader, name, out, in.Mode&unix.S_IFMT, func(dir int) error {
		return unix.Mknodat(dir, name, in.Mode, int(in.Rdev))
	})
}

// Mkdir makes a directory.
func (t *tree) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	return t.make(&in.InHeader, name, out, unix.S_IFDIR, func(dir int) error {
		return unix.Mkdirat(dir, name, in.Mode)
	})
}

// Symlink makes a symlink.
func (t *tree) Symlink(_ <-chan struct{}, in *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	return t.make(in, name, out, unix.S_IFLNK, func(dir int) error {
		return unix.Symlinkat(target, dir, name)
	})
}

// Link gives a file one more name.
func (t *tree) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	n := t.node(in.Oldnodeid)
	if n.ghost() {
		return fuse.Status(unix.ESTALE)
	}
	return t.make(&in.InHeader, name, out, n.kind, func(dir int) error {
		return unix.Linkat(unix.AT_FDCWD, procPath(n.fd), dir, name, unix.AT_SYMLINK_FOLLOW)
	})
}

// Create makes a regular file and opens it.
func (t *tree) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	dir := t.node(in.NodeId)
	if dir.ghost() {
		return fuse.Status(unix.ESTALE)
	}
	at := place{dir, name}
	t.echoes.expect(at, createEvent)
	if writes(in.Flags) {
		t.echoes.expect(at, closeEvent)
	}
	fd := -1
	err := asCaller(in.Owner, func() (err error) {
		fd, err = unix.Openat(dir.fd, name, openFlags(in.Flags)|unix.O_CREAT|unix.O_NOFOLLOW, in.Mode)
		return err
	})
	if err != nil {
		t.echoes.retract(at, createEvent)
		if writes(in.Flags) {
			t.echoes.retract(at, closeEvent)
		}
		return fuse.ToStatus(err)
	}
	path, err := unix.Open(procPath(fd), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		_ = unix.Close(fd)
		return fuse.ToStatus(err)
	}
	st, err := status(fd, unix.AT_STATX_DONT_SYNC)
	if err != nil {
		_ = unix.Close(fd)
		_ = unix.Close(path)
		return fuse.ToStatus(err)
	}
	t.fill(&out.EntryOut, t.adopt(dir, name, path, st), t.convert(st), validity)
	out.Fh = handle(fd, in.Flags)
	return fuse.OK
}

// Unlink removes a name of what is no directory.
func (t *tree) Unlink(_ <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	return t.remove(in, name, 0)
}

// Rmdir removes a directory.
func (t *tree) Rmdir(_ <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	return t.remove(in, name, unix.AT_REMOVEDIR)
}

func (t *tree) remove(in *fuse.InHeader, name string, flags int) fuse.Status {
	dir := t.node(in.NodeId)
	if !t.player.made(in) {
		if dir.ghost() {
			return fuse.Status(unix.ESTALE)
		}
		at := place{dir, name}
		t.echoes.expect(at, deleteEvent)
		if err := unix.Unlinkat(dir.fd, name, flags); err != nil {
			t.echoes.retract(at, deleteEvent)
			return fuse.ToStatus(err)
		}
	}
	t.lost(dir, name)
	return fuse.OK
}

// Rename moves, replaces or exchanges.
func (t *tree) Rename(_ <-chan struct{}, in *fuse.RenameIn, oldName, newName string) fuse.Status {
	from, to := place{t.node(in.NodeId), oldName}, place{t.node(in.Newdir), newName}
	exchange := in.Flags&unix.RENAME_EXCHANGE != 0
	if !t.player.made(&in.InHeader) {
		if from.dir.ghost() || to.dir.ghost() {
			return fuse.Status(unix.ESTALE)
		}
		expected := []place{from}
		if exchange {
			expected = append(expected, to)
		}
		for _, p := range expected {
			t.echoes.expect(p, moveEvent)
		}
		if err := unix.Renameat2(from.dir.fd, oldName, to.dir.fd, newName, uint(in.Flags)); err != nil {
			for _, p := range expected {
				t.echoes.retract(p, moveEvent)
			}
			return fuse.ToStatus(err)
		}
	}
	t.moved(from, to, exchange)
	return fuse.OK
}
