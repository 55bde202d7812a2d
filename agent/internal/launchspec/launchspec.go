// Package launchspec is what agent and launch say to each other: values, their encoding, and messages with
// descriptors over a stream socket. Both are built from one tree, so the encoding carries no version.
package launchspec

import (
	"encoding/binary"

	"woodlot.dev/agent/internal/fail"
)

// Bind and Socket are the types of mounts whose source is a path of the agent's.
const (
	Bind   = "bind"
	Socket = "socket"
)

// Mount is one requested mount, its options already parsed.
type Mount struct {
	Type, Source, Destination string
	Flags                     uint64
	Data                      string
	// Owner of a socket, as in Process.User.
	Owner string
}

// KV is a name and its value.
type KV struct{ Key, Value string }

// Setup makes launch, alone in new namespaces, build the container around itself.
type Setup struct {
	Rootfs   string
	ReadOnly bool
	Hostname string
	ShmBytes int64
	Mounts   []Mount
	Masked   []string
	Readonly []string
	// EtcDir holds one file per name of EtcFiles, bound over /etc/NAME.
	EtcDir   string
	EtcFiles []string
	// Sysctls of the IPC namespace: path below /proc/sys, value.
	Sysctls []KV
}

// Rlimit is one limit by its RLIMIT_ number.
type Rlimit struct{ Resource, Soft, Hard uint64 }

// Process is what launch becomes.
type Process struct {
	Args, Env []string
	Cwd, User string
	First     bool
	Tty       bool
	PtyIndex  uint32
	Caps      uint64
	NoNewPriv bool
	Seccomp   bool
	Rlimits   []Rlimit
}

type encoder struct{ b []byte }

func (e *encoder) uint(v uint64) { e.b = binary.AppendUvarint(e.b, v) }
func (e *encoder) bool(v bool) {
	if v {
		e.uint(1)
	} else {
		e.uint(0)
	}
}

func (e *encoder) str(s string) {
	e.uint(uint64(len(s)))
	e.b = append(e.b, s...)
}

func (e *encoder) strs(list []string) {
	e.uint(uint64(len(list)))
	for _, s := range list {
		e.str(s)
	}
}

// decoder reads what encoder wrote; after an error every value is zero.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) uint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 || d.bad {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) bool() bool { return d.uint() != 0 }

func (d *decoder) str() string {
	n := d.uint()
	if n > uint64(len(d.b)) {
		d.bad, d.b = true, nil
		return ""
	}
	s := string(d.b[:n])
	d.b = d.b[n:]
	return s
}

// count is a list's length; each element takes a byte at least, which bounds it.
func (d *decoder) count() int {
	n := d.uint()
	if n > uint64(len(d.b)) {
		d.bad, d.b = true, nil
		return 0
	}
	return int(n)
}

func (d *decoder) strs() []string {
	n := d.count()
	if n == 0 {
		return nil
	}
	list := make([]string, n)
	for i := range list {
		list[i] = d.str()
	}
	return list
}

func (d *decoder) err() error {
	if d.bad || len(d.b) != 0 {
		return fail.New(fail.Internal, "malformed message between agent and launch")
	}
	return nil
}

// Encode gives the message body.
func (s *Setup) Encode() []byte {
	var e encoder
	e.str(s.Rootfs)
	e.bool(s.ReadOnly)
	e.str(s.Hostname)
	e.uint(uint64(s.ShmBytes))
	e.uint(uint64(len(s.Mounts)))
	for _, m := range s.Mounts {
		e.str(m.Type)
		e.str(m.Source)
		e.str(m.Destination)
		e.uint(m.Flags)
		e.str(m.Data)
		e.str(m.Owner)
	}
	e.strs(s.Masked)
	e.strs(s.Readonly)
	e.str(s.EtcDir)
	e.strs(s.EtcFiles)
	e.uint(uint64(len(s.Sysctls)))
	for _, kv := range s.Sysctls {
		e.str(kv.Key)
		e.str(kv.Value)
	}
	return e.b
}

// DecodeSetup reads a message body.
func DecodeSetup(b []byte) (*Setup, error) {
	d := decoder{b: b}
	s := &Setup{Rootfs: d.str(), ReadOnly: d.bool(), Hostname: d.str(), ShmBytes: int64(d.uint())}
	for range d.count() {
		s.Mounts = append(s.Mounts, Mount{d.str(), d.str(), d.str(), d.uint(), d.str(), d.str()})
	}
	s.Masked, s.Readonly = d.strs(), d.strs()
	s.EtcDir, s.EtcFiles = d.str(), d.strs()
	for range d.count() {
		s.Sysctls = append(s.Sysctls, KV{d.str(), d.str()})
	}
	return s, d.err()
}

// Encode gives the message body.
func (p *Process) Encode() []byte {
	var e encoder
	e.strs(p.Args)
	e.strs(p.Env)
	e.str(p.Cwd)
	e.str(p.User)
	e.bool(p.First)
	e.bool(p.Tty)
	e.uint(uint64(p.PtyIndex))
	e.uint(p.Caps)
	e.bool(p.NoNewPriv)
	e.bool(p.Seccomp)
	e.uint(uint64(len(p.Rlimits)))
	for _, r := range p.Rlimits {
		e.uint(r.Resource)
		e.uint(r.Soft)
		e.uint(r.Hard)
	}
	return e.b
}

// DecodeProcess reads a message body.
func DecodeProcess(b []byte) (*Process, error) {
	d := decoder{b: b}
	p := &Process{
		Args: d.strs(), Env: d.strs(), Cwd: d.str(), User: d.str(), First: d.bool(), Tty: d.bool(),
		PtyIndex: uint32(d.uint()), Caps: d.uint(), NoNewPriv: d.bool(), Seccomp: d.bool(),
	}
	for range d.count() {
		p.Rlimits = append(p.Rlimits, Rlimit{d.uint(), d.uint(), d.uint()})
	}
	return p, d.err()
}
