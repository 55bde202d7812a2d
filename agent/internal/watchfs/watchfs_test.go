package watchfs

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/posixtest"
	"golang.org/x/sys/unix"

	"woodlot.dev/agent/internal/change"
)

// TestMain is the filesystem in a process of its own: one that serves itself can wait for itself.
func TestMain(m *testing.M) {
	if os.Args[0] == "watchfs" {
		os.Exit(Main())
	}
	os.Exit(m.Run())
}

// stack is a filesystem that is being served.
type stack struct {
	t            *testing.T
	lower, mount string
	process      *os.Process
	encoder      *json.Encoder
	decoder      *json.Decoder
}

func stacked(t *testing.T) *stack {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("there is no FUSE here")
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	ours, theirs := os.NewFile(uintptr(pair[0]), ""), os.NewFile(uintptr(pair[1]), "")
	s := &stack{t: t, lower: t.TempDir(), mount: t.TempDir(), encoder: json.NewEncoder(ours), decoder: json.NewDecoder(ours)}
	s.process, err = os.StartProcess("/proc/self/exe", []string{"watchfs", s.lower, s.mount}, &os.ProcAttr{
		Files: []*os.File{nil, os.Stderr, os.Stderr, theirs},
	})
	must(t, err, theirs.Close())
	t.Cleanup(func() {
		must(t, ours.Close())
		state, err := s.process.Wait()
		must(t, err)
		if !state.Success() {
			t.Error(state)
		}
	})
	s.answered()
	return s
}

func (s *stack) play(changes ...change.Change) {
	s.t.Helper()
	must(s.t, s.encoder.Encode(change.Batch{Changes: changes}))
	s.answered()
}

func (s *stack) answered() {
	s.t.Helper()
	var answer change.Answer
	must(s.t, s.decoder.Decode(&answer))
	if answer.Error != "" {
		s.t.Error(answer.Error)
	}
}

func TestIsAFilesystem(t *testing.T) {
	s := stacked(t)
	for name, check := range posixtest.All {
		if name == "FcntlFlockLocksFile" {
			continue // wants a process to be kept from what it has locked itself, which is not POSIX
		}
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(s.mount, name)
			must(t, os.Mkdir(dir, 0o755))
			check(t, dir)
		})
	}
}

// watch is an inotify instance.
type watch struct {
	t     *testing.T
	fd    int
	names map[int32]string
}

var eventNames = []struct {
	bit  uint32
	name string
}{
	{unix.IN_MODIFY, "modify"}, {unix.IN_ATTRIB, "attrib"}, {unix.IN_CLOSE_WRITE, "close"},
	{unix.IN_MOVED_FROM, "from"}, {unix.IN_MOVED_TO, "to"}, {unix.IN_CREATE, "create"}, {unix.IN_DELETE, "delete"},
	{unix.IN_DELETE_SELF, "delete-self"}, {unix.IN_MOVE_SELF, "move-self"}, {unix.IN_ISDIR, "dir"},
}

func newWatch(t *testing.T, paths ...string) *watch {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	w := &watch{t, fd, map[int32]string{}}
	for _, path := range paths {
		var mask uint32
		for _, e := range eventNames {
			mask |= e.bit
		}
		wd, err := unix.InotifyAddWatch(fd, path, mask&^unix.IN_ISDIR)
		if err != nil {
			t.Fatal(err)
		}
		w.names[int32(wd)] = filepath.Base(path)
	}
	return w
}

// heard gives what has been raised, such as "create d/f"; "to" with another cookie than that of "from" is "enter".
func (w *watch) heard() []string {
	w.t.Helper()
	var heard []string
	var cookie uint32
	buf := make([]byte, 64<<10)
	for {
		poll := []unix.PollFd{{Fd: int32(w.fd), Events: unix.POLLIN}}
		if n, err := unix.Poll(poll, 50); err == nil && n == 0 {
			return heard
		}
		n, err := unix.Read(w.fd, buf)
		if err != nil {
			w.t.Fatal(err)
		}
		for b := buf[:n]; len(b) > 0; {
			mask, c := binary.NativeEndian.Uint32(b[4:]), binary.NativeEndian.Uint32(b[8:])
			end := 16 + binary.NativeEndian.Uint32(b[12:])
			var words []string
			for _, e := range eventNames {
				if mask&e.bit != 0 {
					words = append(words, e.name)
				}
			}
			if mask&unix.IN_MOVED_FROM != 0 {
				cookie = c
			} else if mask&unix.IN_MOVED_TO != 0 && c != cookie {
				words = []string{"enter"}
			}
			at := w.names[int32(binary.NativeEndian.Uint32(b))] + "/" + strings.TrimRight(string(b[16:end]), "\x00")
			if len(words) > 0 { // not of IN_IGNORED
				heard = append(heard, strings.Join(words, "+")+" "+strings.TrimRight(at, "/"))
			}
			b = b[end:]
		}
	}
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func write(path, text string) error { return os.WriteFile(path, []byte(text), 0o644) }

func changed(kind change.Kind, path string) change.Change {
	dir, name := filepath.Split(path)
	name, isDir := strings.CutSuffix(name, "|")
	return change.Change{Kind: kind, Dir: []byte(strings.Trim(dir, "/")), Name: []byte(name), IsDir: isDir}
}

func move(from, to string) change.Change {
	c, target := changed(change.Moved, from), changed(change.Moved, to)
	c.ToDir, c.ToName = target.Dir, target.Name
	return c
}

// TestEvents changes things on the host, tells of it, and looks at what a watcher hears and a reader sees.
func TestEvents(t *testing.T) {
	for _, c := range []struct {
		name  string
		known []string // to the guest, before
		host  func(d string) error
		tell  []change.Change
		heard []string
		left  string
	}{
		{
			"a file is made", nil,
			func(d string) error { return write(d+"/new", "new") },
			[]change.Change{changed(change.Created, "d/new"), changed(change.Modified, "d/new"), changed(change.Closed, "d/new")},
			[]string{"create d/new", "modify d/new", "close d/new"}, "f=old new=new",
		},
		{
			"an editor saves", []string{"f"},
			func(d string) error {
				return errorsOf(write(d+"/.f.tmp", "saved"), os.Rename(d+"/.f.tmp", d+"/f"))
			},
			[]change.Change{changed(change.Created, "d/.f.tmp"), changed(change.Modified, "d/.f.tmp"), changed(change.Closed, "d/.f.tmp"), move("d/.f.tmp", "d/f")},
			[]string{"create d/.f.tmp", "modify d/.f.tmp", "close d/.f.tmp", "from d/.f.tmp", "to d/f"}, "f=saved",
		},
		{
			"a known file is written", []string{"f"},
			func(d string) error { return write(d+"/f", "longer than before") },
			[]change.Change{changed(change.Modified, "d/f"), changed(change.Closed, "d/f")},
			[]string{"modify d/f", "close d/f"}, "f=longer than before",
		},
		{
			"a file gets another mode", nil,
			func(d string) error { return os.Chmod(d+"/f", 0o600) },
			[]change.Change{changed(change.Attrib, "d/f")}, []string{"attrib d/f"}, "f=old",
		},
		{
			"a file is removed, and made again", []string{"f"},
			func(d string) error { return errorsOf(os.Remove(d+"/f"), write(d+"/f", "again")) },
			[]change.Change{changed(change.Deleted, "d/f"), changed(change.Created, "d/f")}, []string{"delete d/f", "create d/f"}, "f=again",
		},
		{
			"a file nobody knew is removed", nil,
			func(d string) error { return os.Remove(d + "/f") },
			[]change.Change{changed(change.Deleted, "d/f")}, []string{"delete d/f"}, "",
		},
		{
			"directories come, move and go", nil,
			func(d string) error {
				return errorsOf(os.Mkdir(d+"/a", 0o755), os.Rename(d+"/a", d+"/b"), os.Remove(d+"/b"))
			},
			[]change.Change{changed(change.Created, "d/a|"), move("d/a|", "d/b|"), changed(change.Deleted, "d/b|")},
			[]string{"create+dir d/a", "from+dir d/a", "to+dir d/b", "delete+dir d/b"}, "f=old",
		},
		{
			"files leave and enter", []string{"f"},
			func(d string) error { return errorsOf(os.Remove(d+"/f"), write(d+"/g", "in")) },
			[]change.Change{changed(change.MovedOut, "d/f"), changed(change.MovedIn, "d/g")}, []string{"from d/f", "enter d/g"}, "g=in",
		},
		{
			"a symlink is made", nil,
			func(d string) error { return os.Symlink("f", d+"/l") },
			[]change.Change{changed(change.Created, "d/l"), changed(change.Attrib, "d/l")}, []string{"create d/l", "attrib d/l"}, "f=old l=old",
		},
		{
			"a name stands for another kind", []string{"f"},
			func(d string) error { return errorsOf(os.Remove(d+"/f"), os.Mkdir(d+"/f", 0o755)) },
			[]change.Change{changed(change.Created, "d/f|"), changed(change.Deleted, "d/f"), changed(change.Deleted, "d/none|")},
			[]string{"create+dir d/f", "delete d/f", "delete+dir d/none"}, "f=directory",
		},
		{
			"something happens where nobody looked", nil,
			func(string) error { return nil },
			[]change.Change{changed(change.Created, "unknown/f"), changed(change.Created, "d/f/x")}, nil, "f=old",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := stacked(t)
			lower, mount, play := s.lower, s.mount, s.play
			must(t, os.Mkdir(lower+"/d", 0o755), write(lower+"/d/f", "old"))
			for _, name := range c.known {
				_, err := os.ReadFile(mount + "/d/" + name)
				must(t, err)
			}
			w := newWatch(t, mount+"/d")
			must(t, c.host(lower+"/d"))
			play(c.tell...)
			if heard := w.heard(); !slices.Equal(heard, c.heard) {
				t.Errorf("heard %q, want %q", heard, c.heard)
			}
			if left := contents(t, mount+"/d"); left != c.left {
				t.Errorf("left: %s, want %s", left, c.left)
			}
		})
	}
}

func errorsOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func contents(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	var list []string
	for _, e := range entries {
		text := "directory"
		if !e.IsDir() {
			b, err := os.ReadFile(filepath.Join(dir, e.Name()))
			must(t, err)
			text = string(b)
		}
		list = append(list, e.Name()+"="+text)
	}
	return strings.Join(list, " ")
}

func TestWatchedFilesHearOfTheirEnd(t *testing.T) {
	s := stacked(t)
	lower, mount, play := s.lower, s.mount, s.play
	must(t, write(lower+"/gone", ""), write(lower+"/replaced", ""), write(lower+"/moved", ""), write(lower+"/new", ""))
	w := newWatch(t, mount+"/gone", mount+"/replaced", mount+"/moved")
	must(t, os.Remove(lower+"/gone"), os.Rename(lower+"/new", lower+"/replaced"), os.Rename(lower+"/moved", lower+"/x"))
	play(changed(change.Deleted, "gone"), move("new", "replaced"), move("moved", "x"))
	want := []string{"attrib gone", "delete-self gone", "attrib replaced", "delete-self replaced", "move-self moved"}
	if heard := w.heard(); !slices.Equal(heard, want) {
		t.Errorf("heard %q, want %q", heard, want)
	}
}

// TestEchoes tells of what the guest did itself, of which it has heard.
func TestEchoes(t *testing.T) {
	s := stacked(t)
	lower, mount, play := s.lower, s.mount, s.play
	_, err := os.ReadDir(mount)
	must(t, err)
	w := newWatch(t, mount)
	must(t,
		write(mount+"/a", "text"), os.Chmod(mount+"/a", 0o600), os.Rename(mount+"/a", mount+"/b"), os.Mkdir(mount+"/d", 0o755),
		os.Symlink("b", mount+"/s"), os.Link(mount+"/b", mount+"/l"), os.Remove(mount+"/l"), os.Remove(mount+"/d"),
	)
	if len(w.heard()) < 9 {
		t.Error("the guest's own events are missing")
	}
	echoes := []change.Change{
		changed(change.Created, "a"), changed(change.Modified, "a"), changed(change.Closed, "a"), changed(change.Attrib, "a"), move("a", "b"),
		changed(change.Created, "d|"), changed(change.Created, "s"), changed(change.Created, "l"), changed(change.Deleted, "l"), changed(change.Deleted, "d|"),
	}
	play(echoes...)
	if heard := w.heard(); len(heard) != 0 {
		t.Errorf("heard %q again", heard)
	}
	must(t, write(lower+"/b", "the host's"))
	play(changed(change.Modified, "b"), changed(change.Closed, "b"))
	if heard := w.heard(); !slices.Equal(heard, []string{"modify /b", "close /b"}) && len(heard) != 2 {
		t.Errorf("heard %q of a change on the host", heard)
	}
}

func TestFilesAreTheirMakers(t *testing.T) {
	s := stacked(t)
	lower, mount := s.lower, s.mount
	must(t, os.Chmod(mount, 0o777), os.Chmod(filepath.Dir(mount), 0o711))
	for number, create := range map[int]func(path string) error{
		1: func(path string) error { return write(path, "") },
		2: func(path string) error { return os.Mkdir(path, 0o755) },
		3: func(path string) error { return os.Symlink("x", path) },
		4: func(path string) error { return unix.Mkfifo(path, 0o644) },
	} {
		path := fmt.Sprintf("%s/%d", mount, number)
		done := make(chan error)
		go func() { // a thread of its own, which ends with it
			done <- as(1000+number, 2000+number, func() error { return create(path) })
		}()
		must(t, <-done)
		var st unix.Stat_t
		must(t, unix.Lstat(fmt.Sprintf("%s/%d", lower, number), &st))
		if int(st.Uid) != 1000+number || int(st.Gid) != 2000+number {
			t.Errorf("%d belongs to %d:%d", number, st.Uid, st.Gid)
		}
	}
	must(t, write(lower+"/secret", "x"), os.Chmod(lower+"/secret", 0o600))
	done := make(chan error)
	go func() {
		done <- as(1000, 1000, func() error { _, err := unix.Open(mount+"/secret", unix.O_RDONLY, 0); return err })
	}()
	if err := <-done; err != unix.EACCES {
		t.Errorf("another user's file: %v", err)
	}
}

func TestFilesAreTheSameFiles(t *testing.T) {
	s := stacked(t)
	lower, mount := s.lower, s.mount
	must(t, write(lower+"/a", "text"), os.Link(lower+"/a", lower+"/b"))
	var below, a, b unix.Stat_t
	must(t, unix.Stat(lower+"/a", &below), unix.Stat(mount+"/a", &a), unix.Stat(mount+"/b", &b))
	if a.Ino != below.Ino || b.Ino != below.Ino || a.Nlink != 2 {
		t.Errorf("inodes %d, %d and %d, %d links", below.Ino, a.Ino, b.Ino, a.Nlink)
	}
	fd, err := unix.Open(mount, unix.O_TMPFILE|unix.O_RDWR, 0o600)
	if err != unix.EOPNOTSUPP {
		t.Errorf("O_TMPFILE: %d, %v", fd, err)
	}
	// What is mapped, appended to and written at once is one file.
	f, err := os.OpenFile(mount+"/a", os.O_RDWR|os.O_APPEND, 0)
	must(t, err)
	defer f.Close()
	mapped, err := unix.Mmap(int(f.Fd()), 0, 4, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(t, err)
	copy(mapped, "TEXT")
	must(t, unix.Msync(mapped, unix.MS_SYNC), unix.Munmap(mapped))
	_, err = f.WriteString(" and more")
	must(t, err)
	got, err := os.ReadFile(lower + "/b")
	must(t, err)
	if string(got) != "TEXT and more" {
		t.Errorf("the host has %q", got)
	}
}

func TestForgottenFilesAreClosed(t *testing.T) {
	s := stacked(t)
	lower, mount, play := s.lower, s.mount, s.play
	for i := range 50 {
		must(t, write(fmt.Sprintf("%s/%d", lower, i), ""))
	}
	_, err := os.ReadDir(mount)
	must(t, err)
	descriptors := fmt.Sprintf("/proc/%d/fd", s.process.Pid)
	open := func() (n int) {
		entries, err := os.ReadDir(descriptors)
		must(t, err)
		for _, e := range entries {
			if path, _ := os.Readlink(descriptors + "/" + e.Name()); strings.HasPrefix(path, lower+"/") {
				n++
			}
		}
		return n
	}
	for i := range 50 {
		_, err := os.Stat(fmt.Sprintf("%s/%d", mount, i))
		must(t, err)
	}
	if open() < 50 {
		t.Errorf("%d files are open", open())
	}
	for i := range 50 {
		must(t, os.Remove(fmt.Sprintf("%s/%d", lower, i)))
		play(changed(change.Deleted, fmt.Sprint(i)))
	}
	deadline := time.Now().Add(5 * time.Second)
	for open() > 0 && time.Now().Before(deadline) {
		time.Sleep(10 * time.Millisecond) // FORGET has no answer
	}
	if n := open(); n > 0 {
		t.Errorf("%d removed files are still open", n)
	}
}

// as runs f with other ids and no capabilities, on a thread that ends with the goroutine.
func as(uid, gid int, f func() error) error {
	runtime.LockOSThread()
	for _, call := range []struct{ number, a, b, c uintptr }{
		{unix.SYS_SETGROUPS, 0, 0, 0},
		{unix.SYS_SETRESGID, uintptr(gid), uintptr(gid), uintptr(gid)},
		{unix.SYS_PRCTL, unix.PR_SET_SECUREBITS, 0, 0},
		{unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)},
	} {
		if _, _, errno := unix.RawSyscall(call.number, call.a, call.b, call.c); errno != 0 {
			return errno
		}
	}
	return f()
}
