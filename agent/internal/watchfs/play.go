package watchfs

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"woodlot.dev/agent/internal/change"
)

// limboName is a directory that only the player finds: what moves out of the tree moves there.
const limboName = ".woodlot-limbo"

// player raises events: it makes the system calls that would cause them, through the mount. Its requests come back to
// the tree, which knows them by their thread and answers that all went well. What it looks up is what the kernel
// believes, which for events is what counts; nobody can watch what the kernel does not know.
type player struct {
	tree   *tree
	notify interface {
		EntryNotify(parent uint64, name string) fuse.Status
		InodeNotify(node uint64, off, length int64) fuse.Status
	}
	thread atomic.Uint32

	// Of its own goroutine.
	limbo           *node
	rootFD, limboFD int
	count           int
	dirs            map[*node]int

	// answers, of tree.mu, overrule what is believed while a call is under way; nil is for nothing.
	answers map[place]*node
}

// made tells whether a request is the player's.
func (p *player) made(in *fuse.InHeader) bool { return in.Pid != 0 && in.Pid == p.thread.Load() }

// start enters the mount; it keeps the calling goroutine on its thread.
func (p *player) start(mount string) (err error) {
	runtime.LockOSThread()
	p.thread.Store(uint32(unix.Gettid()))
	p.limbo = p.tree.newGhost(unix.S_IFDIR)
	p.answer(map[place]*node{{p.tree.root, limboName}: p.limbo})
	const flags = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	if p.rootFD, err = unix.Open(mount, flags, 0); err != nil {
		return fmt.Errorf("open %s: %w", mount, err)
	}
	if p.limboFD, err = unix.Openat(p.rootFD, limboName, flags, 0); err != nil {
		return fmt.Errorf("enter %s: %w", mount, err)
	}
	p.answer(nil)
	return nil
}

// stop leaves the mount.
func (p *player) stop() {
	_ = unix.Close(p.limboFD)
	_ = unix.Close(p.rootFD)
}

func (p *player) answer(answers map[place]*node) {
	p.tree.mu.Lock()
	defer p.tree.mu.Unlock()
	p.answers = answers
}

// lookup answers the player. Others are to ask anew, so nothing of it is valid for any time.
func (p *player) lookup(dir *node, name string, out *fuse.EntryOut) fuse.Status {
	t := p.tree
	t.mu.Lock()
	n, overruled := p.answers[place{dir, name}]
	if !overruled {
		n = dir.children[name]
	}
	if n == nil {
		t.mu.Unlock()
		return fuse.ENOENT
	}
	n.lookups++
	t.attach(dir, name, n)
	t.mu.Unlock()
	attr, err := t.attributes(n, unix.AT_STATX_DONT_SYNC)
	if err != nil {
		t.Forget(n.id, 1)
		return fuse.ToStatus(err)
	}
	t.fill(out, n, attr, 0)
	return fuse.OK
}

// create answers the player's mkdir or mknod.
func (p *player) create(dir *node, name string, kind uint32, out *fuse.EntryOut) fuse.Status {
	t := p.tree
	ghost := t.newGhost(kind)
	t.mu.Lock()
	t.attach(dir, name, ghost)
	t.mu.Unlock()
	attr, _ := t.attributes(ghost, 0)
	t.fill(out, ghost, attr, 0)
	return fuse.OK
}

// play raises the events of changes, but for those that the guest itself has made.
func (p *player) play(changes []change.Change) error {
	p.dirs = make(map[*node]int)
	defer func() {
		for n, fd := range p.dirs {
			_ = unix.Close(fd)
			p.release(n)
		}
	}()
	var errs []error
	for i := range changes {
		if err := p.one(&changes[i]); err != nil && len(errs) < 3 {
			errs = append(errs, fmt.Errorf("%s %q: %w", changes[i].Kind, changes[i].Name, err))
		}
	}
	return errors.Join(errs...)
}

// stand is a name in a directory that the kernel knows, and the directory, entered through the mount.
type stand struct {
	place
	fd int
	// believed is what the kernel believes to be there, nil for nothing.
	believed *node
}

var echoEvents = map[change.Kind]event{
	change.Created: createEvent, change.MovedIn: createEvent, change.Deleted: deleteEvent, change.Moved: moveEvent, change.MovedOut: moveEvent,
	change.Modified: modifyEvent, change.Closed: closeEvent, change.Attrib: attribEvent,
}

func (p *player) one(c *change.Change) error {
	kind := uint32(unix.S_IFREG)
	if c.IsDir {
		kind = unix.S_IFDIR
	}
	defer p.answer(nil)
	at, err := p.enter(c.Dir, c.Name, echoEvents[c.Kind])
	if err != nil {
		return err
	}
	if at != nil {
		defer p.leave(at)
		if at.fd < 0 {
			return nil
		}
	}
	if c.Kind == change.Moved {
		to, err := p.enter(c.ToDir, c.ToName, noEvent)
		if to != nil {
			defer p.leave(to)
		}
		switch {
		case err != nil:
			return err
		case at != nil && to != nil:
			return p.move(at, to, kind)
		case at != nil: // nobody knows where it went
			return p.moveOut(at, kind)
		case to != nil:
			return p.moveIn(to, kind)
		}
		return nil
	}
	if at == nil {
		return nil
	}
	switch c.Kind {
	case change.Created:
		return p.created(at, kind)
	case change.Deleted:
		return p.deleted(at, kind)
	case change.MovedOut:
		return p.moveOut(at, kind)
	case change.MovedIn:
		return p.moveIn(at, kind)
	case change.Modified, change.Closed, change.Attrib:
		return p.touched(at, c.Kind)
	}
	return fmt.Errorf("unknown kind of change")
}

// enter finds a directory as the kernel knows it; nil if it does not. It is not entered, and has no descriptor, when the
// event is an echo.
func (p *player) enter(dir, name []byte, what event) (*stand, error) {
	t := p.tree
	t.mu.Lock()
	n := t.root
	var steps []string
	for step := range strings.SplitSeq(string(dir), "/") {
		if step == "" {
			continue
		}
		if n = n.children[step]; n == nil || !n.isDir() {
			t.mu.Unlock()
			return nil, nil
		}
		steps = append(steps, step)
	}
	at := &stand{place: place{n, string(name)}, believed: n.children[string(name)]}
	if at.believed != nil {
		at.believed.lookups++
	}
	if what != noEvent && t.echoes.heard(at.place, what) {
		t.mu.Unlock()
		at.fd = -1
		return at, nil
	}
	fd, entered := p.dirs[n]
	if !entered {
		n.lookups++
	}
	t.mu.Unlock()
	if !entered {
		var err error
		if fd, err = p.walk(steps); err != nil {
			p.release(n)
			p.leave(at)
			return nil, fmt.Errorf("enter %q: %w", dir, err)
		}
		p.dirs[n] = fd
	}
	at.fd = fd
	return at, nil
}

func (p *player) walk(steps []string) (int, error) {
	const flags = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(p.rootFD, ".", flags, 0)
	for _, step := range steps {
		if err != nil {
			return -1, err
		}
		parent := fd
		fd, err = unix.Openat(parent, step, flags, 0)
		_ = unix.Close(parent)
	}
	return fd, err
}

func (p *player) leave(at *stand) {
	if at.believed != nil {
		p.release(at.believed)
	}
}

// release takes back a use of a node.
func (p *player) release(n *node) { p.tree.Forget(n.id, 1) }

// disbelieve has the kernel forget a name.
func (p *player) disbelieve(at *stand) {
	p.notify.EntryNotify(at.dir.id, at.name)
	p.tree.lost(at.dir, at.name)
}

// stands tells whether what the kernel believes is what is there on the host.
func (p *player) stands(at *stand) bool {
	if at.believed == nil || at.believed.ghost() {
		return false
	}
	fd, st, err := open(at.dir, at.name)
	if err != nil {
		return false
	}
	_ = unix.Close(fd)
	return identityOf(st) == at.believed.key
}

// created raises the event with a ghost: whoever looks at the name next finds what is there.
func (p *player) created(at *stand, kind uint32) error {
	if at.believed != nil {
		p.disbelieve(at)
	}
	p.answer(map[place]*node{at.place: nil})
	if kind == unix.S_IFDIR {
		return unix.Mkdirat(at.fd, at.name, 0o755)
	}
	return unix.Mknodat(at.fd, at.name, unix.S_IFREG|0o644, 0)
}

// source gives what is to leave a name, and one use of it: what the kernel believes to be there, unless that is of
// another kind, or something newer.
func (p *player) source(at *stand, kind uint32) *node {
	if at.believed != nil && at.believed.isDir() == (kind == unix.S_IFDIR) && !p.stands(at) {
		p.tree.mu.Lock()
		defer p.tree.mu.Unlock()
		at.believed.lookups++
		return at.believed
	}
	if at.believed != nil {
		p.disbelieve(at)
	}
	return p.tree.newGhost(kind)
}

func (p *player) deleted(at *stand, kind uint32) error {
	gone := p.source(at, kind)
	defer p.release(gone)
	p.answer(map[place]*node{at.place: gone})
	flags := 0
	if kind == unix.S_IFDIR {
		flags = unix.AT_REMOVEDIR
	}
	return unix.Unlinkat(at.fd, at.name, flags)
}

func (p *player) move(from, to *stand, kind uint32) error {
	source := p.source(from, kind)
	defer p.release(source)
	if err := p.rename(source, from.place, from.fd, to, kind); err != nil {
		return err
	}
	// The kernel goes on to believe what it moved, which may be another's by now.
	if now := (&stand{place: to.place, believed: source}); !source.ghost() && !p.stands(now) {
		p.disbelieve(now)
	}
	return nil
}

// rename puts source, from a place, in another place; what the kernel believes to be there is replaced, if it can be.
func (p *player) rename(source *node, from place, fd int, to *stand, kind uint32) error {
	replaced := to.believed
	if replaced != nil && (replaced == source || replaced.isDir() != (kind == unix.S_IFDIR) || p.stands(to)) {
		p.disbelieve(to)
		replaced = nil
	}
	p.answer(map[place]*node{from: source, to.place: replaced})
	return unix.Renameat(fd, from.name, to.fd, to.name)
}

func (p *player) moveOut(at *stand, kind uint32) error {
	source := p.source(at, kind)
	defer p.release(source)
	limbo := p.inLimbo()
	if err := p.rename(source, at.place, at.fd, limbo, kind); err != nil {
		return err
	}
	p.disbelieve(limbo)
	return nil
}

func (p *player) moveIn(at *stand, kind uint32) error {
	ghost := p.tree.newGhost(kind)
	defer p.release(ghost)
	limbo := p.inLimbo()
	return p.rename(ghost, limbo.place, limbo.fd, at, kind)
}

// inLimbo gives a name that was never used.
func (p *player) inLimbo() *stand {
	p.count++
	return &stand{place: place{p.limbo, fmt.Sprint(p.count)}, fd: p.limboFD}
}

// touched raises the events of a file that stays where it is.
func (p *player) touched(at *stand, what change.Kind) error {
	n := at.believed
	if n == nil {
		fd, st, err := open(at.dir, at.name)
		if err != nil { // gone since
			n = p.tree.newGhost(unix.S_IFREG)
		} else {
			n = p.tree.adopt(nil, "", fd, st)
		}
		defer p.release(n)
	}
	if !n.ghost() {
		n.plain.Store(0)
		p.notify.InodeNotify(n.id, 0, 0)
	}
	p.answer(map[place]*node{at.place: n})
	now, omit := unix.Timespec{Nsec: unix.UTIME_NOW}, unix.Timespec{Nsec: unix.UTIME_OMIT}
	switch what {
	case change.Attrib:
		return unix.UtimesNanoAt(at.fd, at.name, []unix.Timespec{now, now}, unix.AT_SYMLINK_NOFOLLOW)
	case change.Modified: // as fsnotify_change has it: a new mtime alone is a change of the content
		return unix.UtimesNanoAt(at.fd, at.name, []unix.Timespec{omit, now}, unix.AT_SYMLINK_NOFOLLOW)
	}
	if n.kind != unix.S_IFREG {
		return nil
	}
	fd, err := unix.Openat(at.fd, at.name, unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}
