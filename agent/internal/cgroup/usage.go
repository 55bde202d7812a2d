package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Usage is what a group's processes have used since it was made, and use now.
type Usage struct {
	CPUUsec uint64
	// MemoryBytes leaves out cache that can go at once, as Docker does; MemoryLimit is 0 for none.
	MemoryBytes, MemoryLimit uint64
	ReadBytes, WrittenBytes  uint64
	// Pids counts threads.
	Pids uint64
}

// Usage reads the group's counters; one that the kernel does not keep is 0.
func (g *Group) Usage() (Usage, error) {
	files := map[string][]byte{}
	for _, name := range []string{"cpu.stat", "memory.current", "memory.max", "memory.stat", "io.stat", "pids.current"} {
		b, err := os.ReadFile(filepath.Join(Mountpoint, g.name, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return Usage{}, fmt.Errorf("read the container's %s: %w", name, err)
		}
		files[name] = b
	}
	read, written := ioBytes(files["io.stat"])
	return Usage{
		CPUUsec:     count(files["cpu.stat"], "usage_usec"),
		MemoryBytes: memory(files["memory.current"], files["memory.stat"]),
		MemoryLimit: number(files["memory.max"]),
		ReadBytes:   read, WrittenBytes: written,
		Pids: number(files["pids.current"]),
	}, nil
}

func memory(current, stat []byte) uint64 {
	used, cache := number(current), count(stat, "inactive_file")
	return used - min(used, cache)
}

// number is 0 for "max", too.
func number(b []byte) uint64 {
	n, _ := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	return n
}

func count(b []byte, name string) uint64 { return uint64(max(0, field(b, name))) }

// ioBytes adds up the devices of an io.stat: "254:0 rbytes=4096 wbytes=0 rios=1 …".
func ioBytes(b []byte) (read, written uint64) {
	for _, word := range strings.Fields(string(b)) {
		key, value, _ := strings.Cut(word, "=")
		n, _ := strconv.ParseUint(value, 10, 64)
		switch key {
		case "rbytes":
			read += n
		case "wbytes":
			written += n
		}
	}
	return read, written
}

// Has tells whether a process is in the group, or in one below it.
func (g *Group) Has(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return false
	}
	below, ok := strings.CutPrefix(strings.TrimSuffix(string(b), "\n"), "0::/"+g.name)
	return ok && (below == "" || below[0] == '/')
}
