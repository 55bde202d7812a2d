// Package changes tells how a root filesystem differs from its image, from the directory that overlayfs keeps the
// differences in.
package changes

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"

	"golang.org/x/sys/unix"

	"woodlot.dev/agent/internal/archive"
	"woodlot.dev/agent/internal/fail"
	"woodlot.dev/agent/internal/inroot"
	"woodlot.dev/agent/internal/xattr"
)

// Kind is what happened to a path.
type Kind int

// The kinds.
const (
	Modified Kind = iota
	Added
	Deleted
)

// Change is one path that differs.
type Change struct {
	Kind Kind
	// Path is absolute in the container.
	Path string
	// Opaque: a directory of which nothing of the image's shows through. For each name that this deletes comes a change
	// that is Hidden.
	Opaque, Hidden bool

	dir  int
	name string
}

// Open gives what is there now, unopened (O_PATH). Only for what is not deleted, and while emit runs.
func (c Change) Open() (int, error) {
	return unix.Openat(c.dir, c.name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

const (
	maxDepth        = 512
	opaqueAttribute = "trusted.overlay.opaque"
)

// ours are the paths that setting a container up makes; who asks what a container did is not told of them.
var ours = map[string]bool{
	"/dev": true, "/proc": true, "/sys": true,
	"/etc/hostname": true, "/etc/hosts": true, "/etc/mtab": true, "/etc/resolv.conf": true,
}

type walker struct {
	ctx  context.Context
	emit func(Change) error
}

// entry is a name in a directory and what it is in the image and above it; nil where it is not.
type entry struct {
	name         string
	below, above *unix.Stat_t
}

// Walk calls emit for each path at which the overlay's upper directory differs from the image, sorted by directory, a
// directory before what is in it. A directory is modified if its attributes are, or something was made or deleted in it.
func Walk(ctx context.Context, image, upper string, emit func(Change) error) error {
	const flags = unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC
	below, err := unix.Open(image, flags, 0)
	if err != nil {
		return inroot.Explain(image, err)
	}
	defer func() { _ = unix.Close(below) }()
	above, err := unix.Open(upper, flags, 0)
	if err != nil {
		return inroot.Explain(upper, err)
	}
	defer func() { _ = unix.Close(above) }()
	entries, err := list(below, above, "/", false)
	if err != nil {
		return err
	}
	return (&walker{ctx: ctx, emit: emit}).entries(below, above, "/", entries, false, 0)
}

// entries goes through those of a directory, which is opaque or not.
func (w *walker) entries(below, above int, dir string, entries []entry, opaque bool, depth int) error {
	if depth > maxDepth {
		return fail.New(fail.ResourceExhausted, fmt.Sprintf("%s: more than %d directories in each other", dir, maxDepth))
	}
	for _, e := range entries {
		if err := w.ctx.Err(); err != nil {
			return err
		}
		if err := w.entry(below, above, path.Join(dir, e.name), e, opaque, depth); err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) entry(below, above int, name string, e entry, opaque bool, depth int) error {
	change := Change{Kind: e.kind(), Path: name, dir: above, name: e.name}
	switch {
	case e.isDeleted():
		change.Kind, change.Hidden = Deleted, e.above == nil
		return w.emit(change)
	case !inroot.IsDirectory(e.above):
		return w.emit(change)
	}
	inner, err := descend(above, e.name)
	if err != nil {
		return inroot.Explain(name, err)
	}
	defer func() { _ = unix.Close(inner) }()
	under := -1
	if e.below != nil && inroot.IsDirectory(e.below) {
		if under, err = descend(below, e.name); err != nil {
			return inroot.Explain(name, err)
		}
		defer func() { _ = unix.Close(under) }()
	}
	// Overlayfs marks the outermost one alone.
	inside := under >= 0 && (opaque || isOpaque(inner))
	entries, err := list(under, inner, name, inside)
	if err != nil {
		return err
	}
	if under < 0 || opaque || e.differs(name) || !sameAttributes(under, inner) || slices.ContainsFunc(entries, entry.isNews) {
		change.Opaque = inside && !opaque
		if err := w.emit(change); err != nil {
			return err
		}
	}
	return w.entries(under, inner, name, entries, inside, depth+1)
}

// isDeleted: it is whited out, or hidden by a new directory above it.
func (e entry) isDeleted() bool {
	return e.above == nil || e.above.Mode&unix.S_IFMT == unix.S_IFCHR && e.above.Rdev == 0
}

func (e entry) isNews() bool { return e.isDeleted() || e.below == nil }

func (e entry) kind() Kind {
	if e.below == nil {
		return Added
	}
	return Modified
}

// differs compares a directory's attributes. Where setting up has made something, the time is not the container's doing.
func (e entry) differs(name string) bool {
	a, b := e.above, e.below
	return a.Mode != b.Mode || a.Uid != b.Uid || a.Gid != b.Gid || name != "/etc" && a.Mtim != b.Mtim
}

// sameAttributes compares the extended attributes of two directories.
func sameAttributes(below, above int) bool {
	attributes := func(dir int) map[string]string {
		return maps.Collect(xattr.Select(inroot.Name(dir), xattr.IsFiles))
	}
	return maps.Equal(attributes(below), attributes(above))
}

func descend(dir int, name string) (int, error) {
	return unix.Openat(dir, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

// list gives what of a directory is not as in the image; below is -1 if the image has none there. Of an opaque one that
// is also what the image has and it has not.
func list(below, above int, dir string, opaque bool) ([]entry, error) {
	names, err := archive.List(above)
	if err != nil {
		return nil, inroot.Explain(dir, err)
	}
	entries := make([]entry, 0, len(names))
	for _, name := range names {
		if ours[path.Join(dir, name)] {
			continue
		}
		st, err := lstat(above, name)
		if err != nil {
			return nil, inroot.Explain(path.Join(dir, name), err)
		}
		if st == nil { // deleted meanwhile
			continue
		}
		e := entry{name: name, above: st}
		if below >= 0 {
			if e.below, err = lstat(below, name); err != nil {
				return nil, inroot.Explain(path.Join(dir, name), err)
			}
		}
		entries = append(entries, e)
	}
	if below < 0 || !opaque {
		return entries, nil
	}
	hidden, err := archive.List(below)
	if err != nil {
		return nil, inroot.Explain(dir, err)
	}
	for _, name := range hidden {
		if _, found := slices.BinarySearch(names, name); !found && !ours[path.Join(dir, name)] {
			entries = append(entries, entry{name: name})
		}
	}
	slices.SortFunc(entries, func(a, b entry) int { return cmp.Compare(a.name, b.name) })
	return entries, nil
}

// isOpaque: the directory was deleted and made anew, so nothing of the image's shows through.
func isOpaque(dir int) bool {
	value := make([]byte, 1)
	n, err := unix.Getxattr(inroot.Name(dir), opaqueAttribute, value)
	return err == nil && n == 1 && value[0] == 'y'
}

func lstat(dir int, name string) (*unix.Stat_t, error) {
	var st unix.Stat_t
	err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	return &st, err
}
