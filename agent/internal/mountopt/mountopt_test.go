package mountopt

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestParse(t *testing.T) {
	const safe = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	for _, c := range []struct {
		fsType  string
		options []string
		flags   uint64
		data    string
		bad     bool
	}{
		{"tmpfs", nil, safe, "", false},
		{"tmpfs", []string{"exec", "size=64m,mode=1777", "ro"}, safe&^unix.MS_NOEXEC | unix.MS_RDONLY, "size=64m,mode=1777", false},
		{"tmpfs", []string{"ro", "rw", "rprivate"}, safe, "", false},
		{"tmpfs", []string{"sise=1"}, 0, "", true},
		{"virtiofs", []string{"ro", "dax=never"}, unix.MS_RDONLY, "dax=never", false},
	} {
		flags, data, err := Parse(c.fsType, c.options)
		if (err != nil) != c.bad || err == nil && (flags != c.flags || data != c.data) {
			t.Errorf("%s %v: %#x %q %v", c.fsType, c.options, flags, data, err)
		}
	}
}
