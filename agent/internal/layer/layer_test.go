package layer

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
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

// overlay makes what overlayfs keeps: an image, and above it the directory of what differs, with the image's attributes.
func overlay(t *testing.T, image, upper string) (string, string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes whiteouts")
	}
	below, above := t.TempDir(), t.TempDir()
	for dir, script := range map[string]string{below: image, above: upper} {
		out, err := exec.Command("sh", "-ec", "umask 022; cd "+dir+"; chmod 755 .; "+script).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	return below, above
}

func write(t *testing.T, image, upper string) []*tar.Header {
	t.Helper()
	var b bytes.Buffer
	must(t, Write(t.Context(), &b, image, upper))
	var headers []*tar.Header
	for r := tar.NewReader(&b); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return headers
		}
		must(t, err)
		headers = append(headers, h)
	}
}

func shown(headers []*tar.Header) string {
	lines := make([]string, 0, len(headers))
	for _, h := range headers {
		lines = append(lines, strings.TrimSpace(fmt.Sprintf("%c %s %s", h.Typeflag, h.Name, h.Linkname)))
	}
	return strings.Join(lines, "\n")
}

func TestWhatChanged(t *testing.T) {
	long := strings.Repeat("n", 200)
	image, upper := overlay(t, `
		mkdir -p same d gone re/sub/deep re/equal etc
		touch d/f1 d/f2 gone/f re/old re/sub/old re/sub/deep/f was_file
		mkdir dir_was && touch dir_was/f`, `
		mkdir -p d new/sub re/sub re/equal was_file same
		mknod d/f1 c 0 0; mknod gone c 0 0
		echo two > d/f2; ln d/f2 new/hard; ln -s ../d/f2 new/soft
		echo deep > new/sub/`+long+`
		mknod new/null c 1 3; mknod new/loop b 7 0; mkfifo new/pipe
		chown 4000000000:3000000000 new/sub/`+long+`
		chmod 4751 new/hard; touch -d @1000000000.123456789 new/sub
		echo x > dir_was; touch was_file/in re/sub/young re/young; chmod 1777 new
		mkdir -p etc dev proc; touch etc/hosts etc/mtab dev/x`)
	for _, name := range []string{"same", "re/equal", "re/sub"} {
		run := exec.Command("touch", "-r", filepath.Join(image, name), filepath.Join(upper, name))
		must(t, run.Run())
	}
	must(t, unix.Setxattr(filepath.Join(upper, "re"), "trusted.overlay.opaque", []byte("y"), 0))
	must(t, unix.Setxattr(filepath.Join(upper, "re"), "trusted.overlay.origin", []byte("o"), 0))
	must(t, unix.Setxattr(filepath.Join(upper, "new"), "user.dir", []byte("value\x00"), 0))
	must(t, unix.Setxattr(filepath.Join(upper, "d/f2"), "user.a=b", []byte("c"), 0))
	capability := "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	must(t, unix.Setxattr(filepath.Join(upper, "dir_was"), "security.capability", []byte(capability), 0))

	headers := write(t, image, upper)
	want := `5 d/
0 d/.wh.f1
0 d/f2
0 dir_was
0 .wh.gone
5 new/
1 new/hard d/f2
4 new/loop
3 new/null
6 new/pipe
2 new/soft ../d/f2
5 new/sub/
0 new/sub/` + long + `
5 re/
0 re/.wh..wh..opq
5 re/equal/
5 re/sub/
0 re/sub/young
0 re/young
5 was_file/
0 was_file/in`
	if got := shown(headers); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	find := func(name string) *tar.Header {
		i := slices.IndexFunc(headers, func(h *tar.Header) bool { return h.Name == name })
		if i < 0 {
			t.Fatalf("no %s", name)
		}
		return headers[i]
	}
	if h := find("new/sub/" + long); h.Uid != 4000000000 || h.Gid != 3000000000 || h.Size != 5 {
		t.Errorf("%+v", h)
	}
	if h := find("new/sub/"); h.ModTime.UnixNano() != 1000000000123456789 {
		t.Errorf("%v", h.ModTime)
	}
	if h := find("new/"); h.Mode != 0o1777 || h.PAXRecords["SCHILY.xattr.user.dir"] != "value\x00" {
		t.Errorf("%+v", h)
	}
	if h := find("dir_was"); h.PAXRecords["SCHILY.xattr.security.capability"] != capability {
		t.Errorf("%+v", h)
	}
	if h := find("new/null"); h.Devmajor != 1 || h.Devminor != 3 {
		t.Errorf("%+v", h)
	}
	if h := find("d/f2"); h.Mode != 0o4751 {
		t.Errorf("%+v", h)
	}
	for _, h := range headers {
		for key := range h.PAXRecords {
			if strings.Contains(key, "overlay") {
				t.Errorf("%s has %s", h.Name, key)
			}
		}
	}
}

func TestNothingChanged(t *testing.T) {
	image, upper := overlay(t, "mkdir -p etc usr/bin; touch etc/passwd", "mkdir -p etc usr/bin dev; touch etc/hosts")
	for _, name := range []string{"usr", "usr/bin"} {
		must(t, exec.Command("touch", "-r", filepath.Join(image, name), filepath.Join(upper, name)).Run())
	}
	if headers := write(t, image, upper); len(headers) > 0 {
		t.Error(shown(headers))
	}
	must(t, unix.Setxattr(filepath.Join(upper, "usr/bin"), "user.a", []byte("b"), 0))
	if got := shown(write(t, image, upper)); got != "5 usr/bin/" {
		t.Error(got)
	}
}

func TestTheRootsAttributes(t *testing.T) {
	image, upper := overlay(t, "true", "chmod 700 .")
	headers := write(t, image, upper)
	if len(headers) != 1 || headers[0].Name != "./" || headers[0].Mode != 0o700 {
		t.Error(shown(headers))
	}
}

func TestANameThatMeansADeletion(t *testing.T) {
	image, upper := overlay(t, "true", "mkdir d; touch d/.wh.x")
	err := Write(t.Context(), io.Discard, image, upper)
	if fail.KindOf(err) != fail.InvalidArgument || !strings.Contains(err.Error(), "d/.wh.x") {
		t.Error(err)
	}
}
