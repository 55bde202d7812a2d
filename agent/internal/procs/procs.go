// Package procs reads what the kernel tells of processes.
package procs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// ticks is USER_HZ, the same on every architecture we have.
	ticks           = 100
	maxCommandBytes = 512
)

// Process is one process, with its ids as they are in its own PID namespace.
type Process struct {
	// PID and Parent are first those of the reader's namespace.
	PID, Parent, Group, Session uint32
	UID                         uint32
	CPUMillis, AgeMillis        uint64
	Terminal                    uint32
	State                       string
	Nice                        int32
	Threads                     uint32
	VirtualBytes, ResidentBytes uint64
	Name, Command               string
}

// List gives the first limit processes for which wanted is true, by PID, and how many more there are.
func List(wanted func(pid int) bool, limit int) ([]Process, int, error) {
	names, err := filepath.Glob("/proc/[1-9]*")
	if err != nil {
		return nil, 0, fmt.Errorf("read /proc: %w", err)
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return nil, 0, fmt.Errorf("clock_gettime: %w", err)
	}
	var list []Process
	more := 0
	// Those of the reader's namespace, to find parents by.
	inside := map[uint32]uint32{}
	for _, dir := range names {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || !wanted(pid) {
			continue
		}
		if len(list) == limit {
			more++
			continue
		}
		p, err := read(dir, uint64(now.Nano())/1e6)
		if err != nil { // it has ended meanwhile
			continue
		}
		inside[uint32(pid)] = p.PID
		list = append(list, p)
	}
	for i := range list {
		list[i].Parent = inside[list[i].Parent]
	}
	slices.SortFunc(list, func(a, b Process) int { return int(a.PID) - int(b.PID) })
	return list, more, nil
}

func read(dir string, nowMillis uint64) (Process, error) {
	var files [3][]byte
	for i, name := range []string{"stat", "status", "cmdline"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return Process{}, err
		}
		files[i] = b
	}
	p, err := parseStat(files[0], nowMillis)
	if err != nil {
		return p, err
	}
	parseStatus(files[1], &p)
	p.Command = command(files[2], p.Name)
	return p, nil
}

// parseStat reads the fields of proc_pid_stat(5), of which the second may hold anything.
func parseStat(b []byte, nowMillis uint64) (Process, error) {
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || end < open {
		return Process{}, errors.New("a process's stat has no name")
	}
	f := strings.Fields(string(b[end+1:]))
	if len(f) < 22 {
		return Process{}, errors.New("a process's stat is short")
	}
	// The manual counts from 1, and the state is the third.
	n := func(field int) uint64 {
		v, _ := strconv.ParseUint(f[field-3], 10, 64)
		return v
	}
	nice, _ := strconv.ParseInt(f[19-3], 10, 32)
	started := n(22) * 1000 / ticks
	return Process{
		State: f[0], Parent: uint32(n(4)), Terminal: uint32(n(7)),
		CPUMillis: (n(14) + n(15)) * 1000 / ticks, AgeMillis: nowMillis - min(started, nowMillis),
		Nice: int32(nice), Threads: uint32(n(20)),
		VirtualBytes: n(23), ResidentBytes: n(24) * uint64(os.Getpagesize()),
		Name: strings.ToValidUTF8(string(b[open+1:end]), "\uFFFD"),
	}, nil
}

// parseStatus takes the ids of the innermost namespace from a /proc/PID/status.
func parseStatus(b []byte, p *Process) {
	for line := range strings.Lines(string(b)) {
		key, rest, _ := strings.Cut(line, ":")
		values := strings.Fields(rest)
		if len(values) == 0 {
			continue
		}
		number := func(text string) uint32 {
			v, _ := strconv.ParseUint(text, 10, 32)
			return uint32(v)
		}
		last := number(values[len(values)-1])
		switch key {
		case "Uid": // real, effective, …
			p.UID = number(values[min(1, len(values)-1)])
		case "NSpid":
			p.PID = last
		case "NSpgid":
			p.Group = last
		case "NSsid":
			p.Session = last
		}
	}
}

// command is a command line with spaces; a process without one has its name in brackets, as ps shows it.
func command(cmdline []byte, name string) string {
	cmdline = bytes.TrimRight(cmdline, "\x00")
	if len(cmdline) == 0 {
		return "[" + name + "]"
	}
	text := string(bytes.ReplaceAll(cmdline[:min(len(cmdline), maxCommandBytes)], []byte{0}, []byte{' '}))
	return strings.ToValidUTF8(text, "\uFFFD")
}
