package rpc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"woodlot.dev/agent/internal/cgroup"
	"woodlot.dev/agent/internal/change"
	"woodlot.dev/agent/internal/container"
	"woodlot.dev/agent/internal/fail"
	"woodlot.dev/agent/internal/launchspec"
	"woodlot.dev/agent/internal/pb"
	"woodlot.dev/agent/internal/procs"
)

// fakeContainer refuses everything in its own words and keeps what it was asked.
type fakeContainer struct {
	created *container.Spec
	started *container.ProcessSpec
	accept  func(socket string) (*net.UnixConn, error)

	unpaused bool
	limits   cgroup.Limits
}

func (f *fakeContainer) SetIPCSysctls([]launchspec.KV) {}

func (f *fakeContainer) Play(string, []change.Change) error { return nil }

func (f *fakeContainer) Prepare() error { return nil }
func (f *fakeContainer) Create(_ context.Context, s *container.Spec) error {
	f.created = s
	return nil
}

func (f *fakeContainer) Reset(context.Context) error { return errors.New("still in use") }

func (f *fakeContainer) Start(s *container.ProcessSpec) (*container.Process, error) {
	f.started = s
	return nil, fail.New(fail.NotFound, "no such program")
}

func (f *fakeContainer) Connect(path string) (*net.UnixConn, error) { return f.accept(path) }

func (f *fakeContainer) Accept(_ context.Context, name string) (*net.UnixConn, error) {
	return f.accept(name)
}

func (f *fakeContainer) Access(context.Context) (*container.Access, error) {
	return nil, fail.New(fail.FailedPrecondition, "there is no container")
}

func (f *fakeContainer) Usage() (cgroup.Usage, error) {
	return cgroup.Usage{CPUUsec: 1, MemoryBytes: 2, MemoryLimit: 3, ReadBytes: 4, WrittenBytes: 5, Pids: 6}, nil
}

func (f *fakeContainer) Processes(context.Context) ([]procs.Process, int, map[uint32]string, error) {
	return []procs.Process{{PID: 1, UID: 33, Command: "sh"}, {PID: 2, UID: 7, Parent: 1, Nice: -1}}, 8, map[uint32]string{33: "www"}, nil
}

func (f *fakeContainer) Pause(context.Context) error {
	return fail.New(fail.Timeout, "it does not stand still")
}

func (f *fakeContainer) Unpause() { f.unpaused = true }

func (f *fakeContainer) Update(l cgroup.Limits) error {
	f.limits = l
	return nil
}

func (f *fakeContainer) Shutdown(context.Context) error { return errors.New("stuck") }

func client(t *testing.T, f *fakeContainer, shutDown func()) pb.AgentClient {
	t.Helper()
	l := bufconn.Listen(1 << 16)
	s := New(Options{Version: "1.2", Container: f, Ready: func(context.Context) error { return nil }, ShutDown: shutDown})
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	c, err := grpc.NewClient("passthrough:x", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return pb.NewAgentClient(c)
}

func TestHello(t *testing.T) {
	r, err := client(t, &fakeContainer{}, nil).Hello(t.Context(), &pb.HelloRequest{ProtocolVersion: 99})
	if err != nil || r.GetProtocolVersion() != 1 || r.GetAgentVersion() != "1.2" || r.GetKernelRelease() == "" {
		t.Errorf("%v, %v", r, err)
	}
}

func TestRunMapsErrors(t *testing.T) {
	start := func(p *pb.Process) *pb.RunRequest {
		return &pb.RunRequest{Request: &pb.RunRequest_Start_{Start: &pb.RunRequest_Start{Process: p, First: true}}}
	}
	for _, c := range []struct {
		request *pb.RunRequest
		code    codes.Code
		message string
	}{
		{start(&pb.Process{Args: []string{"x"}}), codes.NotFound, "no such program"},
		{start(&pb.Process{}), codes.InvalidArgument, "args is empty"},
		{start(nil), codes.InvalidArgument, "args is empty"},
		{start(&pb.Process{Args: []string{"a\x00b"}}), codes.InvalidArgument, "NUL"},
		{start(&pb.Process{Args: []string{"a"}, Cwd: "rel"}), codes.InvalidArgument, "absolute"},
		{start(&pb.Process{Args: []string{"a"}, Capabilities: []string{"CAP_ALL"}}), codes.InvalidArgument, "CAP_ALL"},
		{start(&pb.Process{Args: []string{"a"}, Rlimits: []*pb.Rlimit{{Type: "nofile", Soft: 2, Hard: 1}}}), codes.InvalidArgument, "above"},
		{&pb.RunRequest{Request: &pb.RunRequest_Stdin{Stdin: []byte("x")}}, codes.InvalidArgument, "must be start"},
		{&pb.RunRequest{}, codes.InvalidArgument, "must be start"},
	} {
		stream, err := client(t, &fakeContainer{}, nil).Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_ = stream.Send(c.request)
		_, err = stream.Recv()
		if status.Code(err) != c.code || !strings.Contains(err.Error(), c.message) {
			t.Errorf("%v: %v", c.request, err)
		}
	}
}

func TestProcessDefaults(t *testing.T) {
	f := &fakeContainer{}
	stream, err := client(t, f, nil).Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_ = stream.Send(&pb.RunRequest{Request: &pb.RunRequest_Start_{Start: &pb.RunRequest_Start{Process: &pb.Process{
		Args: []string{"a"}, Window: &pb.WindowSize{Rows: 1 << 20, Columns: 80}, Rlimits: []*pb.Rlimit{{Type: "NOFILE", Soft: 1, Hard: 2}},
	}}}})
	_, _ = stream.Recv()
	if !f.started.Seccomp || f.started.Rows != 0xffff || f.started.Columns != 80 {
		t.Errorf("%+v", f.started)
	}
	if n := len(f.started.Rlimits); n != 3 || f.started.Rlimits[2].Soft != 1 {
		t.Errorf("%+v", f.started.Rlimits)
	}
}

func TestCreateContainerChecks(t *testing.T) {
	f := &fakeContainer{}
	c := client(t, f, nil)
	for _, r := range []*pb.CreateContainerRequest{
		{Mounts: []*pb.Mount{{Type: "tmpfs", Destination: "rel"}}},
		{Mounts: []*pb.Mount{{Type: "xfs", Source: "/dev/vda", Destination: "/x"}}},
		{Mounts: []*pb.Mount{{Type: "virtiofs", Destination: "/x"}}},
		{Mounts: []*pb.Mount{{Type: "virtiofs", Source: "fs0", Destination: "/x", Options: []string{"dax"}}}},
		{Mounts: []*pb.Mount{{Type: "ext4", Source: "vol0", Destination: "/x", Name: "../up"}}},
		{Mounts: []*pb.Mount{{Type: "tmpfs", Destination: "/x", Options: []string{"nonsense"}}}},
		{Mounts: []*pb.Mount{{Type: "socket", Destination: "/x"}}},
		{Mounts: []*pb.Mount{{Type: "socket", Source: "../up", Destination: "/x"}}},
		{Mounts: []*pb.Mount{{Type: "socket", Source: "s", Destination: "/x", Options: []string{"mode=600"}}}},
		{MaskedPaths: []string{"proc"}},
		{Resources: &pb.Resources{Pids: -1}},
		{Hostname: strings.Repeat("x", 65)},
	} {
		if _, err := c.CreateContainer(t.Context(), r); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%v: %v", r, err)
		}
	}
	if f.created != nil {
		t.Error("a bad request went through")
	}
	if _, err := c.CreateContainer(t.Context(), &pb.CreateContainerRequest{Id: "x"}); err != nil || f.created.ID != "x" {
		t.Error(err)
	}
}

func TestUsage(t *testing.T) {
	f := &fakeContainer{}
	c := client(t, f, nil)
	stats, err := c.Stats(t.Context(), &pb.StatsRequest{})
	if err != nil || stats.GetTimeNanos() == 0 {
		t.Fatal(stats, err)
	}
	if stats.GetCpuUsageUsec() != 1 || stats.GetMemoryUsageBytes() != 2 || stats.GetMemoryLimitBytes() != 3 ||
		stats.GetBlockReadBytes() != 4 || stats.GetBlockWriteBytes() != 5 || stats.GetProcesses() != 6 {
		t.Error(stats)
	}
	list, err := c.ListProcesses(t.Context(), &pb.ListProcessesRequest{})
	if err != nil || list.GetLeftOut() != 8 || len(list.GetProcesses()) != 2 {
		t.Fatal(list, err)
	}
	if first, second := list.GetProcesses()[0], list.GetProcesses()[1]; first.GetUser() != "www" || first.GetCommand() != "sh" ||
		second.GetUser() != "" || second.GetUid() != 7 || second.GetParentPid() != 1 || second.GetNice() != -1 {
		t.Error(list)
	}
}

func TestPauseAndUpdate(t *testing.T) {
	f := &fakeContainer{}
	c := client(t, f, nil)
	if _, err := c.Pause(t.Context(), &pb.PauseRequest{}); status.Code(err) != codes.DeadlineExceeded {
		t.Error(err)
	}
	if _, err := c.Unpause(t.Context(), &pb.UnpauseRequest{}); err != nil || !f.unpaused {
		t.Error(err)
	}
	if _, err := c.Update(t.Context(), &pb.UpdateRequest{Resources: &pb.Resources{CpuMillis: 1, MemoryBytes: 2}}); err != nil || f.limits != (cgroup.Limits{CPUMillis: 1, MemoryBytes: 2}) {
		t.Error(f.limits, err)
	}
	if _, err := c.Update(t.Context(), &pb.UpdateRequest{Resources: &pb.Resources{MemoryBytes: -1}}); status.Code(err) != codes.InvalidArgument {
		t.Error(err)
	}
}

func TestShutdownEndsTheMachineEvenWhenItFails(t *testing.T) {
	ended := false
	_, err := client(t, &fakeContainer{}, func() { ended = true }).Shutdown(t.Context(), &pb.ShutdownRequest{})
	if !ended || status.Code(err) != codes.Internal || !strings.Contains(err.Error(), "stuck") {
		t.Errorf("%v, %v", ended, err)
	}
}

func TestStatusKeepsTheKindThroughWrapping(t *testing.T) {
	err := toStatus(fmt.Errorf("outer: %w", fail.New(fail.AlreadyExists, "inner")))
	if status.Code(err) != codes.AlreadyExists {
		t.Error(err)
	}
	if status.Code(toStatus(errors.Join(errors.New("x"), fail.New(fail.Unsupported, "y")))) != codes.Unimplemented {
		t.Error("joined errors lose their kind")
	}
	if toStatus(nil) != nil {
		t.Error("nil")
	}
}
