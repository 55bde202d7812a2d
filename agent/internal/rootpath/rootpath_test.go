package rootpath

import (
	"os"
	"path/filepath"
	"testing"
)

func link(t *testing.T, target, name string) {
	t.Helper()
	if err := os.Symlink(target, name); err != nil {
		t.Fatal(err)
	}
}

func TestEnsureDirFollowsLinksAsText(t *testing.T) {
	root := t.TempDir()
	link(t, root+"/real/deep", root+"/dangling")
	link(t, "dangling", root+"/again")
	got, err := EnsureDir(root + "/again/../x/./y")
	if err != nil || got != root+"/real/x/y" {
		t.Errorf("%q, %v", got, err)
	}
	link(t, "loop", root+"/loop")
	if _, err := EnsureDir(root + "/loop/x"); err == nil {
		t.Error("a loop of links was followed")
	}
	if err := os.WriteFile(root+"/file", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := EnsureDir(root + "/file/x"); err == nil {
		t.Error("a file served as a directory")
	}
}

// A magic link leads to what it stands for, not to what its text says; only the text may count.
func TestMagicLinksAreOnlyText(t *testing.T) {
	root := t.TempDir()
	dir, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	moved := root + ".moved"
	if err := os.Rename(root, moved); err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(moved)
	got, err := EnsureDir(filepath.Join("/proc/self/fd", itoa(int(dir.Fd()))))
	if err != nil || got != moved {
		t.Errorf("%q, %v: want the text, %q", got, err, moved)
	}
}

func itoa(n int) string {
	if n < 10 {
		return string(rune('0' + n))
	}
	return itoa(n/10) + itoa(n%10)
}

func TestEnsureFile(t *testing.T) {
	root := t.TempDir()
	link(t, "made/by-link", root+"/link")
	for name, want := range map[string]string{"/a/b/file": "/a/b/file", "/link": "/made/by-link"} {
		got, err := EnsureFile(root + name)
		if err != nil || got != root+want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		if again, err := EnsureFile(root + name); err != nil || again != got {
			t.Errorf("again: %q, %v", again, err)
		}
		if st, err := os.Stat(got); err != nil || !st.Mode().IsRegular() {
			t.Errorf("%s: %v", got, err)
		}
	}
	if _, err := EnsureFile(root + "/a"); err == nil {
		t.Error("a directory served as a file")
	}
}

func TestRealDirRefusesLinks(t *testing.T) {
	root := t.TempDir()
	link(t, "/tmp", root+"/proc")
	if err := RealDir(root + "/proc"); err == nil {
		t.Error("a link served as a mount point")
	}
	if err := RealDir(root + "/sys"); err != nil {
		t.Error(err)
	}
}
