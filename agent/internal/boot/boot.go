// Package boot makes a bare kernel a place where the rest of the agent can work.
package boot

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

type mount struct {
	source, target, fsType string
	flags                  uintptr
	data                   string
}

const quiet = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

var mounts = []mount{
	{"proc", "/proc", "proc", quiet, ""},
	{"sysfs", "/sys", "sysfs", quiet, ""},
	{"devtmpfs", "/dev", "devtmpfs", unix.MS_NOSUID | unix.MS_NOEXEC, "mode=0755"},
	{"tmpfs", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755"},
	{"cgroup2", "/sys/fs/cgroup", "cgroup2", quiet, ""},
}

// Root is the initramfs as the kernel mounted it, writable, kept to remove what is no longer needed.
type Root struct{ fd int }

// Mounts moves the root off the kernel's own root mount, which pivot_root cannot work with, makes it read-only, and
// mounts what every Linux program expects.
func Mounts() (*Root, error) {
	unix.Umask(0o022)
	for _, dir := range []string{"/proc", "/sys", "/dev", "/run"} {
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, fmt.Errorf("make mount point: %w", err)
		}
	}
	fd, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /: %w", err)
	}
	if err := moveRoot(); err != nil {
		return nil, err
	}
	for _, m := range mounts {
		if err := unix.Mount(m.source, m.target, m.fsType, m.flags, m.data); err != nil && !errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	return &Root{fd}, nil
}

func moveRoot() error {
	const spare = "/run"
	if err := unix.Mount("/", spare, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind /: %w", err)
	}
	if err := unix.Mount("", spare, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_NODEV|unix.MS_NOSUID, ""); err != nil {
		return fmt.Errorf("make the root read-only: %w", err)
	}
	if err := unix.Chdir(spare); err != nil {
		return fmt.Errorf("enter the new root: %w", err)
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("chroot: %w", err)
	}
	return unix.Chdir("/")
}

// Option gives the last value of NAME=value on the kernel's command line.
func Option(name string) string {
	b, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return ""
	}
	return option(string(b), name)
}

func option(cmdline, name string) (value string) {
	for _, word := range strings.Fields(cmdline) {
		if key, v, ok := strings.Cut(word, "="); ok && key == name {
			value = v
		}
	}
	return value
}

// PowerOff ends the VM; it does not return.
func PowerOff() {
	unix.Sync()
	how := unix.LINUX_REBOOT_CMD_POWER_OFF
	if _, err := os.Stat("/sys/firmware/acpi"); err != nil {
		if _, err := os.Stat("/sys/firmware/devicetree"); err != nil {
			// Nothing here can switch the power off; the host takes a reset for an end.
			how = unix.LINUX_REBOOT_CMD_RESTART
		}
	}
	_ = unix.Reboot(how)
	os.Exit(1)
}
