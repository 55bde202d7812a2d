package procs

import (
	"os"
	"strings"
	"testing"
)

func TestStat(t *testing.T) {
	line := "42 (a) b) S 7 42 42 34816 42 4194304 1 0 0 0 150 50 9 9 20 -5 3 0 1000 8192 2 18446744073709551615 1 1 0"
	p, err := parseStat([]byte(line), 12_000)
	want := Process{
		Parent: 7, CPUMillis: 2000, AgeMillis: 2000, Terminal: 34816, State: "S", Nice: -5, Threads: 3,
		VirtualBytes: 8192, ResidentBytes: 2 * uint64(os.Getpagesize()), Name: "a) b",
	}
	if err != nil || p != want {
		t.Errorf("%+v, %v", p, err)
	}
	// One that was started since the clock was read.
	if p, _ := parseStat([]byte(line), 9_000); p.AgeMillis != 0 {
		t.Error(p.AgeMillis)
	}
	for _, bad := range []string{"", "1 x", ")(", "1 (x) S 1"} {
		if _, err := parseStat([]byte(bad), 0); err == nil {
			t.Errorf("%q", bad)
		}
	}
}

func TestStatus(t *testing.T) {
	var p Process
	parseStatus([]byte("Name:\tx\nUid:\t5\t6\t7\t8\nNSpid:\t90\t12\nNSpgid:\t90\t11\nNSsid:\t90\t10\nGroups:\t\n"), &p)
	if (p != Process{UID: 6, PID: 12, Group: 11, Session: 10}) {
		t.Errorf("%+v", p)
	}
}

func TestCommand(t *testing.T) {
	for _, c := range []struct{ cmdline, want string }{
		{"sh\x00-c\x00echo  x\x00", "sh -c echo  x"},
		{"", "[name]"},
		{"\x00\x00", "[name]"},
		{"\xff", "\uFFFD"},
		{strings.Repeat("x", 600), strings.Repeat("x", maxCommandBytes)},
	} {
		if got := command([]byte(c.cmdline), "name"); got != c.want {
			t.Errorf("%q: %q", c.cmdline, got)
		}
	}
}

func TestListFindsOurselves(t *testing.T) {
	us := func(pid int) bool { return pid == os.Getpid() || pid == os.Getppid() }
	list, more, err := List(us, 10)
	if err != nil || more != 0 || len(list) != 2 {
		t.Fatal(list, more, err)
	}
	for _, p := range list {
		if int(p.UID) != os.Geteuid() || p.Command == "" || p.VirtualBytes == 0 {
			t.Errorf("%+v", p)
		}
		if int(p.PID) == os.Getpid() && int(p.Parent) != os.Getppid() {
			t.Errorf("%+v", p)
		}
	}
	if list, more, _ := List(us, 1); len(list) != 1 || more != 1 {
		t.Error(list, more)
	}
}
