// Package watchfs is a filesystem stacked on a virtio-fs mount, so that what the host changes can be heard of: it passes
// every request on, but for those that it makes itself, through its own mount, to have the kernel raise an event for a
// change that has happened already. See docs/design/files.md.
package watchfs

import (
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// validity is how long the kernel may believe what it was told; what changes on the host is told at once.
const validity = time.Second

// identity is what makes a file of the lower filesystem the same file.
type identity struct{ dev, ino uint64 }

// place is a name in a directory.
type place struct {
	dir  *node
	name string
}

// node is a file that the kernel knows, or one that is or was on the host in the time between two events: a ghost.
type node struct {
	id uint64
	// fd is an O_PATH descriptor of the lower file, -1 for a ghost.
	fd   int
	key  identity
	kind uint32 // of unix.S_IFMT

	// Of tree.mu.

	// lookups is how often the kernel was told of it, and uses of our own.
	lookups uint64
	// children and places are what the kernel believes, which is what its events are about.
	children map[string]*node
	places   []place

	// plain is until when the file is known to have no capabilities, which the kernel asks for at each write.
	plain atomic.Int64
}

func (n *node) ghost() bool { return n.fd < 0 }

func (n *node) isDir() bool { return n.kind == unix.S_IFDIR }

// tree is the filesystem.
type tree struct {
	fuse.RawFileSystem

	root    *node
	echoes  echoes
	player  player
	handles directories

	mu    sync.Mutex
	next  uint64
	nodes map[uint64]*node
	known map[identity]*node
}

// newTree gives the filesystem above the directory fd, an O_PATH descriptor that it takes over.
func newTree(fd int) (*tree, error) {
	st, err := status(fd, 0)
	if err != nil {
		return nil, err
	}
	key := identityOf(st)
	root := &node{id: fuse.FUSE_ROOT_ID, fd: fd, key: key, kind: unix.S_IFDIR, lookups: 1}
	t := &tree{
		RawFileSystem: fuse.NewDefaultRawFileSystem(), root: root, next: fuse.FUSE_ROOT_ID + 1,
		nodes: map[uint64]*node{root.id: root}, known: map[identity]*node{key: root},
	}
	t.player.tree = t
	return t, nil
}

// String names the filesystem; fuse.RawFileSystem wants it.
func (*tree) String() string { return "watchfs" }

// node gives the one of an id that the kernel has.
func (t *tree) node(id uint64) *node {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.nodes[id]
}

// open finds what has a name on the host: an O_PATH descriptor and its attributes.
func open(dir *node, name string) (int, *unix.Statx_t, error) {
	if dir.ghost() {
		return -1, nil, unix.ESTALE
	}
	fd, err := unix.Openat(dir.fd, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, nil, err
	}
	// The lookup has just brought them.
	st, err := status(fd, unix.AT_STATX_DONT_SYNC)
	if err != nil {
		_ = unix.Close(fd)
		return -1, nil, err
	}
	return fd, st, nil
}

// adopt gives the node of a file, one more use of it, and takes fd over. With a directory, that is where it is.
func (t *tree) adopt(dir *node, name string, fd int, st *unix.Statx_t) *node {
	key := identityOf(st)
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.known[key]
	if n == nil {
		n = &node{id: t.next, fd: fd, key: key, kind: uint32(st.Mode) & unix.S_IFMT}
		t.next++
		t.nodes[n.id], t.known[key] = n, n
	} else {
		_ = unix.Close(fd)
	}
	n.lookups++
	if dir != nil {
		t.attach(dir, name, n)
	}
	return n
}

// newGhost gives a node without a file, and one use of it.
func (t *tree) newGhost(kind uint32) *node {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := &node{id: t.next, fd: -1, kind: kind, lookups: 1}
	t.next++
	t.nodes[n.id] = n
	return n
}

// attach notes that the kernel believes n to be there; the lock is held.
func (t *tree) attach(dir *node, name string, n *node) {
	if dir.children[name] == n {
		return
	}
	t.detach(dir, name)
	if dir.children == nil {
		dir.children = make(map[string]*node)
	}
	dir.children[name] = n
	n.places = append(n.places, place{dir, name})
}

// detach notes that the kernel believes nothing to be there any more; the lock is held.
func (t *tree) detach(dir *node, name string) {
	n := dir.children[name]
	if n == nil {
		return
	}
	delete(dir.children, name)
	for i, p := range n.places {
		if p.dir == dir && p.name == name {
			n.places = append(n.places[:i], n.places[i+1:]...)
			break
		}
	}
}

// lost is detach for what turned out to be gone.
func (t *tree) lost(dir *node, name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.detach(dir, name)
}

// moved notes a rename.
func (t *tree) moved(from, to place, exchange bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	a, b := from.dir.children[from.name], to.dir.children[to.name]
	t.detach(from.dir, from.name)
	t.detach(to.dir, to.name)
	if a != nil {
		t.attach(to.dir, to.name, a)
	}
	if exchange && b != nil {
		t.attach(from.dir, from.name, b)
	}
}

// placesOf gives where the kernel believes n to be.
func (t *tree) placesOf(n *node) []place {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]place(nil), n.places...)
}

// Forget takes back uses of a node; with the last one its descriptor is closed.
func (t *tree) Forget(id, count uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := t.nodes[id]; n != nil && n != t.root {
		t.drop(n, count)
	}
}

// drop is Forget with the lock held.
func (t *tree) drop(n *node, count uint64) {
	n.lookups -= min(count, n.lookups)
	if n.lookups > 0 || n == t.root {
		return
	}
	delete(t.nodes, n.id)
	for len(n.places) > 0 {
		t.detach(n.places[0].dir, n.places[0].name)
	}
	for name := range n.children {
		t.detach(n, name)
	}
	if !n.ghost() {
		delete(t.known, n.key)
		_ = unix.Close(n.fd)
	}
}

// status asks for attributes; flags say whether the host is asked.
func status(fd, flags int) (*unix.Statx_t, error) {
	st := new(unix.Statx_t)
	err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|flags, unix.STATX_BASIC_STATS, st)
	return st, err
}

func identityOf(st *unix.Statx_t) identity {
	return identity{unix.Mkdev(st.Dev_major, st.Dev_minor), st.Ino}
}

// attributes gives those of a node as FUSE has them.
func (t *tree) attributes(n *node, flags int) (fuse.Attr, error) {
	if n.ghost() {
		return fuse.Attr{Ino: 1<<63 | n.id, Mode: n.kind | 0o755, Nlink: 1, Blksize: 4096}, nil
	}
	st, err := status(n.fd, flags)
	if err != nil {
		return fuse.Attr{}, err
	}
	return t.convert(st), nil
}

func (t *tree) convert(st *unix.Statx_t) fuse.Attr {
	return fuse.Attr{
		Ino: t.number(identityOf(st)), Size: st.Size, Blocks: st.Blocks, Blksize: st.Blksize,
		Atime: uint64(st.Atime.Sec), Atimensec: st.Atime.Nsec,
		Mtime: uint64(st.Mtime.Sec), Mtimensec: st.Mtime.Nsec,
		Ctime: uint64(st.Ctime.Sec), Ctimensec: st.Ctime.Nsec,
		Mode: uint32(st.Mode), Nlink: st.Nlink, Owner: fuse.Owner{Uid: st.Uid, Gid: st.Gid},
		Rdev: uint32(unix.Mkdev(st.Rdev_major, st.Rdev_minor)),
	}
}

// number is the host's inode number; one of a filesystem that is mounted below ours is made different.
func (t *tree) number(key identity) uint64 {
	if key.dev == t.root.key.dev {
		return key.ino
	}
	return key.ino ^ bits.RotateLeft64(key.dev, 40)
}

func (t *tree) fill(out *fuse.EntryOut, n *node, attr fuse.Attr, valid time.Duration) {
	out.NodeId, out.Generation, out.Attr = n.id, 1, attr
	out.SetEntryTimeout(valid)
	out.SetAttrTimeout(valid)
}
