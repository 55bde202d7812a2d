package rpc

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"woodlot.dev/agent/internal/capability"
	"woodlot.dev/agent/internal/cgroup"
	"woodlot.dev/agent/internal/container"
	"woodlot.dev/agent/internal/fail"
	"woodlot.dev/agent/internal/launchspec"
	"woodlot.dev/agent/internal/mountopt"
	"woodlot.dev/agent/internal/pb"
	"woodlot.dev/agent/internal/share"
	"woodlot.dev/agent/internal/socket"
)

func invalid(format string, args ...any) error {
	return fail.New(fail.InvalidArgument, fmt.Sprintf(format, args...))
}

// mountTypes are the filesystems a container may be given; none of them reads a path of the guest.
var mountTypes = []string{"tmpfs", "virtiofs", "ext4", "socket", "mqueue", "proc", "sysfs", "cgroup2"}

func containerSpec(r *pb.CreateContainerRequest) (*container.Spec, error) {
	spec := &container.Spec{
		ID: r.GetId(), Hostname: r.GetHostname(),
		ImageSerial: r.GetRootfs().GetImageSerial(), UpperSerial: r.GetRootfs().GetUpperSerial(),
		ReadOnly:    r.GetRootfs().GetReadOnly(),
		Limits:      limits(r.GetResources()),
		MaskedPaths: r.GetMaskedPaths(), ReadonlyPath: r.GetReadonlyPaths(),
		EtcFiles: r.GetEtcFiles(), ShmBytes: r.GetShmBytes(),
	}
	if len(spec.Hostname) > 64 {
		return nil, invalid("hostname %q is longer than 64 bytes", spec.Hostname)
	}
	if err := checkLimits(spec.Limits); err != nil {
		return nil, err
	}
	if spec.ShmBytes < 0 {
		return nil, invalid("shm_bytes must not be negative")
	}
	for _, p := range append(slices.Clone(spec.MaskedPaths), spec.ReadonlyPath...) {
		if err := checkPath("path", p); err != nil {
			return nil, err
		}
	}
	for i, m := range r.GetMounts() {
		if err := addMount(spec, i, m); err != nil {
			return nil, fail.Context(fmt.Sprintf("mounts[%d]", i), err)
		}
	}
	return spec, nil
}

func limits(r *pb.Resources) cgroup.Limits {
	return cgroup.Limits{CPUMillis: r.GetCpuMillis(), MemoryBytes: r.GetMemoryBytes(), Pids: r.GetPids()}
}

func checkLimits(l cgroup.Limits) error {
	if l.MemoryBytes < 0 || l.Pids < 0 {
		return invalid("resources must not be negative")
	}
	return nil
}

// addMount checks the mount with that index and adds it to those of the container.
func addMount(spec *container.Spec, i int, m *pb.Mount) error {
	if err := checkPath("destination", m.GetDestination()); err != nil {
		return err
	}
	if !slices.Contains(mountTypes, m.GetType()) {
		return invalid("filesystem %q is not one of %s", m.GetType(), strings.Join(mountTypes, ", "))
	}
	flags, data, err := mountopt.Parse(m.GetType(), m.GetOptions())
	if err != nil {
		return err
	}
	if strings.ContainsRune(m.GetSource()+data+m.GetOwner(), 0) {
		return invalid("it contains a NUL byte")
	}
	mount := launchspec.Mount{Type: m.GetType(), Source: m.GetSource(), Destination: m.GetDestination(), Flags: flags, Data: data}
	switch m.GetType() {
	case "virtiofs", "ext4":
		if m.GetSource() == "" || data != "" {
			return invalid("%s needs a source, and has no options of its own", m.GetType())
		}
		if m.GetWatch() && (m.GetType() != "virtiofs" || m.GetName() != "") {
			return invalid("only a whole directory of virtiofs can be watched")
		}
		if err := share.CheckName(m.GetName()); err != nil {
			return fail.Context("name", err)
		}
		spec.Shares = append(spec.Shares, share.Spec{
			Type: m.GetType(), Source: m.GetSource(), Name: m.GetName(), Destination: m.GetDestination(),
			ReadOnly: flags&unix.MS_RDONLY != 0, CopyUp: m.GetCopyUp(), CutShort: m.GetCutShort(), Watch: m.GetWatch(), Index: i,
		})
		mount.Type, mount.Source = launchspec.Bind, ""
	case launchspec.Socket:
		if data != "" {
			return invalid("a socket has no options of its own")
		}
		if err := socket.CheckName(m.GetSource()); err != nil {
			return fail.Context("source", err)
		}
		spec.Sockets = append(spec.Sockets, socket.Spec{Name: m.GetSource(), Mode: m.GetMode(), Index: i})
		mount.Source, mount.Owner = "", m.GetOwner()
	default:
		if mount.Source == "" {
			mount.Source = m.GetType()
		}
	}
	spec.Mounts = append(spec.Mounts, mount)
	return nil
}

func checkPath(what, p string) error {
	if !path.IsAbs(p) || strings.ContainsRune(p, 0) || len(p) >= unix.PathMax {
		return invalid("%s must be an absolute path, got %q", what, p)
	}
	return nil
}

const maxArgs = 1 << 16

func processSpec(s *pb.RunRequest_Start) (*container.ProcessSpec, error) {
	p := s.GetProcess()
	if p == nil || len(p.GetArgs()) == 0 {
		return nil, invalid("process.args is empty")
	}
	if len(p.GetArgs())+len(p.GetEnv()) > maxArgs {
		return nil, invalid("process has more than %d arguments and variables", maxArgs)
	}
	for _, list := range [][]string{p.GetArgs(), p.GetEnv(), {p.GetCwd(), p.GetUser()}} {
		for _, item := range list {
			if strings.ContainsRune(item, 0) {
				return nil, invalid("process contains a NUL byte in %q", item)
			}
		}
	}
	if cwd := p.GetCwd(); cwd != "" {
		if err := checkPath("process.cwd", cwd); err != nil {
			return nil, err
		}
	}
	caps, err := capability.Parse(p.GetCapabilities())
	if err != nil {
		return nil, err
	}
	limits, err := rlimits(p.GetRlimits())
	if err != nil {
		return nil, err
	}
	return &container.ProcessSpec{
		Process: launchspec.Process{
			Args: p.GetArgs(), Env: p.GetEnv(), Cwd: p.GetCwd(), User: p.GetUser(), First: s.GetFirst(), Tty: p.GetTty(),
			Caps: uint64(caps), NoNewPriv: p.GetNoNewPrivileges(), Seccomp: !p.GetSeccompUnconfined(), Rlimits: limits,
		},
		Stdin: p.GetStdin(),
		Rows:  clampSize(p.GetWindow().GetRows()), Columns: clampSize(p.GetWindow().GetColumns()),
		Init: p.GetInit(),
	}, nil
}

func clampSize(n uint32) uint16 { return uint16(min(n, 0xffff)) }

var rlimitNumbers = map[string]uint64{
	"as": unix.RLIMIT_AS, "core": unix.RLIMIT_CORE, "cpu": unix.RLIMIT_CPU, "data": unix.RLIMIT_DATA,
	"fsize": unix.RLIMIT_FSIZE, "locks": unix.RLIMIT_LOCKS, "memlock": unix.RLIMIT_MEMLOCK,
	"msgqueue": unix.RLIMIT_MSGQUEUE, "nice": unix.RLIMIT_NICE, "nofile": unix.RLIMIT_NOFILE,
	"nproc": unix.RLIMIT_NPROC, "rss": unix.RLIMIT_RSS, "rtprio": unix.RLIMIT_RTPRIO, "rttime": unix.RLIMIT_RTTIME,
	"sigpending": unix.RLIMIT_SIGPENDING, "stack": unix.RLIMIT_STACK,
}

// defaultRlimits are what a process has under Docker when nothing is said.
var defaultRlimits = []launchspec.Rlimit{
	{Resource: unix.RLIMIT_NOFILE, Soft: 1 << 20, Hard: 1 << 20},
	{Resource: unix.RLIMIT_NPROC, Soft: unix.RLIM_INFINITY, Hard: unix.RLIM_INFINITY},
	{Resource: unix.RLIMIT_CORE, Soft: unix.RLIM_INFINITY, Hard: unix.RLIM_INFINITY},
}

func rlimits(list []*pb.Rlimit) ([]launchspec.Rlimit, error) {
	out := slices.Clone(defaultRlimits)
	for _, r := range list {
		number, ok := rlimitNumbers[strings.ToLower(r.GetType())]
		if !ok {
			return nil, invalid("unknown resource limit %q", r.GetType())
		}
		if r.GetSoft() > r.GetHard() {
			return nil, invalid("resource limit %s: soft %d is above hard %d", r.GetType(), r.GetSoft(), r.GetHard())
		}
		out = slices.DeleteFunc(out, func(d launchspec.Rlimit) bool { return d.Resource == number })
		out = append(out, launchspec.Rlimit{Resource: number, Soft: r.GetSoft(), Hard: r.GetHard()})
	}
	return out, nil
}
