// Package identity gives the guest what a clone of a saved state must not share with its twins: time and entropy;
// and the kernel settings it runs with.
package identity

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"woodlot.dev/agent/internal/fail"
	"woodlot.dev/agent/internal/klog"
	"woodlot.dev/agent/internal/launchspec"
)

const maxEntropy = 4096

// SetClock sets the wall clock.
func SetClock(unixNanos int64) error {
	t := time.Unix(0, unixNanos)
	ts, err := unix.TimeToTimespec(t)
	if err == nil {
		err = unix.ClockSettime(unix.CLOCK_REALTIME, &ts)
	}
	if err != nil {
		return fail.Wrap(fail.InvalidArgument, "set the clock to "+t.UTC().Format(time.RFC3339), err)
	}
	return nil
}

// AddEntropy credits seed to the kernel's pool and makes its generator take a new key from it.
func AddEntropy(seed []byte) error {
	if len(seed) > maxEntropy {
		return fail.New(fail.InvalidArgument, fmt.Sprintf("entropy has %d bytes, limit %d", len(seed), maxEntropy))
	}
	f, err := os.OpenFile("/dev/urandom", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("open the random device: %w", err)
	}
	defer f.Close()
	// struct rand_pool_info: bits to credit, bytes, then the bytes.
	info := make([]byte, 8+len(seed))
	binary.NativeEndian.PutUint32(info, uint32(8*len(seed)))
	binary.NativeEndian.PutUint32(info[4:], uint32(len(seed)))
	copy(info[8:], seed)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.RNDADDENTROPY, uintptr(unsafe.Pointer(&info[0]))); errno != 0 {
		return fmt.Errorf("RNDADDENTROPY: %w", errno)
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.RNDRESEEDCRNG, 0); errno != 0 {
		return fmt.Errorf("RNDRESEEDCRNG: %w", errno)
	}
	return dropAhead()
}

// hwrngAhead is more than drivers of hardware generators and the kernel read ahead of who asks.
const hwrngAhead = 256

// dropAhead reads away what the kernel has ready from a hardware generator: clones of a saved state have the same.
func dropAhead() error {
	f, err := os.OpenFile("/dev/hwrng", os.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open the hardware generator: %w", err)
	}
	defer f.Close()
	if _, err := io.ReadFull(f, make([]byte, hwrngAhead)); err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("read the hardware generator: %w", err)
	}
	return nil
}

// defaults are what programs expect that were made for Docker.
var defaults = [][2]string{
	{"vm.overcommit_memory", "1"},
	{"vm.max_map_count", "262144"},
	{"net.ipv4.ping_group_range", "0 2147483647"},
	{"net.ipv4.ip_unprivileged_port_start", "0"},
}

// ApplySysctls writes the defaults, then settings. Those of an IPC namespace, which the container will have its own of,
// are checked and given back instead.
func ApplySysctls(settings map[string]string) ([]launchspec.KV, error) {
	for _, d := range defaults {
		if _, given := settings[d[0]]; given {
			continue
		}
		if err := writeSysctl(strings.ReplaceAll(d[0], ".", "/"), d[1]); err != nil {
			klog.Warnf("default setting: %v", err)
		}
	}
	var ipc []launchspec.KV
	names := make([]string, 0, len(settings))
	for name := range settings {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		p, err := sysctlPath(name)
		if err != nil {
			return nil, err
		}
		if ofIPC(p) {
			ipc = append(ipc, launchspec.KV{Key: p, Value: settings[name]})
			continue
		}
		if err := writeSysctl(p, settings[name]); err != nil {
			return nil, err
		}
	}
	return ipc, nil
}

func ofIPC(p string) bool {
	for _, prefix := range []string{"kernel/shm", "kernel/msg", "kernel/sem", "fs/mqueue/"} {
		if strings.HasPrefix(p, prefix) {
			return true
		}
	}
	return false
}

// sysctlPath gives the path below /proc/sys, by the rule of sysctl(8): if the first separator is a dot, dots separate
// and slashes stand for dots.
func sysctlPath(name string) (string, error) {
	p := name
	if i := strings.IndexAny(name, "./"); i >= 0 && name[i] == '.' {
		p = strings.Map(func(r rune) rune {
			switch r {
			case '.':
				return '/'
			case '/':
				return '.'
			}
			return r
		}, name)
	}
	bad := p == "" || path.Clean(p) != p || path.IsAbs(p) || strings.ContainsAny(p, "\x00\n")
	for _, c := range strings.Split(p, "/") {
		bad = bad || c == "" || c == "." || c == ".."
	}
	if bad {
		return "", fail.New(fail.InvalidArgument, fmt.Sprintf("%q is no kernel setting", name))
	}
	return p, nil
}

func writeSysctl(p, value string) error {
	f, err := os.OpenFile(path.Join("/proc/sys", p), os.O_WRONLY, 0)
	if err == nil {
		defer f.Close()
		_, err = f.WriteString(value)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fail.New(fail.InvalidArgument, fmt.Sprintf("the guest kernel has no setting %s", strings.ReplaceAll(p, "/", ".")))
	case err != nil:
		return fail.Wrap(fail.InvalidArgument, "kernel setting", err)
	}
	return nil
}
