package launch

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"woodlot.dev/agent/internal/fail"
)

func TestLookup(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"prog": 0o755, "data": 0o644} {
		if err := os.WriteFile(dir+"/"+name, nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(dir+"/sub", 0o755); err != nil {
		t.Fatal(err)
	}
	env := []string{"X=1", "PATH=relative::/no/such/dir:" + dir}
	if got, err := lookup("prog", env); err != nil || got != dir+"/prog" {
		t.Errorf("%q, %v", got, err)
	}
	for _, c := range []struct {
		name, message string
		kind          fail.Kind
	}{
		{"nope", `exec: "nope": executable file not found in $PATH`, fail.NotFound},
		{"", `exec: "": executable file not found in $PATH`, fail.NotFound},
		{"data", `exec: "data": executable file not found in $PATH`, fail.NotFound},
		{"sub", `exec: "sub": executable file not found in $PATH`, fail.NotFound},
		{"/nope", `exec: "/nope": stat /nope: no such file or directory`, fail.NotFound},
		{dir, `exec: "` + dir + `": is a directory`, fail.PermissionDenied},
		{dir + "/data", `exec: "` + dir + `/data": permission denied`, fail.PermissionDenied},
	} {
		_, err := lookup(c.name, env)
		if err == nil || err.Error() != c.message || fail.KindOf(err) != c.kind {
			t.Errorf("%q: %v (kind %d)", c.name, err, fail.KindOf(err))
		}
	}
}

func TestExecErrors(t *testing.T) {
	for errno, kind := range map[unix.Errno]fail.Kind{
		unix.ENOENT: fail.NotFound, unix.ENOEXEC: fail.PermissionDenied, unix.EACCES: fail.PermissionDenied,
		unix.E2BIG: fail.InvalidArgument, unix.ENOMEM: fail.ResourceExhausted,
	} {
		if got := fail.KindOf(execError("/p", errno)); got != kind {
			t.Errorf("%v: kind %d", errno, got)
		}
	}
}

func TestOptions(t *testing.T) {
	if !hasOption("size=1,mode=700", "mode") || hasOption("size=1,amode=700", "mode") || hasOption("", "mode") {
		t.Error("hasOption")
	}
	if !hasEnv([]string{"A=1", "HOME="}, "HOME") || hasEnv([]string{"HOMER=1", "HOME"}, "HOME") {
		t.Error("hasEnv")
	}
}
