// Package mountopt turns fstab options into mount(2) flags and data.
package mountopt

import (
	"strings"

	"golang.org/x/sys/unix"

	"woodlot.dev/agent/internal/fail"
)

type option struct {
	set, clear uint64
}

var known = map[string]option{
	"defaults":      {},
	"ro":            {set: unix.MS_RDONLY},
	"rw":            {clear: unix.MS_RDONLY},
	"nosuid":        {set: unix.MS_NOSUID},
	"suid":          {clear: unix.MS_NOSUID},
	"nodev":         {set: unix.MS_NODEV},
	"dev":           {clear: unix.MS_NODEV},
	"noexec":        {set: unix.MS_NOEXEC},
	"exec":          {clear: unix.MS_NOEXEC},
	"sync":          {set: unix.MS_SYNCHRONOUS},
	"async":         {clear: unix.MS_SYNCHRONOUS},
	"dirsync":       {set: unix.MS_DIRSYNC},
	"noatime":       {set: unix.MS_NOATIME},
	"atime":         {clear: unix.MS_NOATIME},
	"nodiratime":    {set: unix.MS_NODIRATIME},
	"diratime":      {clear: unix.MS_NODIRATIME},
	"relatime":      {set: unix.MS_RELATIME},
	"norelatime":    {clear: unix.MS_RELATIME},
	"strictatime":   {set: unix.MS_STRICTATIME},
	"nostrictatime": {clear: unix.MS_STRICTATIME},
	"mand":          {},
	"nomand":        {},
	// A container's mounts are private to its namespace; these change nothing there.
	"private": {}, "rprivate": {}, "slave": {}, "rslave": {}, "shared": {}, "rshared": {},
}

// tmpfsOptions are the only data options a tmpfs may carry: an unknown one would fail with a bare EINVAL.
var tmpfsOptions = map[string]bool{
	"size": true, "mode": true, "uid": true, "gid": true, "nr_inodes": true, "nr_blocks": true, "mpol": true, "huge": true,
	"inode32": true, "inode64": true,
}

// Parse gives flags and data for a mount of the given type. A tmpfs starts from nosuid, nodev and noexec, as in
// Docker; later options win.
func Parse(fsType string, options []string) (flags uint64, data string, err error) {
	if fsType == "tmpfs" {
		flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	}
	var rest []string
	for _, item := range options {
		for _, o := range strings.Split(item, ",") {
			if o == "" {
				continue
			}
			if f, ok := known[o]; ok {
				flags = flags&^f.clear | f.set
				continue
			}
			name, _, _ := strings.Cut(o, "=")
			if fsType == "tmpfs" && !tmpfsOptions[name] {
				return 0, "", fail.New(fail.InvalidArgument, `unknown tmpfs option "`+o+`"`)
			}
			rest = append(rest, o)
		}
	}
	return flags, strings.Join(rest, ","), nil
}
