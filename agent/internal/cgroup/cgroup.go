// Package cgroup places the agent and the container in the unified hierarchy.
package cgroup

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"woodlot.dev/agent/internal/fail"
	"woodlot.dev/agent/internal/klog"
)

// Mountpoint is where boot mounts the hierarchy.
const Mountpoint = "/sys/fs/cgroup"

const (
	agentMemoryMin = "50331648"
	cpuPeriodUs    = 100_000
)

// SetupAgent moves the calling process to a group of its own, with memory that no container can press out of it, and
// hands all controllers the kernel has to the groups below the root.
func SetupAgent() error {
	for _, c := range []string{"cpu", "memory", "pids", "io", "cpuset"} {
		// One by one: a kernel may lack any.
		_ = write("cgroup.subtree_control", "+"+c)
	}
	if err := os.Mkdir(filepath.Join(Mountpoint, "agent"), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make the agent's cgroup: %w", err)
	}
	_ = write("agent/memory.min", agentMemoryMin)
	if err := write("agent/cgroup.procs", strconv.Itoa(os.Getpid())); err != nil {
		return err
	}
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0); err != nil {
		return fmt.Errorf("protect the agent from the memory killer: %w", err)
	}
	return nil
}

func write(name, value string) error {
	f, err := os.OpenFile(filepath.Join(Mountpoint, name), os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("open cgroup file: %w", err)
	}
	defer f.Close()
	if _, err := f.WriteString(value); err != nil {
		return fmt.Errorf("write %q to cgroup file %s: %w", value, name, err)
	}
	return nil
}

// Limits bound a container; zero is no limit.
type Limits struct {
	CPUMillis   uint32
	MemoryBytes int64
	Pids        int64
}

// Group is the container's cgroup.
type Group struct {
	name string
	dir  *os.File

	freezing sync.Mutex
	freezers int
}

// New makes the container's group, without limits; after a failure it is gone again.
func New(name string) (_ *Group, err error) {
	path := filepath.Join(Mountpoint, name)
	if err := os.Mkdir(path, 0o755); err != nil {
		return nil, fmt.Errorf("make the container's cgroup: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(path))
		}
	}()
	dir, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open the container's cgroup: %w", err)
	}
	if err := denyDevices(int(dir.Fd())); err != nil {
		_ = dir.Close()
		return nil, err
	}
	return &Group{name: name, dir: dir}, nil
}

// Limit bounds the group.
func (g *Group) Limit(limits Limits) error {
	for _, l := range []struct {
		wanted      bool
		file, value string
	}{
		{limits.CPUMillis > 0, "cpu.max", fmt.Sprintf("%d %d", uint64(limits.CPUMillis)*cpuPeriodUs/1000, cpuPeriodUs)},
		{limits.MemoryBytes > 0, "memory.max", strconv.FormatInt(limits.MemoryBytes, 10)},
		{limits.Pids > 0, "pids.max", strconv.FormatInt(limits.Pids, 10)},
	} {
		if !l.wanted {
			continue
		}
		if err := write(filepath.Join(g.name, l.file), l.value); err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return fail.Wrap(fail.Unsupported, "the guest kernel cannot limit "+l.file, err)
			}
			return fail.Wrap(fail.InvalidArgument, "limit", err)
		}
	}
	if limits.MemoryBytes > 0 {
		_ = write(filepath.Join(g.name, "memory.swap.max"), "0")
	}
	return nil
}

// Relimit bounds the group while it is used.
func (g *Group) Relimit(limits Limits) error {
	if limits.MemoryBytes > 0 {
		b, err := os.ReadFile(filepath.Join(Mountpoint, g.name, "memory.stat"))
		if err != nil {
			return fmt.Errorf("read the container's memory.stat: %w", err)
		}
		// Cache goes; for the rest the kernel would kill.
		if used := field(b, "anon") + field(b, "shmem"); used > limits.MemoryBytes {
			return fail.New(fail.FailedPrecondition, fmt.Sprintf("its processes use %d MiB", (used+1<<20-1)>>20))
		}
	}
	return g.Limit(limits)
}

// Fd is a descriptor of the group's directory, for CLONE_INTO_CGROUP.
func (g *Group) Fd() int { return int(g.dir.Fd()) }

// OOMKills counts the processes that the memory killer took from the group.
func (g *Group) OOMKills() int64 {
	b, err := os.ReadFile(filepath.Join(Mountpoint, g.name, "memory.events"))
	if err != nil {
		return 0
	}
	return field(b, "oom_kill")
}

func field(b []byte, name string) int64 {
	lines := bufio.NewScanner(bytes.NewReader(b))
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), " ")
		if key == name {
			n, _ := strconv.ParseInt(value, 10, 64)
			return n
		}
	}
	return 0
}

// Freeze lets the group's processes stand still until thaw is called, and returns once they do. Several may want that at
// once; the last thaw counts. Those that are killed meanwhile end.
func (g *Group) Freeze(ctx context.Context) (thaw func(), err error) {
	g.freezing.Lock()
	defer g.freezing.Unlock()
	if g.freezers == 0 {
		if err := write(filepath.Join(g.name, "cgroup.freeze"), "1"); err != nil {
			return nil, err
		}
	}
	g.freezers++
	thaw = sync.OnceFunc(func() {
		g.freezing.Lock()
		defer g.freezing.Unlock()
		g.thaw()
	})
	if err := g.await(ctx, "frozen", 1); err != nil {
		g.thaw()
		return nil, fail.Context("let the container's processes stand still", err)
	}
	return thaw, nil
}

func (g *Group) thaw() {
	if g.freezers--; g.freezers > 0 {
		return
	}
	if err := write(filepath.Join(g.name, "cgroup.freeze"), "0"); err != nil {
		klog.Warnf("%v", err)
	}
}

// Kill ends every process of the group and returns once it is empty.
func (g *Group) Kill(ctx context.Context) error {
	if err := write(filepath.Join(g.name, "cgroup.kill"), "1"); err != nil {
		if err := g.killOneByOne(); err != nil { // before Linux 5.14
			return err
		}
	}
	return fail.Context("wait for the container's processes to end", g.await(ctx, "populated", 0))
}

func (g *Group) killOneByOne() error {
	b, err := os.ReadFile(filepath.Join(Mountpoint, g.name, "cgroup.procs"))
	if err != nil {
		return fmt.Errorf("read the container's processes: %w", err)
	}
	for _, s := range strings.Fields(string(b)) {
		if pid, err := strconv.Atoi(s); err == nil && pid > 1 {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
	return nil
}

// await returns when a field of cgroup.events, whose changes the kernel flags (POLLPRI), has a value.
func (g *Group) await(ctx context.Context, name string, value int64) error {
	f, err := os.Open(filepath.Join(Mountpoint, g.name, "cgroup.events"))
	if err != nil {
		return fmt.Errorf("open cgroup.events: %w", err)
	}
	defer f.Close()
	buf := make([]byte, 256)
	for {
		n, err := f.ReadAt(buf, 0)
		if n == 0 && err != nil {
			return fmt.Errorf("read cgroup.events: %w", err)
		}
		if field(buf[:n], name) == value {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		fds := []unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLPRI}}
		if _, err := unix.Poll(fds, 100); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("poll cgroup.events: %w", err)
		}
	}
}

// Remove deletes the empty group.
func (g *Group) Remove() error {
	_ = g.dir.Close()
	if err := os.Remove(filepath.Join(Mountpoint, g.name)); err != nil {
		return fmt.Errorf("remove the container's cgroup: %w", err)
	}
	return nil
}
