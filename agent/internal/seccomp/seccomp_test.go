package seccomp

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"woodlot.dev/agent/internal/capability"
	"woodlot.dev/agent/internal/seccomp/profile"

	moby "github.com/moby/profiles/seccomp"
)

// data is struct seccomp_data.
type data struct {
	nr, arch uint32
	args     [6]uint64
}

// simulate runs a filter as the kernel does.
func simulate(t *testing.T, filter []unix.SockFilter, d data) uint32 {
	t.Helper()
	var mem [64]byte
	binary.LittleEndian.PutUint32(mem[0:], d.nr)
	binary.LittleEndian.PutUint32(mem[4:], d.arch)
	for i, a := range d.args {
		binary.LittleEndian.PutUint64(mem[16+8*i:], a)
	}
	var acc uint32
	for pc := 0; pc < len(filter); pc++ {
		f := filter[pc]
		taken := false
		switch f.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			acc = binary.LittleEndian.Uint32(mem[f.K:])
			continue
		case unix.BPF_RET | unix.BPF_K:
			return f.K
		case unix.BPF_JMP | unix.BPF_JA:
			pc += int(f.K)
			continue
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			taken = acc == f.K
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			taken = acc >= f.K
		case unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K:
			taken = acc > f.K
		case unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K:
			taken = acc&f.K != 0
		default:
			t.Fatalf("instruction %#x at %d", f.Code, pc)
		}
		if taken {
			pc += int(f.Jt)
		} else {
			pc += int(f.Jf)
		}
	}
	t.Fatal("the filter runs off its end")
	return 0
}

// expect decides by walking the profile itself, rule by rule.
type expect struct {
	abi   profile.ABI
	names map[uint32][]string
	rules map[string][]*moby.Syscall
	last  uint32
}

func newExpect(goarch string, abi profile.ABI, caps []string) *expect {
	e := &expect{abi: abi, names: map[uint32][]string{}, rules: map[string][]*moby.Syscall{}}
	for name, nr := range abi.Calls {
		e.names[nr] = append(e.names[nr], name)
	}
	for _, call := range profile.Default().Syscalls {
		if !profile.ForArch(call, goarch) || !capsMatch(call, caps) {
			continue
		}
		for _, name := range call.Names {
			e.rules[name] = append(e.rules[name], call)
			if nr, ok := abi.Calls[name]; ok && nr <= 0xffff {
				e.last = max(e.last, nr)
			}
		}
	}
	return e
}

func capsMatch(call *moby.Syscall, caps []string) bool {
	if i := call.Includes; i != nil {
		for _, c := range i.Caps {
			if !slices.Contains(caps, c) {
				return false
			}
		}
	}
	if e := call.Excludes; e != nil {
		for _, c := range e.Caps {
			if slices.Contains(caps, c) {
				return false
			}
		}
	}
	return true
}

func (e *expect) decide(nr uint32, args [6]uint64) uint32 {
	for _, name := range e.names[nr] {
		for _, rule := range e.rules[name] {
			if !e.argsMatch(rule.Args, args) {
				continue
			}
			if rule.Action == specs.ActAllow {
				return unix.SECCOMP_RET_ALLOW
			}
			return unix.SECCOMP_RET_ERRNO | uint32(*rule.ErrnoRet)
		}
	}
	if nr > e.last {
		return unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
	}
	return unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
}

func (e *expect) argsMatch(conds []specs.LinuxSeccompArg, args [6]uint64) bool {
	for _, c := range conds {
		v := args[c.Index]
		if e.abi.Narrow {
			v &= 0xffffffff
		}
		ok := false
		switch c.Op {
		case specs.OpEqualTo:
			ok = v == c.Value
		case specs.OpNotEqual:
			ok = v != c.Value
		case specs.OpLessThan:
			ok = v < c.Value
		case specs.OpMaskedEqual:
			ok = v&c.Value == c.ValueTwo
		default:
			panic(c.Op)
		}
		if !ok {
			return false
		}
	}
	return true
}

func capSets() [][]string {
	docker := []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
		"CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE", "CAP_FSETID"}
	sets := [][]string{nil, docker}
	var all []string
	seen := map[string]bool{}
	for _, call := range profile.Default().Syscalls {
		if call.Includes == nil {
			continue
		}
		for _, c := range call.Includes.Caps {
			if !seen[c] {
				seen[c] = true
				all = append(all, c)
				sets = append(sets, []string{c}, append(slices.Clone(docker), c))
			}
		}
	}
	return append(sets, all)
}

// TestEqualsProfile compares filter and profile for every machine, ABI, system call number, capability set of interest,
// and arguments around every constant.
func TestEqualsProfile(t *testing.T) {
	machines, err := profile.Machines()
	if err != nil {
		t.Fatal(err)
	}
	values := argValues()
	for goarch, tables := range map[string][]ABI{"amd64": amd64ABIs, "arm64": arm64ABIs} {
		for _, caps := range capSets() {
			mask, err := capability.Parse(caps)
			if err != nil {
				t.Fatal(err)
			}
			filter := Compile(tables, uint64(mask))
			if len(filter) > unix.BPF_MAXINSNS {
				t.Fatalf("%s: %d instructions, the kernel takes %d", goarch, len(filter), unix.BPF_MAXINSNS)
			}
			for _, abi := range machines[goarch] {
				e := newExpect(goarch, abi, caps)
				t.Run(fmt.Sprintf("%s/%s/%d", goarch, abi.Name, len(caps)), func(t *testing.T) {
					compare(t, filter, e, values)
				})
			}
		}
	}
}

func compare(t *testing.T, filter []unix.SockFilter, e *expect, values []uint64) {
	numbers := []uint32{0xf0000, 0xf0001, 0xf0002, 0xf0003, 0xf0004, 0xf0005, 0xf0006, 0x3fffffff}
	for nr := range uint32(700) {
		numbers = append(numbers, nr)
	}
	for _, nr := range numbers {
		tries := values[:2]
		for _, name := range e.names[nr] {
			if slices.Contains([]string{"socket", "personality", "clone"}, name) {
				tries = values
			}
		}
		for _, v := range tries {
			args := [6]uint64{v, v ^ 1, v, v, v, v}
			got := simulate(t, filter, data{nr: nr + e.abi.Offset, arch: e.abi.Audit, args: args})
			if want := e.decide(nr, args); got != want {
				t.Fatalf("%s %v (number %d, first argument %#x): %#x, the profile says %#x", e.abi.Name, e.names[nr], nr, v, got, want)
			}
		}
	}
}

func argValues() []uint64 {
	values := []uint64{0, 1}
	for _, call := range profile.Default().Syscalls {
		for _, a := range call.Args {
			values = append(values, a.Value, a.Value-1, a.Value+1, a.Value|1<<32, a.Value|1<<63, a.Value<<32)
		}
	}
	for bit := range 64 {
		values = append(values, 1<<bit)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		values = append(values, random.Uint64(), uint64(random.Uint32()), random.Uint64()%64)
	}
	return values
}

func TestUnknownArchitectureIsKilled(t *testing.T) {
	if got := simulate(t, Compile(amd64ABIs, 0), data{nr: 0, arch: 0xc00000b7}); got != unix.SECCOMP_RET_KILL_PROCESS {
		t.Errorf("got %#x", got)
	}
}

// TestKnownNumbers holds a few facts apart from the generator's own tables.
func TestKnownNumbers(t *testing.T) {
	const x86, amd64 = 0x40000003, 0xc000003e
	filter := Compile(amd64ABIs, 0)
	for _, c := range []struct {
		what     string
		arch, nr uint32
		arg      uint64
		want     uint32
	}{
		{"read", amd64, 0, 0, retAllow},
		{"unshare", amd64, 272, 0, retErrno | 1},
		{"clone3", amd64, 435, 0, retErrno | 38},
		{"clone of a user namespace", amd64, 56, unix.CLONE_NEWUSER, retErrno | 1},
		{"fork by clone", amd64, 56, uint64(unix.SIGCHLD), retAllow},
		{"socket(AF_VSOCK)", amd64, 41, unix.AF_VSOCK, retErrno | 1},
		{"socket(AF_ALG)", amd64, 41, unix.AF_ALG, retErrno | 1},
		{"socket(AF_INET)", amd64, 41, unix.AF_INET, retAllow},
		{"keyctl", amd64, 250, 0, retErrno | 1},
		{"i386 read", x86, 3, 0, retAllow},
		{"i386 socketcall", x86, 102, 0, retAllow},
		{"i386 mount", x86, 21, 0, retErrno | 1},
		{"x32 ioctl", amd64, 0x40000000 + 514, 0, retAllow},
		{"far future", amd64, 2000, 0, retErrno | 38},
	} {
		if got := simulate(t, filter, data{nr: c.nr, arch: c.arch, args: [6]uint64{c.arg}}); got != c.want {
			t.Errorf("%s: %#x, want %#x", c.what, got, c.want)
		}
	}
}

func BenchmarkCompile(b *testing.B) {
	for b.Loop() {
		Compile(native, 0)
	}
}
