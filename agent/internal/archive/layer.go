package archive

import (
	"archive/tar"
	"context"
	"io"
	"path"
	"strings"

	"woodlot.dev/agent/internal/fail"
	"woodlot.dev/agent/internal/inroot"
	"woodlot.dev/agent/internal/xattr"
)

// Source: OCI image-spec, layer.md, "Whiteouts".
const (
	whiteout = ".wh."
	hidden   = ".wh..wh..opq"
)

// Layer writes the layer of an image: what it does not tell of stays as the layers below have it. Names are paths below
// the root.
type Layer struct{ packer *packer }

// NewLayer begins one; the caller closes it.
func NewLayer(ctx context.Context, w io.Writer) *Layer {
	return &Layer{newPacker(ctx, w, xattr.IsFiles)}
}

// Add tells what fd is, with all extended attributes; of a directory nothing that is in it. Sockets are left out.
func (l *Layer) Add(fd int, name string) error {
	if strings.HasPrefix(path.Base(name), whiteout) {
		return fail.New(fail.InvalidArgument, name+": in the layer of an image, a name with "+whiteout+" means a deletion")
	}
	st, err := inroot.Stat(fd)
	if err != nil {
		return inroot.Explain(name, err)
	}
	return l.packer.entry(fd, name, st)
}

// Delete tells that nothing is there.
func (l *Layer) Delete(name string) error {
	dir, base := path.Split(name)
	return l.mark(dir + whiteout + base)
}

// Hide tells that nothing which the layers below have in a directory is there.
func (l *Layer) Hide(dir string) error {
	return l.mark(path.Join(dir, hidden))
}

func (l *Layer) mark(name string) error {
	return l.packer.header(&tar.Header{Format: tar.FormatPAX, Typeflag: tar.TypeReg, Name: name, Mode: 0o600})
}

// Close ends the tar.
func (l *Layer) Close() error { return l.packer.tar.Close() }
