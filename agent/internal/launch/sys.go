package launch

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

func syscall3(nr, a, b, c uintptr) error {
	if _, _, errno := unix.RawSyscall(nr, a, b, c); errno != 0 {
		return errno
	}
	return nil
}

// pointer is the address of a slice's first element, for a call that ends before the slice can move.
func pointer(list []uint32) uintptr {
	if len(list) == 0 {
		return 0
	}
	return uintptr(unsafe.Pointer(&list[0]))
}
