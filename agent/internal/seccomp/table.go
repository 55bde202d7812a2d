// Package seccomp builds the system call filter of a container: the effect of Docker's default profile, from a table
// generated out of that profile (*_table.go), compiled to classic BPF for the process's capabilities.
package seccomp

//go:generate go run ./gen

// Op compares one argument of a system call with a value.
type Op uint8

// The comparisons that the profile uses; all are unsigned, of 64 bits (32 on a 32-bit ABI).
const (
	Equal Op = iota
	NotEqual
	Less
	// MaskedZero holds when no bit of Value is set in the argument.
	MaskedZero
)

// Cond is a condition on argument Arg.
type Cond struct {
	Arg   uint8
	Op    Op
	Value uint64
}

// Rule lets system calls pass, or fail with Errno when that is not 0, if all capabilities of Needs and none of Without
// are in the bounding set, and, where Any is not empty, any of its conditions holds.
type Rule struct {
	Needs, Without uint64
	Errno          uint16
	Any            []Cond
	// Ranges are first, last, first, last, … system call numbers.
	Ranges []uint16
}

// ABI is one system call table of a kernel.
type ABI struct {
	// Name is the libseccomp name without SCMP_ARCH_.
	Name string
	// Audit is the AUDIT_ARCH_ value.
	Audit uint32
	// Offset is added to every number: the x32 bit, or ARM's private range.
	Offset uint32
	// Narrow is a 32-bit ABI: only the low halves of arguments count.
	Narrow bool
	Rules  []Rule
	// Private are numbers allowed beyond 65535 (ARM's own system calls).
	Private []uint32
}
