package changes

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestWalk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes whiteouts")
	}
	image, upper := t.TempDir(), t.TempDir()
	script := `
		mkdir -p etc usr/bin gone/deep kept re var/log same
		mkdir -p re/sub && touch etc/passwd usr/bin/a usr/bin/b gone/deep/f kept/f re/old re/both re/sub/old was_file var/log/x`
	run := func(dir, script string) {
		out, err := exec.Command("sh", "-ec", "cd "+dir+"; "+script).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	run(image, script)
	// What overlayfs keeps: directories that lead to a change are there with the image's attributes.
	run(upper, `
		mkdir -p etc usr/bin new/sub re/sub was_file var/log dev proc same
		touch etc/passwd etc/mtab etc/hosts new/sub/f re/both re/young was_file/in var/log/x
		mknod usr/bin/b c 0 0; mknod gone c 0 0; mknod ghost p
		chmod 700 same
		for d in etc usr usr/bin re var var/log; do touch -r `+image+`/$d $d; done; touch etc`)
	must(t, unix.Setxattr(filepath.Join(upper, "re"), opaqueAttribute, []byte("y"), 0))
	var got []string
	must(t, Walk(t.Context(), image, upper, func(c Change) error {
		got = append(got, string("CAD"[c.Kind])+c.Path)
		return nil
	}))
	want := "C/etc/passwd A/ghost D/gone A/new A/new/sub A/new/sub/f C/re C/re/both D/re/old C/re/sub D/re/sub/old A/re/young C/same " +
		"C/usr/bin D/usr/bin/b C/var/log/x C/was_file A/was_file/in"
	if strings.Join(got, " ") != want {
		t.Errorf("%q\nwant %q", got, want)
	}
}
