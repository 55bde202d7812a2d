package seccomp

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"woodlot.dev/agent/internal/fail"
)

// Offsets in struct seccomp_data (linux/seccomp.h), for a little-endian machine.
const (
	offNr   = 0
	offArch = 4
	offArgs = 16
)

const (
	retAllow = unix.SECCOMP_RET_ALLOW
	retErrno = unix.SECCOMP_RET_ERRNO
	x32Bit   = 0x40000000
)

func ld(off uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: off}
}
func ret(v uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: v} }
func ja(n int) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JA, K: uint32(n)}
}

func jump(op uint16, k uint32, jt, jf uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | op | unix.BPF_K, Jt: jt, Jf: jf, K: k}
}

// branch gives "if A op k then yes else no", with a long jump where yes is too far.
func branch(op uint16, k uint32, yes, no []unix.SockFilter) []unix.SockFilter {
	var out []unix.SockFilter
	if len(no) <= 255 {
		out = append(out, jump(op, k, uint8(len(no)), 0))
	} else {
		out = append(out, jump(op, k, 0, 1), ja(len(no)+0))
		// jt falls on the long jump, jf skips it.
	}
	out = append(out, no...)
	return append(out, yes...)
}

// action is what happens to one system call number: a return value, or conditions that lead to allow.
type action struct {
	ret uint32
	any []Cond
}

func (a action) same(b action) bool { return a.ret == b.ret && len(a.any) == 0 && len(b.any) == 0 }

// Compile gives the filter of one machine's ABIs for a bounding set. Numbers no rule speaks of fail with EPERM; those
// newer than all that the profile names fail with ENOSYS, so that programs fall back (as runc does it).
func Compile(abis []ABI, caps uint64) []unix.SockFilter {
	out := []unix.SockFilter{ld(offArch)}
	var tail []unix.SockFilter
	tail = append(tail, ret(unix.SECCOMP_RET_KILL_PROCESS))
	// Last first: each ABI's block becomes "if arch == X: block else: what follows".
	for i := len(abis) - 1; i >= 0; i-- {
		a := &abis[i]
		if a.Offset == x32Bit {
			continue // joined to x86-64, which has the same audit number
		}
		block := compileABI(a, caps)
		if i+1 < len(abis) && abis[i+1].Offset == x32Bit {
			block = branch(unix.BPF_JGE, x32Bit, compileABI(&abis[i+1], caps), block)
		}
		block = append([]unix.SockFilter{ld(offNr)}, block...)
		tail = branch(unix.BPF_JEQ, a.Audit, block, tail)
	}
	return append(out, tail...)
}

func compileABI(a *ABI, caps uint64) []unix.SockFilter {
	last := 0
	for i := range a.Rules {
		r := &a.Rules[i]
		if r.applies(caps) {
			last = max(last, int(r.Ranges[len(r.Ranges)-1]))
		}
	}
	actions := make([]action, last+2)
	for i := range actions {
		actions[i].ret = retErrno | uint32(unix.EPERM)
	}
	actions[last+1].ret = retErrno | uint32(unix.ENOSYS)
	for i := range a.Rules {
		r := &a.Rules[i]
		if !r.applies(caps) {
			continue
		}
		for j := 0; j < len(r.Ranges); j += 2 {
			for nr := r.Ranges[j]; nr <= r.Ranges[j+1]; nr++ {
				act := &actions[nr]
				switch {
				case r.Errno != 0:
					act.ret, act.any = retErrno|uint32(r.Errno), nil
				case act.ret == retAllow: // an unconditional rule stands already
				case len(r.Any) != 0:
					act.any = append(act.any[:len(act.any):len(act.any)], r.Any...)
				default:
					act.ret, act.any = retAllow, nil
				}
			}
		}
	}
	var spans []span
	for nr, act := range actions {
		if n := len(spans); n == 0 || !spans[n-1].act.same(act) {
			spans = append(spans, span{uint32(nr) + a.Offset, act})
		}
	}
	code := tree(spans, a.Narrow)
	for _, nr := range a.Private {
		code = branch(unix.BPF_JEQ, nr, []unix.SockFilter{ret(retAllow)}, code)
	}
	return code
}

func (r *Rule) applies(caps uint64) bool { return caps&r.Needs == r.Needs && caps&r.Without == 0 }

// span is a run of numbers with one action, from first to the next span's first.
type span struct {
	first uint32
	act   action
}

func tree(spans []span, narrow bool) []unix.SockFilter {
	if len(spans) == 1 {
		return leaf(spans[0].act, narrow)
	}
	mid := len(spans) / 2
	return branch(unix.BPF_JGE, spans[mid].first, tree(spans[mid:], narrow), tree(spans[:mid], narrow))
}

func leaf(a action, narrow bool) []unix.SockFilter {
	out := []unix.SockFilter{ret(a.ret)}
	for i := len(a.any) - 1; i >= 0; i-- {
		out = condition(a.any[i], narrow, out)
	}
	return out
}

// condition gives "if c then allow else no".
func condition(c Cond, narrow bool, no []unix.SockFilter) []unix.SockFilter {
	lowOff := offArgs + 8*uint32(c.Arg)
	low, high := uint32(c.Value), uint32(c.Value>>32)
	yes := []unix.SockFilter{ret(retAllow)}
	var lowTest, code []unix.SockFilter
	switch c.Op {
	case Equal:
		lowTest = branch(unix.BPF_JEQ, low, yes, no)
	case NotEqual:
		lowTest = branch(unix.BPF_JEQ, low, no, yes)
	case Less:
		lowTest = branch(unix.BPF_JGE, low, no, yes)
	case MaskedZero:
		lowTest = branch(unix.BPF_JSET, low, no, yes)
	}
	lowTest = append([]unix.SockFilter{ld(lowOff)}, lowTest...)
	if narrow {
		return lowTest
	}
	switch c.Op {
	case Equal:
		code = branch(unix.BPF_JEQ, high, lowTest, no)
	case NotEqual:
		code = branch(unix.BPF_JEQ, high, lowTest, yes)
	case Less:
		// high < → yes; high > → no; equal → low decides.
		code = branch(unix.BPF_JGE, high, branch(unix.BPF_JGT, high, no, lowTest), yes)
	case MaskedZero:
		code = branch(unix.BPF_JSET, high, no, lowTest)
	}
	return append([]unix.SockFilter{ld(lowOff + 4)}, code...)
}

// Install puts the machine's filter on the calling thread; without no_new_privs that takes CAP_SYS_ADMIN.
func Install(caps uint64) error {
	filter := Compile(native, caps)
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	for _, flags := range []uintptr{unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW, 0} {
		_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&prog)))
		if errno == 0 {
			return nil
		}
		if errno != unix.EINVAL || flags == 0 {
			return fail.Wrap(fail.Internal, "install the seccomp filter", errno)
		}
	}
	return nil
}
