package service_test

import (
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"woodlot.dev/switch/internal/gateway"
	"woodlot.dev/switch/internal/lan"
	"woodlot.dev/switch/internal/pb"
	"woodlot.dev/switch/internal/service"
	"woodlot.dev/switch/internal/wire"
)

const mac = "52:54:00:00:00:01"

type fixture struct {
	pb.SwitchClient
	service   *service.Service
	directory string
}

func setup(t *testing.T) *fixture {
	t.Helper()
	return setupWith(t, nil)
}

func setupWith(t *testing.T, plugs service.Plugs) *fixture {
	t.Helper()
	l, err := lan.New(netip.MustParsePrefix("10.86.0.0/24"), netip.MustParsePrefix("fd00:86::/64"), false)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	t.Cleanup(stop)
	g, err := gateway.New(ctx, l, &net.Dialer{})
	if err != nil {
		t.Fatal(err)
	}
	directory, err := os.MkdirTemp("", "switch")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(directory) })
	listener, err := net.Listen("unix", filepath.Join(directory, "control"))
	if err != nil {
		t.Fatal(err)
	}
	s := service.New(l, g, plugs)
	server := grpc.NewServer()
	pb.RegisterSwitchServer(server, s)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	conn, err := grpc.NewClient("unix:"+listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &fixture{pb.NewSwitchClient(conn), s, directory}
}

func (f *fixture) request() *pb.AttachRequest {
	return &pb.AttachRequest{ContainerId: "a", Names: []string{"web"}, Mac: mac, SocketPath: filepath.Join(f.directory, "a")}
}

func (f *fixture) attach(ctx context.Context, t *testing.T) (pb.Switch_AttachClient, *pb.AttachResponse_Attached) {
	t.Helper()
	stream, err := f.Attach(ctx, f.request())
	if err != nil {
		t.Fatal(err)
	}
	first, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	return stream, first.GetAttached()
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(what)
		}
	}
}

func TestAttachAndLeave(t *testing.T) {
	f := setup(t)
	ctx, leave := context.WithCancel(context.Background())
	defer leave()
	stream, attached := f.attach(ctx, t)
	if attached.GetIp() != "10.86.0.2" || attached.GetGateway() != "10.86.0.1" || attached.GetPrefixLength() != 24 ||
		attached.GetIpV6() != "fd00:86::2" || attached.GetGatewayV6() != "fd00:86::1" || attached.GetPrefixLengthV6() != 64 {
		t.Errorf("%v", attached)
	}
	if f.service.IdleFor() != 0 {
		t.Error("idle with a container attached")
	}
	path := f.request().GetSocketPath()
	if info, err := os.Stat(path); err != nil || info.Mode()&os.ModeSocket == 0 {
		t.Fatalf("%v, %v", info, err)
	}
	conn := link(t, path)
	eventually(t, "the socket takes more than one connection", func() bool {
		_, err := os.Stat(path)
		return os.IsNotExist(err)
	})
	// A frame that is too long ends the link, and the supervisor is told.
	if err := wire.WriteFrames(conn, [][]byte{make([]byte, 70000)}); err != nil {
		t.Fatal(err)
	}
	event, err := stream.Recv()
	if err != nil || !strings.Contains(event.GetLinkLost().GetReason(), "70000 bytes") {
		t.Errorf("%v, %v", event, err)
	}
	leave()
	eventually(t, "still attached", func() bool {
		answer, err := f.Status(context.Background(), &pb.StatusRequest{})
		return err == nil && len(answer.GetMembers()) == 0 && f.service.IdleFor() > 0
	})
}

// link gives one end of a connection to the switch, as a supervisor does, and returns the VMM's.
func link(t *testing.T, path string) net.Conn {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	theirs := os.NewFile(uintptr(pair[0]), "vmm")
	defer func() { _ = theirs.Close() }()
	defer func() { _ = unix.Close(pair[1]) }()
	give(t, path, unix.UnixRights(pair[1]))
	conn, err := net.FileConn(theirs)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func give(t *testing.T, path string, rights []byte) {
	t.Helper()
	giver, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = giver.Close() }()
	if _, _, err := giver.WriteMsgUnix([]byte{0}, rights, nil); err != nil {
		t.Fatal(err)
	}
}

func TestALinkThatIsNone(t *testing.T) {
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	for name, rights := range map[string][]byte{"nothing": nil, "no socket": unix.UnixRights(int(file.Fd()))} {
		t.Run(name, func(t *testing.T) {
			f := setup(t)
			ctx, leave := context.WithCancel(context.Background())
			defer leave()
			stream, _ := f.attach(ctx, t)
			give(t, f.request().GetSocketPath(), rights)
			event, err := stream.Recv()
			if err != nil || !strings.Contains(event.GetLinkLost().GetReason(), "could not be taken") {
				t.Errorf("%v, %v", event, err)
			}
		})
	}
}

func TestAContainerComesBackAtOnce(t *testing.T) {
	f := setup(t)
	first, leave := context.WithCancel(context.Background())
	f.attach(first, t)
	time.AfterFunc(100*time.Millisecond, leave)
	ctx, done := context.WithCancel(context.Background())
	defer done()
	if _, attached := f.attach(ctx, t); attached.GetIp() == "" {
		t.Error("no address")
	}
}

func TestLookupForASibling(t *testing.T) {
	f := setup(t)
	ctx, leave := context.WithCancel(context.Background())
	defer leave()
	f.attach(ctx, t)
	member := &lan.Member{ID: "a", Siblings: []string{"/nowhere", filepath.Join(f.directory, "control")}}
	if got := service.Siblings(ctx, member, "web"); len(got) != 2 || got[0].String() != "10.86.0.2" || got[1].String() != "fd00:86::2" {
		t.Errorf("%v", got)
	}
	// One that is not attached learns nothing.
	stranger := &lan.Member{ID: "b", Siblings: member.Siblings}
	if got := service.Siblings(ctx, stranger, "web"); len(got) != 0 {
		t.Errorf("%v", got)
	}
}

func TestAttachRefuses(t *testing.T) {
	f := setup(t)
	ctx, leave := context.WithCancel(context.Background())
	defer leave()
	f.attach(ctx, t)
	for name, c := range map[string]struct {
		change func(*pb.AttachRequest)
		code   codes.Code
	}{
		"twice":           {func(*pb.AttachRequest) {}, codes.AlreadyExists},
		"no MAC":          {func(r *pb.AttachRequest) { r.ContainerId, r.Mac = "b", "" }, codes.InvalidArgument},
		"no address":      {func(r *pb.AttachRequest) { r.ContainerId, r.Ip = "b", "x" }, codes.InvalidArgument},
		"IPv6":            {func(r *pb.AttachRequest) { r.ContainerId, r.Ip = "b", "fd00::2" }, codes.InvalidArgument},
		"another subnet":  {func(r *pb.AttachRequest) { r.ContainerId, r.Mac, r.Ip = "b", "52:54:00:00:00:02", "10.1.1.1" }, codes.InvalidArgument},
		"relative socket": {func(r *pb.AttachRequest) { r.SocketPath = "a" }, codes.InvalidArgument},
		"ports":           {func(r *pb.AttachRequest) { r.HostPorts = []*pb.PortRange{{First: 5, Last: 4}} }, codes.InvalidArgument},
		"name servers":    {func(r *pb.AttachRequest) { r.Nameservers = []string{"x"} }, codes.InvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			request := f.request()
			request.SocketPath = filepath.Join(f.directory, "other")
			c.change(request)
			stream, err := f.Attach(context.Background(), request)
			if err == nil {
				_, err = stream.Recv()
			}
			if status.Code(err) != c.code {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestPublish(t *testing.T) {
	f := setup(t)
	ctx, leave := context.WithCancel(context.Background())
	defer leave()
	f.attach(ctx, t)
	publish := func(port *pb.Port, last uint32) (*pb.Port, error) {
		answer, err := f.Publish(ctx, &pb.PublishRequest{ContainerId: "a", Port: port, LastHostPort: last})
		if len(answer.GetPorts()) != 1 {
			return nil, err
		}
		return answer.GetPorts()[0], err
	}
	got, err := publish(&pb.Port{HostIp: "127.0.0.1", ContainerPort: 80, Protocol: "tcp"}, 0)
	if err != nil || got.GetHostPort() == 0 {
		t.Fatalf("%v, %v", got, err)
	}
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(int(got.GetHostPort())))
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	if _, err := publish(got, 0); status.Code(err) != codes.AlreadyExists || !strings.Contains(err.Error(), address) {
		t.Errorf("busy: %v", err)
	}
	if mapped, err := publish(&pb.Port{HostIp: "::ffff:127.0.0.1", ContainerPort: 80, Protocol: "tcp"}, 0); err != nil || mapped.GetHostIp() != "127.0.0.1" {
		t.Errorf("an IPv4 address in one of IPv6: %v, %v", mapped, err)
	}
	if next, err := publish(got, got.GetHostPort()+50); err != nil || next.GetHostPort() <= got.GetHostPort() {
		t.Errorf("range: %v, %v", next, err)
	}
	for name, c := range map[string]struct {
		port *pb.Port
		code codes.Code
	}{
		"not here":     {&pb.Port{HostIp: "203.0.113.1", ContainerPort: 80, Protocol: "tcp"}, codes.InvalidArgument},
		"no protocol":  {&pb.Port{ContainerPort: 80, Protocol: "sctp"}, codes.InvalidArgument},
		"no port":      {&pb.Port{Protocol: "tcp"}, codes.InvalidArgument},
		"a large port": {&pb.Port{HostPort: 70000, ContainerPort: 80, Protocol: "tcp"}, codes.InvalidArgument},
	} {
		if _, err := publish(c.port, 0); status.Code(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := f.Unpublish(ctx, &pb.UnpublishRequest{ContainerId: "a", Port: got}); err != nil {
		t.Error(err)
	}
	eventually(t, "an unpublished port is open", func() bool {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	})
	udp, err := publish(&pb.Port{HostIp: "127.0.0.1", ContainerPort: 53, Protocol: "udp"}, 0)
	if err != nil {
		t.Fatal(err)
	}
	leave()
	eventually(t, "a port outlives its container", func() bool {
		conn, err := net.ListenPacket("udp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(udp.GetHostPort()))))
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	if _, err := f.Publish(context.Background(), &pb.PublishRequest{ContainerId: "a", Port: got}); status.Code(err) != codes.NotFound {
		t.Errorf("%v", err)
	}
}
