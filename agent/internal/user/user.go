// Package user resolves an OCI user string in the passwd and group files of a container, by Docker's rules.
package user

import (
	"bufio"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"woodlot.dev/agent/internal/fail"
)

const (
	maxFileBytes = 16 << 20
	maxLine      = 1 << 20
	maxEntries   = 1 << 18
	maxID        = 1<<31 - 1
	maxNameBytes = 64
)

// Identity is whom a process runs as.
type Identity struct {
	UID, GID uint32
	// Groups starts with GID.
	Groups []uint32
	// Home is "/" where the user database has none.
	Home string
}

// Resolve reads /etc/passwd and /etc/group below the calling process's root.
func Resolve(spec string) (Identity, error) {
	passwd, err := open("/etc/passwd")
	if err != nil {
		return Identity{}, err
	}
	defer passwd.Close()
	group, err := open("/etc/group")
	if err != nil {
		return Identity{}, err
	}
	defer group.Close()
	return resolve(spec, passwd, group)
}

type emptyFile struct{}

func (emptyFile) Read([]byte) (int, error) { return 0, io.EOF }
func (emptyFile) Close() error             { return nil }

// open refuses what is not a regular file: an image could put a FIFO there and make us wait for ever.
func open(path string) (io.ReadCloser, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err == unix.ENOENT || err == unix.ENOTDIR || err == unix.ELOOP {
		return emptyFile{}, nil
	}
	if err != nil {
		return nil, fail.Wrap(fail.InvalidArgument, "open "+path, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		_ = unix.Close(fd)
		return nil, fail.New(fail.InvalidArgument, path+" is not a regular file")
	}
	return os.NewFile(uintptr(fd), path), nil
}

// each calls f with the fields of every line that has at least n of them, until f returns false.
func each(r io.Reader, name string, n int, f func(fields []string) bool) error {
	lines := bufio.NewScanner(io.LimitReader(r, maxFileBytes))
	lines.Buffer(make([]byte, 0, 4096), maxLine)
	for count := 0; lines.Scan(); count++ {
		if count == maxEntries {
			return fail.New(fail.InvalidArgument, name+" has too many lines")
		}
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		fields := strings.Split(line, ":")
		if len(fields) >= n && !f(fields) {
			return nil
		}
	}
	if err := lines.Err(); err != nil {
		return fail.Wrap(fail.InvalidArgument, "read "+name, err)
	}
	return nil
}

// Names gives the users of a passwd file by their ids, of several with one id the first; empty if it is none.
func Names(passwd io.Reader) map[uint32]string {
	names := map[uint32]string{}
	err := each(passwd, "/etc/passwd", 3, func(f []string) bool {
		uid, ok := parseID(f[2])
		if _, known := names[uid]; ok && !known && len(f[0]) <= maxNameBytes {
			names[uid] = f[0]
		}
		return true
	})
	if err != nil {
		return nil
	}
	return names
}

func parseID(s string) (uint32, bool) {
	v, err := strconv.ParseUint(s, 10, 32)
	return uint32(v), err == nil && v <= maxID
}

func isNumber(s string) bool {
	for _, c := range s {
		if c < '0' || c > '9' {
			return false
		}
	}
	return s != ""
}

func outOfRange() error {
	return fail.New(fail.InvalidArgument, "uids and gids must be in range 0-2147483647")
}

func resolve(spec string, passwd, group io.Reader) (Identity, error) {
	userArg, groupArg, _ := strings.Cut(spec, ":")
	id := Identity{Home: "/"}
	uidArg, uidOK := parseID(userArg)
	matched := ""
	err := each(passwd, "/etc/passwd", 4, func(f []string) bool {
		uid, ok1 := parseID(f[2])
		gid, ok2 := parseID(f[3])
		if !ok1 || !ok2 {
			return true
		}
		switch {
		case userArg == "" && uid == 0, isNumber(userArg) && uidOK && uid == uidArg, !isNumber(userArg) && userArg != "" && f[0] == userArg:
		default:
			return true
		}
		matched, id.UID, id.GID = f[0], uid, gid
		if len(f) > 5 && f[5] != "" {
			id.Home = f[5]
		}
		return false
	})
	if err != nil {
		return id, err
	}
	if matched == "" && userArg != "" {
		if !isNumber(userArg) {
			return id, fail.New(fail.InvalidArgument, "unable to find user "+userArg+": no matching entries in passwd file")
		}
		if !uidOK {
			return id, outOfRange()
		}
		id.UID = uidArg
	}
	var extra []uint32
	if groupArg != "" || matched != "" {
		if extra, err = groups(&id, groupArg, matched, group); err != nil {
			return id, err
		}
	}
	id.Groups = []uint32{id.GID}
	for _, gid := range extra {
		if gid != id.GID {
			id.Groups = append(id.Groups, gid)
		}
	}
	return id, nil
}

// groups sets id.GID from groupArg, or without one gives the groups that list the user.
func groups(id *Identity, groupArg, matched string, group io.Reader) ([]uint32, error) {
	gidArg, gidOK := parseID(groupArg)
	found := false
	var extra []uint32
	err := each(group, "/etc/group", 3, func(f []string) bool {
		gid, ok := parseID(f[2])
		if !ok {
			return true
		}
		if groupArg == "" {
			if len(f) > 3 && member(f[3], matched) {
				extra = append(extra, gid)
			}
			return true
		}
		if isNumber(groupArg) && gidOK && gid == gidArg || !isNumber(groupArg) && f[0] == groupArg {
			id.GID, found = gid, true
			return false
		}
		return true
	})
	if err != nil || groupArg == "" || found {
		return extra, err
	}
	if !isNumber(groupArg) {
		return nil, fail.New(fail.InvalidArgument, "unable to find group "+groupArg+": no matching entries in group file")
	}
	if !gidOK {
		return nil, outOfRange()
	}
	id.GID = gidArg
	return nil, nil
}

func member(list, name string) bool {
	for list != "" {
		var one string
		one, list, _ = strings.Cut(list, ",")
		if strings.TrimSpace(one) == name {
			return true
		}
	}
	return false
}
