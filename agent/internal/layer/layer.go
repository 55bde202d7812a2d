// Package layer makes the layer of an image of what a container has changed.
package layer

import (
	"context"
	"errors"
	"io"
	"strings"

	"golang.org/x/sys/unix"

	"woodlot.dev/agent/internal/archive"
	"woodlot.dev/agent/internal/changes"
	"woodlot.dev/agent/internal/inroot"
)

// Write writes a tar of the differences between an image and the overlay above it: what was made and changed, whiteouts
// for what was deleted. Without differences it is an empty tar.
func Write(ctx context.Context, w io.Writer, image, upper string) error {
	out := archive.NewLayer(ctx, w)
	if err := root(out, image, upper); err != nil {
		return err
	}
	if err := changes.Walk(ctx, image, upper, func(c changes.Change) error { return add(out, c) }); err != nil {
		return err
	}
	return out.Close()
}

// root tells of "/" itself. When it was last changed is not told: making the container ready has done that.
func root(out *archive.Layer, image, upper string) error {
	var below, above unix.Stat_t
	if err := errors.Join(unix.Stat(image, &below), unix.Stat(upper, &above)); err != nil {
		return inroot.Explain("/", err)
	}
	if above.Mode == below.Mode && above.Uid == below.Uid && above.Gid == below.Gid {
		return nil
	}
	fd, err := unix.Open(upper, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return inroot.Explain("/", err)
	}
	defer func() { _ = unix.Close(fd) }()
	return out.Add(fd, ".")
}

func add(out *archive.Layer, c changes.Change) error {
	name := strings.TrimPrefix(c.Path, "/")
	if c.Kind == changes.Deleted {
		if c.Hidden {
			return nil
		}
		return out.Delete(name)
	}
	fd, err := c.Open()
	if errors.Is(err, unix.ENOENT) { // deleted meanwhile
		return nil
	}
	if err != nil {
		return inroot.Explain(name, err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := out.Add(fd, name); err != nil || !c.Opaque {
		return err
	}
	return out.Hide(name)
}
