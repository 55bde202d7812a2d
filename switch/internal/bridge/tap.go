package bridge

import (
	"os"

	"golang.org/x/sys/unix"

	"woodlot.dev/switch/internal/wire"
)

const (
	tunDevice = "/dev/net/tun"
	// maxPacket is the longest that IP knows.
	maxPacket = 64 << 10
)

// openTap makes a tap that is there for as long as somebody has it open. Frames on it are led by a virtio header.
func openTap(name string) (int, error) {
	fd, err := unix.Open(tunDevice, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: tunDevice, Err: err}
	}
	request, err := unix.NewIfreq(name)
	if err == nil {
		request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		err = os.NewSyscallError("TUNSETIFF", unix.IoctlIfreq(fd, unix.TUNSETIFF, request))
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// acceptLarge tells the kernel that who reads a tap takes frames without checksums and longer than the MTU.
func acceptLarge(fd int) error {
	if err := unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, wire.OffloadLen); err != nil {
		return os.NewSyscallError("TUNSETVNETHDRSZ", err)
	}
	return os.NewSyscallError("TUNSETOFFLOAD", unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, unix.TUN_F_CSUM|unix.TUN_F_TSO4|unix.TUN_F_TSO6))
}
