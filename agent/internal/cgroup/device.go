package cgroup

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"woodlot.dev/agent/internal/klog"
)

// insn is struct bpf_insn (linux/bpf.h); regs holds the source register in its high half.
type insn struct {
	code uint8
	regs uint8
	off  int16
	imm  int32
}

// Instruction codes used below.
const (
	opLdxW   = unix.BPF_LDX | unix.BPF_MEM | unix.BPF_W
	opMovImm = 0xb7
	opMovReg = 0xbf
	opAndImm = 0x57
	opRshImm = 0x77
	opJeqImm = 0x15
	opJneImm = 0x55
	opExit   = 0x95
)

// Values of struct bpf_cgroup_dev_ctx.
const (
	devBlock   = 1
	devChar    = 2
	accMknod   = 1
	progDevice = 15 // BPF_PROG_TYPE_CGROUP_DEVICE
	attachDev  = 6  // BPF_CGROUP_DEVICE
	anyMinor   = -1
)

// loadAttempts bounds how often a program is given to the verifier anew.
const loadAttempts = 100

// deviceProgram lets a container make any device node and use those of Docker's default list.
func deviceProgram() []insn {
	// r2 = type, r3 = access, r4 = major, r5 = minor
	p := []insn{
		{opLdxW, 2 | 1<<4, 0, 0},
		{opMovReg, 3 | 2<<4, 0, 0},
		{opAndImm, 2, 0, 0xffff},
		{opRshImm, 3, 0, 16},
		{opLdxW, 4 | 1<<4, 4, 0},
		{opLdxW, 5 | 1<<4, 8, 0},
		// mknod alone is allowed
		{opJneImm, 3, 2, accMknod},
		{opMovImm, 0, 0, 1},
		{opExit, 0, 0, 0},
		// the rest are character devices
		{opJeqImm, 2, 2, devChar},
		{opMovImm, 0, 0, 0},
		{opExit, 0, 0, 0},
	}
	for _, d := range [][2]int32{
		{1, 3}, {1, 5}, {1, 7}, {1, 8}, {1, 9}, // null zero full random urandom
		{5, 0}, {5, 1}, {5, 2}, // tty console ptmx
		{136, anyMinor}, // pts
	} {
		skip := int16(2)
		if d[1] != anyMinor {
			skip = 3
		}
		p = append(p, insn{opJneImm, 4, skip, d[0]})
		if d[1] != anyMinor {
			p = append(p, insn{opJneImm, 5, 2, d[1]})
		}
		p = append(p, insn{opMovImm, 0, 0, 1}, insn{opExit, 0, 0, 0})
	}
	return append(p, insn{opMovImm, 0, 0, 0}, insn{opExit, 0, 0, 0})
}

// denyDevices attaches the program; a kernel without CONFIG_CGROUP_BPF goes without, and says so in the log.
func denyDevices(cgroupFd int) error {
	program := deviceProgram()
	license := []byte("GPL\x00")
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&program[0])
	pin.Pin(&license[0])
	load := struct {
		progType, insnCnt uint32
		insns, license    uint64
		logLevel, logSize uint32
		logBuf            uint64
		kernVersion       uint32
		progFlags         uint32
		name              [16]byte
		ifindex           uint32
		expectedAttach    uint32
	}{
		progType: progDevice, insnCnt: uint32(len(program)),
		insns:   uint64(uintptr(unsafe.Pointer(&program[0]))),
		license: uint64(uintptr(unsafe.Pointer(&license[0]))),
	}
	var fd uintptr
	errno := unix.EAGAIN
	// The verifier gives up when a signal is pending, and the Go runtime sends itself many.
	for range loadAttempts {
		fd, _, errno = unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&load)), unsafe.Sizeof(load))
		if !errors.Is(errno, unix.EAGAIN) {
			break
		}
	}
	if errno != 0 {
		if errors.Is(errno, unix.ENOSYS) || errors.Is(errno, unix.EINVAL) {
			klog.Warnf("no device rules for the container: bpf: %v", errno)
			return nil
		}
		return fmt.Errorf("load the device rules: %w", errno)
	}
	defer func() { _ = unix.Close(int(fd)) }()
	attach := struct{ targetFd, progFd, attachType, flags uint32 }{uint32(cgroupFd), uint32(fd), attachDev, 0}
	_, _, errno = unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_ATTACH, uintptr(unsafe.Pointer(&attach)), unsafe.Sizeof(attach))
	if errno == 0 {
		return nil
	}
	if errors.Is(errno, unix.EINVAL) {
		klog.Warnf("no device rules for the container: attach: %v", errno)
		return nil
	}
	return fmt.Errorf("attach the device rules: %w", errno)
}
