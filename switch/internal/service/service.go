// Package service is the switch's gRPC service: it checks what supervisors ask for and keeps who is attached.
package service

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"woodlot.dev/switch/internal/egress"
	"woodlot.dev/switch/internal/gateway"
	"woodlot.dev/switch/internal/lan"
	"woodlot.dev/switch/internal/pb"
	"woodlot.dev/switch/internal/publish"
)

const (
	maxPorts       = 4096
	maxHostPorts   = 256
	maxNameservers = 8
	maxSiblings    = 16
	maxSocketPath  = 107 // sun_path, unix(7)
	formerWait     = time.Second
	formerLook     = 20 * time.Millisecond
)

// Service answers supervisors.
type Service struct {
	pb.UnimplementedSwitchServer

	lan     *lan.Lan
	gateway *gateway.Gateway
	plugs   Plugs

	mu    sync.Mutex
	ports map[*lan.Member][]*publish.Opened
	calls int
	used  bool
	// idleSince is when the last stream ended; zero while there is one.
	idleSince time.Time
}

var _ pb.SwitchServer = (*Service)(nil)

// New makes the service of one network; without plugs, VMMs send their frames to the switch itself.
func New(l *lan.Lan, g *gateway.Gateway, plugs Plugs) *Service {
	return &Service{lan: l, gateway: g, plugs: plugs, ports: map[*lan.Member][]*publish.Opened{}, idleSince: time.Now()}
}

// IdleFor tells for how long nobody has been attached, or about to be; 0 while somebody is.
func (s *Service) IdleFor() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calls > 0 {
		return 0
	}
	return time.Since(s.idleSince)
}

// Used tells whether anybody has ever attached, or tried to.
func (s *Service) Used() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.used
}

func (s *Service) enter() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	s.used = true
}

func (s *Service) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calls--; s.calls == 0 {
		s.idleSince = time.Now()
	}
}

// Attach joins a container for the life of the stream.
func (s *Service) Attach(request *pb.AttachRequest, stream pb.Switch_AttachServer) error {
	s.enter()
	defer s.leave()
	wanted, err := parse(request)
	if err != nil {
		return toStatus(err)
	}
	listener, err := listen(request.GetSocketPath())
	if err != nil {
		return toStatus(err)
	}
	defer func() { _ = listener.Close() }()
	member, err := s.join(wanted)
	if err != nil {
		return toStatus(err)
	}
	log.Printf("container %.12s attached at %s", member.ID, member.IP)
	defer s.detach(member)
	carry := s.serveLink
	if s.plugs != nil {
		tap, err := s.plugs.Plug(member)
		if err != nil {
			return toStatus(err)
		}
		defer func() { _ = tap.Close() }()
		carry = func(m *lan.Member, l *net.UnixListener) string { return handOver(m, l, tap) }
	}
	attached := &pb.AttachResponse_Attached{
		Ip:           member.IP.String(),
		PrefixLength: uint32(s.lan.Prefix.Bits()),
		Gateway:      s.lan.Gateway.String(),
		Host:         s.lan.Host.String(),
		Mtu:          lan.MTU,
		Internal:     s.lan.Internal,
	}
	if member.IP6.IsValid() {
		attached.IpV6 = member.IP6.String()
		attached.PrefixLengthV6 = uint32(s.lan.Prefix6.Bits())
		attached.GatewayV6 = s.lan.Gateway6.String()
	}
	if err := stream.Send(&pb.AttachResponse{Response: &pb.AttachResponse_Attached_{Attached: attached}}); err != nil {
		return err
	}
	lost := make(chan string, 1)
	go func() { lost <- carry(member, listener) }()
	select {
	case reason := <-lost:
		log.Printf("container %.12s: %s", member.ID, reason)
		event := &pb.AttachResponse_LinkLost{Reason: reason}
		if err := stream.Send(&pb.AttachResponse{Response: &pb.AttachResponse_LinkLost_{LinkLost: event}}); err != nil {
			return err
		}
		<-stream.Context().Done()
	case <-stream.Context().Done():
	}
	return nil
}

// join waits a moment for the same container's former stream to end: one that is started again at once may be faster.
func (s *Service) join(wanted lan.Request) (*lan.Member, error) {
	for deadline := time.Now().Add(formerWait); ; time.Sleep(formerLook) {
		member, err := s.lan.Attach(wanted)
		if err == nil || s.lan.Member(wanted.ID) == nil || time.Now().After(deadline) {
			return member, err
		}
	}
}

func (s *Service) detach(member *lan.Member) {
	if s.plugs != nil {
		s.plugs.Count(member)
		if err := s.plugs.Unplug(member); err != nil {
			log.Printf("container %.12s: unplug it: %v", member.ID, err)
		}
	}
	// Its context ends here, and with it its ports and connections.
	s.lan.Detach(member)
	s.mu.Lock()
	delete(s.ports, member)
	s.mu.Unlock()
	log.Printf("container %.12s detached; received %d frames, sent %d, dropped %d",
		member.ID, member.Received.Load(), member.Sent.Load(), member.Dropped.Load())
}

func listen(path string) (*net.UnixListener, error) {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path || len(path) > maxSocketPath {
		return nil, fmt.Errorf("%w: %q is no path for a socket", lan.ErrInvalid, path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("make the socket %s: %w", path, err)
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("make the socket %s: %w", path, err)
	}
	return listener, nil
}

// serveLink is given the switch's end of the VMM's connection, and carries its frames until it ends; the reason is for
// people.
func (s *Service) serveLink(member *lan.Member, listener *net.UnixListener) string {
	stop := context.AfterFunc(member.Context(), func() { _ = listener.Close() })
	defer stop()
	giver, err := listener.AcceptUnix()
	// One machine, one connection: the path is gone from here on.
	_ = listener.Close()
	if err != nil {
		return "nobody gave its connection"
	}
	conn, err := takeLink(giver)
	_ = giver.Close()
	if err != nil {
		return fmt.Sprintf("its connection could not be taken: %v", err)
	}
	if err := s.lan.Serve(member, conn); err != nil && member.Context().Err() == nil {
		return fmt.Sprintf("the virtual machine's network connection broke: %v", err)
	}
	return "the virtual machine closed its network connection"
}

// takeLink receives a connected socket.
func takeLink(giver *net.UnixConn) (net.Conn, error) {
	data, control := make([]byte, 1), make([]byte, unix.CmsgSpace(4))
	n, m, _, _, err := giver.ReadMsgUnix(data, control)
	if err != nil {
		return nil, err
	}
	messages, err := unix.ParseSocketControlMessage(control[:m])
	if err != nil || n != 1 || len(messages) != 1 {
		return nil, fmt.Errorf("%d bytes with %d messages came in place of it", n, len(messages))
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, fmt.Errorf("%d descriptors came in place of it", len(fds))
	}
	file := os.NewFile(uintptr(fds[0]), "link")
	defer func() { _ = file.Close() }()
	return net.FileConn(file)
}

func parse(r *pb.AttachRequest) (lan.Request, error) {
	wanted := lan.Request{ID: r.GetContainerId(), Names: r.GetNames()}
	var err error
	if wanted.MAC, err = lan.ParseMAC(r.GetMac()); err != nil {
		return wanted, err
	}
	if r.GetIp() != "" {
		if wanted.IP, err = netip.ParseAddr(r.GetIp()); err != nil || !wanted.IP.Is4() {
			return wanted, fmt.Errorf("%w: %q is no IPv4 address", lan.ErrInvalid, r.GetIp())
		}
	}
	if len(r.GetHostPorts()) > maxHostPorts || len(r.GetNameservers()) > maxNameservers {
		return wanted, fmt.Errorf("%w: more than %d host ports or %d name servers", lan.ErrInvalid, maxHostPorts, maxNameservers)
	}
	for _, ports := range r.GetHostPorts() {
		if ports.GetFirst() == 0 || ports.GetLast() > 65535 || ports.GetFirst() > ports.GetLast() {
			return wanted, fmt.Errorf("%w: %d to %d are no ports", lan.ErrInvalid, ports.GetFirst(), ports.GetLast())
		}
		wanted.HostPorts = append(wanted.HostPorts, lan.PortRange{First: uint16(ports.GetFirst()), Last: uint16(ports.GetLast())})
	}
	if len(r.GetSiblingSockets()) > maxSiblings {
		return wanted, fmt.Errorf("%w: more than %d other networks", lan.ErrInvalid, maxSiblings)
	}
	wanted.Siblings = r.GetSiblingSockets()
	for _, text := range r.GetNameservers() {
		ip, err := netip.ParseAddr(text)
		if err != nil {
			return wanted, fmt.Errorf("%w: %q is no address of a name server", lan.ErrInvalid, text)
		}
		wanted.Nameservers = append(wanted.Nameservers, ip)
	}
	wanted.Egress, err = parseEgress(r.GetEgress())
	return wanted, err
}

// Publish opens a port.
func (s *Service) Publish(_ context.Context, r *pb.PublishRequest) (*pb.PublishResponse, error) {
	member := s.lan.Member(r.GetContainerId())
	if member == nil {
		return nil, status.Errorf(codes.NotFound, "container %s is not attached", r.GetContainerId())
	}
	port, err := parsePort(r.GetPort())
	if err != nil {
		return nil, toStatus(err)
	}
	if r.GetLastHostPort() > 65535 {
		return nil, status.Errorf(codes.InvalidArgument, "%d is no port", r.GetLastHostPort())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.ports[member]) >= maxPorts {
		return nil, status.Errorf(codes.ResourceExhausted, "a container has at most %d published ports", maxPorts)
	}
	opened, err := publish.Open(s.gateway, member, port, uint16(r.GetLastHostPort()))
	if err != nil {
		return nil, toStatus(err)
	}
	s.ports[member] = append(s.ports[member], opened)
	return &pb.PublishResponse{Ports: fromOpened(opened)}, nil
}

// Unpublish closes a port.
func (s *Service) Unpublish(_ context.Context, r *pb.UnpublishRequest) (*pb.UnpublishResponse, error) {
	port, err := parsePort(r.GetPort())
	if err != nil {
		return nil, toStatus(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	member := s.lan.Member(r.GetContainerId())
	for i, opened := range s.ports[member] {
		if opened.Port == port {
			opened.Close()
			s.ports[member] = append(s.ports[member][:i:i], s.ports[member][i+1:]...)
			return &pb.UnpublishResponse{}, nil
		}
	}
	return nil, status.Errorf(codes.NotFound, "container %s does not publish %s", r.GetContainerId(), port)
}

func parsePort(p *pb.Port) (publish.Port, error) {
	port := publish.Port{Protocol: p.GetProtocol()}
	if p.GetHostIp() != "" {
		var err error
		if port.HostIP, err = netip.ParseAddr(p.GetHostIp()); err != nil {
			return port, fmt.Errorf("%w: %q is no address", lan.ErrInvalid, p.GetHostIp())
		}
		port.HostIP = port.HostIP.Unmap()
	}
	if p.GetHostPort() > 65535 || p.GetContainerPort() > 65535 || p.GetContainerPort() == 0 {
		return port, fmt.Errorf("%w: %d:%d are no ports", lan.ErrInvalid, p.GetHostPort(), p.GetContainerPort())
	}
	port.HostPort, port.Container = uint16(p.GetHostPort()), uint16(p.GetContainerPort())
	return port, nil
}

func fromOpened(o *publish.Opened) []*pb.Port {
	var ports []*pb.Port
	for _, ip := range o.Addresses {
		ports = append(ports, &pb.Port{
			HostIp: ip.String(), HostPort: uint32(o.HostPort), ContainerPort: uint32(o.Container), Protocol: o.Protocol,
		})
	}
	return ports
}

// Lookup gives the addresses of a name.
func (s *Service) Lookup(_ context.Context, r *pb.LookupRequest) (*pb.LookupResponse, error) {
	if s.lan.Member(r.GetContainerId()) == nil {
		return nil, status.Errorf(codes.NotFound, "container %s is not attached", r.GetContainerId())
	}
	answer := &pb.LookupResponse{}
	for _, ip := range s.lan.Lookup(r.GetName()) {
		answer.Addresses = append(answer.Addresses, ip.String())
	}
	return answer, nil
}

// Siblings asks the switches of a member's other networks for a name.
func Siblings(ctx context.Context, from *lan.Member, name string) []netip.Addr {
	for _, socket := range from.Siblings {
		if found := ask(ctx, socket, &pb.LookupRequest{ContainerId: from.ID, Name: name}); len(found) > 0 {
			return found
		}
	}
	return nil
}

func ask(ctx context.Context, socket string, request *pb.LookupRequest) []netip.Addr {
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil
	}
	defer func() { _ = conn.Close() }()
	answer, err := pb.NewSwitchClient(conn).Lookup(ctx, request)
	if err != nil {
		return nil
	}
	var found []netip.Addr
	for _, text := range answer.GetAddresses() {
		if ip, err := netip.ParseAddr(text); err == nil {
			found = append(found, ip)
		}
	}
	return found
}

// Status tells who is attached.
func (s *Service) Status(context.Context, *pb.StatusRequest) (*pb.StatusResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	answer := &pb.StatusResponse{}
	for _, m := range s.lan.Members() {
		if s.plugs != nil {
			s.plugs.Count(m)
		}
		member := &pb.StatusResponse_Member{
			ContainerId: m.ID, Names: m.Names, Ip: m.IP.String(), Mac: m.MAC.String(),
			FramesReceived: m.Received.Load(), FramesSent: m.Sent.Load(), FramesDropped: m.Dropped.Load(),
			EgressRefused: m.EgressRefused.Load(),
		}
		if m.IP6.IsValid() {
			member.IpV6 = m.IP6.String()
		}
		for _, opened := range s.ports[m] {
			member.Ports = append(member.Ports, fromOpened(opened)...)
		}
		answer.Members = append(answer.Members, member)
	}
	return answer, nil
}

// toStatus keeps the message and drops the word that only says of what kind it is.
func toStatus(err error) error {
	kinds := []struct {
		kind error
		code codes.Code
	}{
		{lan.ErrInvalid, codes.InvalidArgument},
		{lan.ErrTaken, codes.AlreadyExists},
		{lan.ErrFull, codes.ResourceExhausted},
		{egress.ErrInvalid, codes.InvalidArgument},
		{publish.ErrInvalid, codes.InvalidArgument},
		{publish.ErrBusy, codes.AlreadyExists},
		{publish.ErrPrivileged, codes.PermissionDenied},
	}
	for _, k := range kinds {
		if errors.Is(err, k.kind) {
			return status.Error(k.code, err.Error()[len(k.kind.Error())+len(": "):])
		}
	}
	return status.Error(codes.Internal, err.Error())
}
