package copyup

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func fill(t *testing.T, root, name, target string, want bool) {
	t.Helper()
	copied, err := Fill(t.Context(), root, name, target, true)
	must(t, err)
	if copied != want {
		t.Errorf("%s: copied %v, want %v", name, copied, want)
	}
}

func stat(t *testing.T, name string) unix.Stat_t {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Lstat(name, &st))
	return st
}

func TestFillKeepsEverything(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it changes owners")
	}
	root, target := t.TempDir(), t.TempDir()
	data := filepath.Join(root, "srv/data")
	must(t, os.MkdirAll(filepath.Join(data, "sub"), 0o755))
	must(t, os.WriteFile(filepath.Join(data, "sub/f"), []byte("text"), 0o600))
	must(t, os.Link(filepath.Join(data, "sub/f"), filepath.Join(data, "same")))
	must(t, os.Symlink("/etc/passwd", filepath.Join(data, "link")))
	must(t, unix.Mkfifo(filepath.Join(data, "pipe"), 0o640))
	must(t, os.Chown(filepath.Join(data, "sub/f"), 70, 71))
	must(t, unix.Chmod(filepath.Join(data, "sub/f"), 0o4751))
	must(t, os.Chown(data, 999, 998))
	must(t, unix.Chmod(data, 0o1770))
	past := time.Unix(1_000_000_000, 5)
	must(t, os.Chtimes(filepath.Join(data, "sub/f"), past, past))
	// What a copy that was cut short left.
	must(t, os.MkdirAll(filepath.Join(target, "half/made"), 0o755))

	fill(t, root, "/srv/data", target, true)

	if _, err := os.Lstat(filepath.Join(target, "half")); !os.IsNotExist(err) {
		t.Errorf("the half-made copy is still there: %v", err)
	}
	for _, name := range []string{".", "sub", "sub/f", "same", "link", "pipe"} {
		want, got := stat(t, filepath.Join(data, name)), stat(t, filepath.Join(target, name))
		if got.Mode != want.Mode || got.Uid != want.Uid || got.Gid != want.Gid || got.Mtim != want.Mtim || got.Nlink != want.Nlink {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
	if stat(t, filepath.Join(target, "same")).Ino != stat(t, filepath.Join(target, "sub/f")).Ino {
		t.Error("a hard link became a file of its own")
	}
	if text, err := os.ReadFile(filepath.Join(target, "sub/f")); err != nil || string(text) != "text" {
		t.Errorf("%q, %v", text, err)
	}
}

func TestFillFollowsLinksInsideTheImageOnly(t *testing.T) {
	root, target, outside := t.TempDir(), t.TempDir(), t.TempDir()
	must(t, os.WriteFile(filepath.Join(outside, "secret"), nil, 0o600))
	must(t, os.MkdirAll(filepath.Join(root, "real"), 0o755))
	must(t, os.WriteFile(filepath.Join(root, "real/f"), nil, 0o600))
	must(t, os.Symlink("/real", filepath.Join(root, "inside")))
	must(t, os.Symlink(outside, filepath.Join(root, "absolute")))
	must(t, os.Symlink("../../../../../../../.."+outside, filepath.Join(root, "up")))
	for _, name := range []string{"/absolute", "/up", "/missing"} {
		fill(t, root, name, target, false)
		if entries, _ := os.ReadDir(target); len(entries) != 0 {
			t.Errorf("%s: %v", name, entries)
		}
	}
	fill(t, root, "/inside", target, true)
	if entries, _ := os.ReadDir(target); len(entries) != 1 || entries[0].Name() != "f" {
		t.Errorf("%v", entries)
	}
	must(t, os.WriteFile(filepath.Join(root, "file"), nil, 0o600))
	if _, err := Fill(t.Context(), root, "/file", target, true); err == nil {
		t.Error("a file was taken for a directory")
	}
}
