package inroot

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"woodlot.dev/agent/internal/fail"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, dir string) *Root {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	must(t, err)
	r := New(fd)
	t.Cleanup(r.Close)
	return r
}

func TestResolve(t *testing.T) {
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, "a/b"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "a/f"), []byte("abc"), 0o644))
	for name, target := range map[string]string{
		"up": "../../../a", "abs": "/a/b", "file": "a/f", "dangling": "/a/new", "lost": "/no/where", "self": "self",
		"magic": "/proc/self/root",
	} {
		must(t, os.Symlink(target, filepath.Join(dir, name)))
	}
	r := open(t, dir)
	for _, c := range []struct {
		name   string
		follow bool
		want   string
		there  bool
	}{
		{"/", false, "/", true},
		{"/..", true, "/", true},
		{"/a/./b/../f", false, "/a/f", true},
		{"/up/b", false, "/a/b", true},
		{"/up", false, "/up", true},
		{"/up", true, "/a", true},
		{"/up/", false, "/a", true},
		{"/abs", true, "/a/b", true},
		{"/file", true, "/a/f", true},
		{"/file", false, "/file", true},
		{"/dangling", false, "/dangling", true},
		{"/dangling", true, "/a/new", false},
		{"/a/missing", false, "/a/missing", false},
		{"/a/b/../../../../a/f", false, "/a/f", true},
	} {
		got, st, err := r.Resolve(c.name, c.follow)
		if err != nil || got != c.want || (st != nil) != c.there {
			t.Errorf("%s %v: %s %v %v, want %s %v", c.name, c.follow, got, st != nil, err, c.want, c.there)
		}
	}
	for name, kind := range map[string]fail.Kind{
		"/no/where": fail.NotFound, "/lost": fail.NotFound, "/a/f/x": fail.InvalidArgument, "/self": fail.InvalidArgument,
		"/magic": fail.NotFound,
	} {
		if got, _, err := r.Resolve(name, true); err == nil || fail.KindOf(err) != kind {
			t.Errorf("%s: %s, %v", name, got, err)
		}
	}
}

func TestReopenOpensNothingThatActs(t *testing.T) {
	dir := t.TempDir()
	must(t, unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600))
	fd, err := open(t, dir).Find("/pipe")
	must(t, err)
	defer func() { _ = unix.Close(fd) }()
	if _, err := Reopen(fd, unix.O_RDONLY); !errors.Is(err, unix.EINVAL) {
		t.Error(err)
	}
}
