// Package rpc serves the contract with the host: it checks what the host asks for, and hands it to the packages that
// do it.
package rpc

import (
	"context"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"woodlot.dev/agent/internal/cgroup"
	"woodlot.dev/agent/internal/change"
	"woodlot.dev/agent/internal/container"
	"woodlot.dev/agent/internal/fail"
	"woodlot.dev/agent/internal/identity"
	"woodlot.dev/agent/internal/klog"
	"woodlot.dev/agent/internal/launchspec"
	"woodlot.dev/agent/internal/netif"
	"woodlot.dev/agent/internal/pb"
	"woodlot.dev/agent/internal/procs"
	"woodlot.dev/agent/internal/settle"
	"woodlot.dev/agent/internal/share"
	"woodlot.dev/agent/internal/trace"
)

const (
	protocolVersion = 1
	maxMessageBytes = 4 << 20
	windowBytes     = 2 << 20
	bufferBytes     = 64 << 10
)

var features = []string{"exec", "tty", "init", "seccomp", "vsock", "virtio-serial", "sockets", "files", "usage"}

// Container is what the server needs of a container.Manager.
type Container interface {
	SetIPCSysctls(list []launchspec.KV)
	Prepare() error
	Create(ctx context.Context, spec *container.Spec) error
	Reset(ctx context.Context) error
	Start(spec *container.ProcessSpec) (*container.Process, error)
	Connect(path string) (*net.UnixConn, error)
	Accept(ctx context.Context, socket string) (*net.UnixConn, error)
	Play(source string, changes []change.Change) error
	Access(ctx context.Context) (*container.Access, error)
	Usage() (cgroup.Usage, error)
	Processes(ctx context.Context) ([]procs.Process, int, map[uint32]string, error)
	Pause(ctx context.Context) error
	Unpause()
	Update(limits cgroup.Limits) error
	Shutdown(ctx context.Context) error
}

// Options are what a server works with.
type Options struct {
	Version   string
	Container Container
	// Ready returns once all devices can be there.
	Ready func(ctx context.Context) error
	// ShutDown is called after a Shutdown was answered, or should have been.
	ShutDown func()
}

var _ Container = (*container.Manager)(nil)

type server struct {
	pb.UnimplementedAgentServer
	pb.UnimplementedFilesServer
	Options

	processes processes
}

var (
	_ pb.AgentServer = (*server)(nil)
	_ pb.FilesServer = (*server)(nil)
)

// New gives a gRPC server with the agent's services.
func New(o Options) *grpc.Server {
	s := grpc.NewServer(
		grpc.MaxRecvMsgSize(maxMessageBytes),
		grpc.MaxConcurrentStreams(1024),
		grpc.UnaryInterceptor(traced),
		grpc.InitialWindowSize(windowBytes),
		grpc.InitialConnWindowSize(2*windowBytes),
		grpc.ReadBufferSize(bufferBytes),
		grpc.WriteBufferSize(bufferBytes),
		// The host may ask for signs of life as often as it likes; we ask for none.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Millisecond, PermitWithoutStream: true}),
	)
	both := &server{Options: o}
	pb.RegisterAgentServer(s, both)
	pb.RegisterFilesServer(s, both)
	return s
}

// Hello answers at once and changes nothing.
func (s *server) Hello(_ context.Context, _ *pb.HelloRequest) (*pb.HelloResponse, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return nil, toStatus(fmt.Errorf("uname: %w", err))
	}
	return &pb.HelloResponse{
		ProtocolVersion: protocolVersion,
		AgentVersion:    s.Version,
		Features:        features,
		KernelRelease:   unix.ByteSliceToString(u.Release[:]),
		Machine:         unix.ByteSliceToString(u.Machine[:]),
	}, nil
}

// Settle makes the guest ready to be saved.
func (s *server) Settle(ctx context.Context, _ *pb.SettleRequest) (*pb.SettleResponse, error) {
	if err := s.Ready(ctx); err != nil {
		return nil, toStatus(err)
	}
	if err := netif.LoopbackUp(); err != nil {
		return nil, toStatus(err)
	}
	if err := s.Container.Prepare(); err != nil {
		return nil, toStatus(err)
	}
	if err := settle.Messages(); err != nil {
		return nil, toStatus(err)
	}
	if err := settle.Memory(); err != nil {
		return nil, toStatus(err)
	}
	return &pb.SettleResponse{}, nil
}

// Configure gives the guest its identity.
func (s *server) Configure(ctx context.Context, r *pb.ConfigureRequest) (*pb.ConfigureResponse, error) {
	seeded := trace.Begin("clock and entropy")
	// Time and entropy do not wait for devices: the sooner, the less runs without them.
	if ns := r.GetTimeUnixNanos(); ns != 0 {
		if err := identity.SetClock(ns); err != nil {
			return nil, toStatus(err)
		}
	}
	if seed := r.GetEntropy(); len(seed) > 0 {
		if err := identity.AddEntropy(seed); err != nil {
			return nil, toStatus(err)
		}
	}
	seeded()
	if err := s.Ready(ctx); err != nil {
		return nil, toStatus(err)
	}
	ipc, err := identity.ApplySysctls(r.GetSysctls())
	if err != nil {
		return nil, toStatus(err)
	}
	s.Container.SetIPCSysctls(ipc)
	if err := configureNetwork(ctx, r.GetInterfaces()); err != nil {
		return nil, toStatus(err)
	}
	return &pb.ConfigureResponse{}, nil
}

func configureNetwork(ctx context.Context, interfaces []*pb.NetworkInterface) error {
	defer trace.Begin("network cards")()
	wanted := make([]netif.Interface, 0, len(interfaces))
	for _, i := range interfaces {
		w, err := netif.ParseInterface(i.GetMac(), i.GetDeviceMac(), i.GetName(), i.GetAddresses(), i.GetMtu())
		if err != nil {
			return err
		}
		for _, r := range i.GetRoutes() {
			route, err := netif.ParseRoute(r.GetDestination(), r.GetGateway(), r.GetProhibit())
			if err != nil {
				return err
			}
			w.Routes = append(w.Routes, route)
		}
		wanted = append(wanted, w)
	}
	if err := netif.LoopbackUp(); err != nil {
		return err
	}
	for _, w := range wanted {
		if err := netif.Configure(ctx, w); err != nil {
			return err
		}
	}
	return nil
}

// CreateContainer makes the container.
func (s *server) CreateContainer(ctx context.Context, r *pb.CreateContainerRequest) (*pb.CreateContainerResponse, error) {
	spec, err := containerSpec(r)
	if err == nil {
		err = s.Ready(ctx)
	}
	if err == nil {
		err = s.Container.Create(ctx, spec)
	}
	if err != nil {
		return nil, toStatus(err)
	}
	return &pb.CreateContainerResponse{}, nil
}

// Reset makes the guest one that is nobody's yet.
func (s *server) Reset(ctx context.Context, _ *pb.ResetRequest) (*pb.ResetResponse, error) {
	if err := s.Container.Reset(ctx); err != nil {
		return nil, toStatus(err)
	}
	if err := netif.Reset(); err != nil {
		return nil, toStatus(err)
	}
	return &pb.ResetResponse{}, nil
}

// AbortMount ends a share whose server is gone.
func (*server) AbortMount(_ context.Context, r *pb.AbortMountRequest) (*pb.AbortMountResponse, error) {
	if err := share.Abort(r.GetIndex()); err != nil {
		return nil, toStatus(err)
	}
	return &pb.AbortMountResponse{}, nil
}

var kinds = map[pb.Change_Kind]change.Kind{
	pb.Change_KIND_CREATED: change.Created, pb.Change_KIND_DELETED: change.Deleted,
	pb.Change_KIND_MOVED: change.Moved, pb.Change_KIND_MOVED_OUT: change.MovedOut, pb.Change_KIND_MOVED_IN: change.MovedIn,
	pb.Change_KIND_MODIFIED: change.Modified, pb.Change_KIND_CLOSED: change.Closed, pb.Change_KIND_ATTRIBUTES: change.Attrib,
}

// PlayChanges raises the events of what changed on the host.
func (s *server) PlayChanges(_ context.Context, r *pb.PlayChangesRequest) (*pb.PlayChangesResponse, error) {
	changes := make([]change.Change, 0, len(r.GetChanges()))
	for i, c := range r.GetChanges() {
		kind, ok := kinds[c.GetKind()]
		if !ok {
			return nil, toStatus(invalid("changes[%d]: unknown kind %d", i, c.GetKind()))
		}
		changes = append(changes, change.Change{
			Kind: kind, Dir: c.GetDirectory(), Name: c.GetName(), IsDir: c.GetIsDirectory(),
			ToDir: c.GetToDirectory(), ToName: c.GetToName(),
		})
	}
	if err := s.Container.Play(r.GetSource(), changes); err != nil {
		return nil, toStatus(err)
	}
	return &pb.PlayChangesResponse{}, nil
}

// Shutdown ends the container; the VM ends soon after, if the host does not do it first.
func (s *server) Shutdown(ctx context.Context, _ *pb.ShutdownRequest) (*pb.ShutdownResponse, error) {
	err := s.Container.Shutdown(ctx)
	s.ShutDown()
	if err != nil {
		klog.Warnf("shutdown: %v", err)
		return nil, toStatus(fail.Context("shutdown", err))
	}
	return &pb.ShutdownResponse{}, nil
}
