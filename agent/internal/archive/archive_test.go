package archive

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"woodlot.dev/agent/internal/fail"
	"woodlot.dev/agent/internal/inroot"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, name string) int {
	t.Helper()
	fd, err := unix.Open(name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	must(t, err)
	t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

func pack(t *testing.T, name, as string) []byte {
	t.Helper()
	var b bytes.Buffer
	must(t, Pack(t.Context(), &b, open(t, name), as))
	return b.Bytes()
}

func unpack(t *testing.T, archive []byte, root, dir string) error {
	t.Helper()
	fd, err := unix.Dup(open(t, root))
	must(t, err)
	r := inroot.New(fd)
	defer r.Close()
	return Unpack(t.Context(), bytes.NewReader(archive), r, dir)
}

func build(t *testing.T, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		content := []byte{}
		if h.Typeflag == tar.TypeReg {
			content = []byte(h.Name)
			h.Size = int64(len(content))
		}
		h.Uid, h.Gid, h.ModTime = os.Getuid(), os.Getgid(), time.Unix(1e9, 0)
		must(t, w.WriteHeader(&h))
		_, err := w.Write(content)
		must(t, err)
	}
	must(t, w.Close())
	return b.Bytes()
}

func names(t *testing.T, archive []byte) []string {
	t.Helper()
	var list []string
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return list
		}
		must(t, err)
		list = append(list, h.Name)
	}
}

func TestThereAndBack(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it changes owners")
	}
	from, root := t.TempDir(), t.TempDir()
	past := time.Unix(1_000_000_000, 123456789)
	must(t, os.MkdirAll(filepath.Join(from, "d/sub"), 0o755))
	big := bytes.Repeat([]byte("0123456789abcdef"), 50_000)
	must(t, os.WriteFile(filepath.Join(from, "d/sub/big"), big, 0o600))
	must(t, os.WriteFile(filepath.Join(from, "d/\xff\n"), nil, 0o600))
	must(t, os.Link(filepath.Join(from, "d/sub/big"), filepath.Join(from, "d/same")))
	must(t, os.Symlink("/nowhere", filepath.Join(from, "d/link")))
	must(t, unix.Mkfifo(filepath.Join(from, "d/pipe"), 0o640))
	must(t, os.Chown(filepath.Join(from, "d/sub/big"), 70, 71))
	must(t, unix.Chmod(filepath.Join(from, "d/sub/big"), 0o4751))
	must(t, os.Chown(filepath.Join(from, "d/sub"), 99, 98))
	must(t, unix.Chmod(filepath.Join(from, "d/sub"), 0o1770))
	must(t, os.Chtimes(filepath.Join(from, "d/sub/big"), past, past))
	must(t, os.Chtimes(filepath.Join(from, "d/sub"), past, past))

	must(t, unpack(t, pack(t, filepath.Join(from, "d"), "e"), root, "/"))
	must(t, os.Rename(filepath.Join(from, "d"), filepath.Join(from, "e")))
	if a, b := pack(t, filepath.Join(from, "e"), "e"), pack(t, filepath.Join(root, "e"), "e"); !bytes.Equal(a, b) {
		t.Errorf("%q\n%q", names(t, a), names(t, b))
	}
}

func TestPackNames(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "d"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "d/f"), nil, 0o644))
	for as, want := range map[string]string{"x": "x/ x/d/ x/d/f", ".": "./ ./d/ ./d/f"} {
		if got := strings.Join(names(t, pack(t, dir, as)), " "); got != want {
			t.Errorf("%s: %s, want %s", as, got, want)
		}
	}
	if got := names(t, pack(t, filepath.Join(dir, "d/f"), "g")); len(got) != 1 || got[0] != "g" {
		t.Error(got)
	}
}

func TestPackRefusesTheKernelsFiles(t *testing.T) {
	err := Pack(t.Context(), io.Discard, open(t, "/proc/version"), "x")
	if fail.KindOf(err) != fail.InvalidArgument {
		t.Error(err)
	}
}

func TestUnpackStaysInside(t *testing.T) {
	outside, root := t.TempDir(), t.TempDir()
	must(t, os.WriteFile(filepath.Join(outside, "victim"), []byte("whole"), 0o644))
	must(t, os.MkdirAll(filepath.Join(root, "dst"), 0o755))
	dir := func(name string) tar.Header { return tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755} }
	file := func(name string) tar.Header { return tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644} }
	link := func(kind byte, name, target string) tar.Header {
		return tar.Header{Typeflag: kind, Name: name, Linkname: target}
	}
	for _, c := range []struct {
		headers []tar.Header
		want    string
	}{
		{[]tar.Header{file("../../up")}, "dst/up"},
		{[]tar.Header{file("/abs/x")}, "dst/abs/x"},
		{[]tar.Header{link(tar.TypeSymlink, "out", outside), file("out/victim")}, ""},
		{[]tar.Header{link(tar.TypeSymlink, "v", outside+"/victim"), file("v")}, "dst/v"},
		{[]tar.Header{link(tar.TypeLink, "hard", "../.."+outside+"/victim")}, ""},
		{[]tar.Header{link(tar.TypeSymlink, "top", "/"), dir("top/made")}, "made"},
	} {
		err := unpack(t, build(t, c.headers...), root, "/dst")
		if (err == nil) != (c.want != "") {
			t.Errorf("%v: %v", c.headers, err)
		}
		if st, err := os.Lstat(filepath.Join(root, c.want)); err != nil || st.Mode()&os.ModeSymlink != 0 {
			t.Errorf("%v: %v %v", c.headers, st, err)
		}
	}
	if b, err := os.ReadFile(filepath.Join(outside, "victim")); err != nil || string(b) != "whole" {
		t.Errorf("%q %v", b, err)
	}
}

func TestUnpackOverWhatIsThere(t *testing.T) {
	root := t.TempDir()
	must(t, os.Mkdir(filepath.Join(root, "d"), 0o700))
	must(t, os.WriteFile(filepath.Join(root, "f"), []byte("old"), 0o600))
	must(t, os.Symlink("f", filepath.Join(root, "l")))
	for _, c := range []struct {
		header tar.Header
		said   string
	}{
		{tar.Header{Typeflag: tar.TypeReg, Name: "d"}, "cannot overwrite a directory"},
		{tar.Header{Typeflag: tar.TypeDir, Name: "f"}, "cannot overwrite with a directory"},
		{tar.Header{Typeflag: tar.TypeDir, Name: "l"}, "cannot overwrite with a directory"},
		{tar.Header{Typeflag: tar.TypeReg, Name: "f/x"}, "not a directory"},
		{tar.Header{Typeflag: tar.TypeReg, Name: "."}, "without a name"},
	} {
		err := unpack(t, build(t, c.header), root, "/")
		if fail.KindOf(err) != fail.InvalidArgument || !strings.Contains(err.Error(), c.said) {
			t.Errorf("%v: %v", c.header, err)
		}
	}
	must(t, unpack(t, build(t, tar.Header{Typeflag: tar.TypeDir, Name: "d", Mode: 0o755}), root, "/"))
	if st, err := os.Stat(filepath.Join(root, "d")); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("a directory that is there keeps its attributes: %v %v", st.Mode(), err)
	}
	must(t, unpack(t, build(t, tar.Header{Typeflag: tar.TypeReg, Name: "l", Mode: 0o4711}), root, "/"))
	if st, err := os.Lstat(filepath.Join(root, "l")); err != nil || st.Mode() != 0o711|os.ModeSetuid {
		t.Errorf("%v %v", st.Mode(), err)
	}
	if b, err := os.ReadFile(filepath.Join(root, "f")); err != nil || string(b) != "old" {
		t.Errorf("the symlink was followed: %q %v", b, err)
	}
}

func TestUnpackTellsWhatIsNoTar(t *testing.T) {
	whole := build(t, tar.Header{Typeflag: tar.TypeReg, Name: "f"})
	for _, archive := range [][]byte{[]byte(strings.Repeat("x", 2000)), whole[:512]} {
		err := unpack(t, archive, t.TempDir(), "/")
		if fail.KindOf(err) != fail.InvalidArgument || !strings.Contains(err.Error(), "no whole tar") {
			t.Error(err)
		}
	}
	if err := unpack(t, whole, t.TempDir(), "/missing"); fail.KindOf(err) != fail.NotFound {
		t.Error(err)
	}
}
