package cgroup

import "testing"

func TestField(t *testing.T) {
	b := []byte("low 0\noom 4\noom_kill 3\noom_group_kill 1\n")
	if field(b, "oom_kill") != 3 || field(b, "nothing") != 0 {
		t.Error("field")
	}
}

// run interprets the few instructions that the device program uses.
func run(t *testing.T, kind, access, major, minor uint32) bool {
	t.Helper()
	ctx := map[int16]uint32{0: access<<16 | kind, 4: major, 8: minor}
	var r [16]int64
	p := deviceProgram()
	for pc := 0; pc < len(p); pc++ {
		i := p[pc]
		dst, src := i.regs&15, i.regs>>4
		switch i.code {
		case opLdxW:
			r[dst] = int64(ctx[i.off])
		case opMovReg:
			r[dst] = r[src]
		case opMovImm:
			r[dst] = int64(i.imm)
		case opAndImm:
			r[dst] &= int64(i.imm)
		case opRshImm:
			r[dst] >>= i.imm
		case opJeqImm:
			if r[dst] == int64(i.imm) {
				pc += int(i.off)
			}
		case opJneImm:
			if r[dst] != int64(i.imm) {
				pc += int(i.off)
			}
		case opExit:
			return r[0] != 0
		default:
			t.Fatalf("instruction %#x", i.code)
		}
	}
	t.Fatal("the program runs off its end")
	return false
}

func TestDeviceRulesAreDockers(t *testing.T) {
	const read, write = 2, 4
	for _, c := range []struct {
		what                       string
		kind, access, major, minor uint32
		want                       bool
	}{
		{"null", devChar, read | write, 1, 3, true},
		{"null, mknod", devChar, accMknod, 1, 3, true},
		{"mem", devChar, read, 1, 1, false},
		{"tty", devChar, read | write, 5, 0, true},
		{"ptmx", devChar, read | write, 5, 2, true},
		{"pts/77", devChar, read | write, 136, 77, true},
		{"kmsg", devChar, write, 1, 11, false},
		{"a disk", devBlock, read, 254, 0, false},
		{"a block device with null's number", devBlock, read, 1, 3, false},
		{"make a disk", devBlock, accMknod, 254, 0, true},
		{"make and open a disk", devBlock, accMknod | read, 254, 0, false},
	} {
		if got := run(t, c.kind, c.access, c.major, c.minor); got != c.want {
			t.Errorf("%s: %v", c.what, got)
		}
	}
}
