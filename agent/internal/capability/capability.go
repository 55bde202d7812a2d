// Package capability names Linux capabilities (linux/capability.h) and sets those of the calling thread.
package capability

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"woodlot.dev/agent/internal/fail"
)

var names = [...]string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL",
	"CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE",
	"CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE",
	"CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT",
	"CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE",
	"CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG",
	"CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
}

// Set is a set of capabilities, one bit each.
type Set uint64

// Kill lets a process signal those of other users.
const Kill Set = 1 << unix.CAP_KILL

// Parse turns names with CAP_ into a set.
func Parse(list []string) (Set, error) {
	var set Set
next:
	for _, name := range list {
		for bit, known := range names {
			if name == known {
				set |= 1 << bit
				continue next
			}
		}
		return 0, fail.New(fail.InvalidArgument, "unknown capability "+quote(name))
	}
	return set, nil
}

// Bit is the bit of a name, false for an unknown one.
func Bit(name string) (uint, bool) {
	for bit, known := range names {
		if name == known {
			return uint(bit), true
		}
	}
	return 0, false
}

// quote keeps a peer's text short and on one line.
func quote(s string) string {
	if len(s) > 64 {
		s = s[:64] + "…"
	}
	return `"` + s + `"`
}

// DropBounding takes every capability outside keep out of the calling thread's bounding set.
func DropBounding(keep Set) error {
	for c := uintptr(0); c < 64; c++ {
		if keep&(1<<c) != 0 {
			continue
		}
		err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		if err == unix.EINVAL { // past the kernel's last capability
			return nil
		}
		if err != nil {
			return fail.Wrap(fail.Internal, "drop a capability from the bounding set", err)
		}
	}
	return nil
}

// Apply makes set the calling thread's effective and permitted sets, and empties the inheritable and ambient ones.
// Capabilities that the kernel does not know, or that the thread lacks, are left out.
func Apply(set Set) error {
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fail.Wrap(fail.Internal, "clear the ambient capabilities", err)
	}
	have, err := Permitted()
	if err != nil {
		return err
	}
	set &= have
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{
		{Effective: uint32(set), Permitted: uint32(set)},
		{Effective: uint32(set >> 32), Permitted: uint32(set >> 32)},
	}
	_, _, errno := unix.RawSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&hdr)), uintptr(unsafe.Pointer(&data[0])), 0)
	if errno != 0 {
		return fail.Wrap(fail.Internal, "capset", errno)
	}
	return nil
}

// Permitted is the calling thread's permitted set.
func Permitted() (Set, error) {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	_, _, errno := unix.RawSyscall(unix.SYS_CAPGET, uintptr(unsafe.Pointer(&hdr)), uintptr(unsafe.Pointer(&data[0])), 0)
	if errno != 0 {
		return 0, fail.Wrap(fail.Internal, "capget", errno)
	}
	return Set(data[0].Permitted) | Set(data[1].Permitted)<<32, nil
}
