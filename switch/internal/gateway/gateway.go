// Package gateway is the network's way out and in: a TCP/IP stack (gVisor's) that ends the guests' connections, and
// sockets of the host that begin them anew.
//
// What a guest may reach is decided here, for each connection and ping, before any socket is made: never the host's loopback but
// through the host's address and for the ports it was allowed, never a link-local address (cloud metadata), and nothing
// at all beyond an internal network.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"

	"woodlot.dev/switch/internal/lan"
)

const (
	nic = 1
	// Packets of the stack that wait to be taken to the guests.
	queuePackets = 1024
	// Connections that guests have asked for and that are not decided yet, over all members.
	maxPending = 2048
	// Of one connection, each way: what a guest that does not read can make the switch hold.
	maxBuffer     = 256 << 10
	defaultBuffer = 128 << 10
	dialTimeout   = 15 * time.Second
	udpIdle       = 60 * time.Second
	maxDatagram   = 64 << 10
)

// Dialer makes the host's end of a connection; net.Dialer but in tests.
type Dialer interface {
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}

// Gateway is the first address of a network.
type Gateway struct {
	lan    *lan.Lan
	stack  *stack.Stack
	link   *channel.Endpoint
	dialer Dialer
	echoes echoes
}

// New puts a gateway on the network; it works until the context ends.
func New(ctx context.Context, l *lan.Lan, dialer Dialer) (*Gateway, error) {
	g := &Gateway{lan: l, dialer: dialer, link: channel.New(queuePackets, lan.MTU, "")}
	if l.HasTrunk() {
		// The kernel cuts what is sent into segments, and has checked what it brings.
		g.link.SupportedGSOKind = stack.HostGSOSupported
		g.link.LinkEPCapabilities = stack.CapabilityRXChecksumOffload
	}
	g.stack = stack.New(stack.Options{
		// Neighbours are the lan's business: with no options the stack asks for none.
		NetworkProtocols: []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocolWithOptions(ipv6.Options{})},
		TransportProtocols: []stack.TransportProtocolFactory{
			tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6,
		},
	})
	if err := g.configure(); err != nil {
		return nil, fmt.Errorf("set up the gateway %s: %s", l.Gateway, err)
	}
	g.stack.SetTransportProtocolHandler(tcp.ProtocolNumber, tcp.NewForwarder(g.stack, 0, maxPending, g.acceptTCP).HandlePacket)
	g.stack.SetTransportProtocolHandler(udp.ProtocolNumber, udp.NewForwarder(g.stack, g.acceptUDP).HandlePacket)
	l.SetUplink(g.receive)
	go g.deliver(ctx)
	return g, nil
}

func (g *Gateway) configure() tcpip.Error {
	if err := g.stack.CreateNIC(nic, g.link); err != nil {
		return err
	}
	for _, ip := range []netip.Addr{g.lan.Gateway, g.lan.Gateway6} {
		if !ip.IsValid() {
			continue
		}
		address := tcpip.ProtocolAddress{Protocol: protocolOf(ip), AddressWithPrefix: toStack(ip).WithPrefix()}
		if err := g.stack.AddProtocolAddress(nic, address, stack.AddressProperties{}); err != nil {
			return err
		}
	}
	// Packets to any address come here, and answers leave with that address.
	g.stack.SetPromiscuousMode(nic, true)
	g.stack.SetSpoofing(nic, true)
	g.stack.SetRouteTable([]tcpip.Route{
		{Destination: header.IPv4EmptySubnet, NIC: nic}, {Destination: header.IPv6EmptySubnet, NIC: nic},
	})
	receive := tcpip.TCPReceiveBufferSizeRangeOption{Min: 4 << 10, Default: defaultBuffer, Max: maxBuffer}
	if err := g.stack.SetTransportProtocolOption(tcp.ProtocolNumber, &receive); err != nil {
		return err
	}
	send := tcpip.TCPSendBufferSizeRangeOption{Min: 4 << 10, Default: defaultBuffer, Max: maxBuffer}
	if err := g.stack.SetTransportProtocolOption(tcp.ProtocolNumber, &send); err != nil {
		return err
	}
	sack := tcpip.TCPSACKEnabled(true)
	return g.stack.SetTransportProtocolOption(tcp.ProtocolNumber, &sack)
}

// receive takes a member's packet into the stack, but for pings of others than the gateway and the host: the stack would
// answer them itself, and lie.
func (g *Gateway) receive(from *lan.Member, packet []byte, to netip.Addr, protocol byte) {
	switch tcpip.TransportProtocolNumber(protocol) {
	case header.TCPProtocolNumber, header.UDPProtocolNumber:
	case header.ICMPv4ProtocolNumber, header.ICMPv6ProtocolNumber:
		if !g.lan.IsGateway(to) && !g.lan.IsHost(to) {
			g.echo(from, packet)
			return
		}
	default:
		return
	}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(packet)})
	defer pkt.DecRef()
	g.link.InjectInbound(protocolOf(to), pkt)
}

func (g *Gateway) deliver(ctx context.Context) {
	for {
		pkt := g.link.ReadContext(ctx)
		if pkt == nil {
			return
		}
		view := pkt.ToView()
		if g.lan.HasTrunk() {
			g.lan.DeliverLarge(view.AsSlice(), offload(pkt))
		} else {
			g.lan.Deliver(view.AsSlice())
		}
		view.Release()
		pkt.DecRef()
	}
}

// route gives the host's addresses for what a member wants to reach, the best one first, or none if it may not.
func (g *Gateway) route(from *lan.Member, to netip.AddrPort) []string {
	if g.lan.IsHost(to.Addr()) {
		if !from.MayReachHost(to.Port()) {
			return nil
		}
		port := strconv.Itoa(int(to.Port()))
		return []string{net.JoinHostPort("127.0.0.1", port), net.JoinHostPort("::1", port)}
	}
	if !g.mayLeave(from, to) {
		return nil
	}
	return []string{to.String()}
}

// mayLeave tells whether a member may reach an address beyond the network; port 0 stands for what has no port.
func (g *Gateway) mayLeave(from *lan.Member, to netip.AddrPort) bool {
	return !g.lan.Internal && !g.lan.Contains(to.Addr()) && isRemote(to.Addr()) && from.Egress.Allows(to)
}

// dial connects to the first of some addresses that takes it.
func (g *Gateway) dial(ctx context.Context, addresses []string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	var failure error
	for _, address := range addresses {
		conn, err := g.dialer.DialContext(ctx, "tcp", address)
		if err == nil {
			return conn, nil
		}
		failure = errors.Join(failure, err)
	}
	return nil, failure
}

func (g *Gateway) acceptTCP(r *tcp.ForwarderRequest) {
	id := r.ID()
	from := g.lan.MemberAt(fromStack(id.RemoteAddress))
	if from == nil || !from.TCP.Take() {
		r.Complete(true)
		return
	}
	defer from.TCP.Release()
	wanted := netip.AddrPortFrom(fromStack(id.LocalAddress), id.LocalPort)
	to := g.route(from, wanted)
	if to == nil {
		g.lan.Refused(from, "TCP to "+wanted.String())
		r.Complete(true)
		return
	}
	out, err := g.dial(from.Context(), to)
	if err != nil {
		r.Complete(true)
		return
	}
	var queue waiter.Queue
	endpoint, failed := r.CreateEndpoint(&queue)
	r.Complete(false)
	if failed != nil {
		_ = out.Close()
		return
	}
	Relay(from.Context(), gonet.NewTCPConn(&queue, endpoint), out)
}

type halfCloser interface{ CloseWrite() error }

// Relay carries bytes both ways until both have ended or the context has, and closes both connections.
func Relay(ctx context.Context, a, b net.Conn) {
	closeBoth := func() { _, _ = a.Close(), b.Close() }
	stop := context.AfterFunc(ctx, closeBoth)
	defer stop()
	var both sync.WaitGroup
	copyTo := func(to, from net.Conn) {
		_, err := io.Copy(to, from)
		half, ok := to.(halfCloser)
		if err != nil || !ok || half.CloseWrite() != nil {
			closeBoth()
		}
	}
	both.Go(func() { copyTo(a, b) })
	both.Go(func() { copyTo(b, a) })
	both.Wait()
	closeBoth()
}

func (g *Gateway) acceptUDP(r *udp.ForwarderRequest) {
	id := r.ID()
	from := g.lan.MemberAt(fromStack(id.RemoteAddress))
	if from == nil {
		return
	}
	wanted := netip.AddrPortFrom(fromStack(id.LocalAddress), id.LocalPort)
	to := g.route(from, wanted)
	if to == nil {
		g.lan.Refused(from, "UDP to "+wanted.String())
		g.refuseUDP(from, id)
		return
	}
	if !from.UDP.Take() {
		return
	}
	// Called for each packet on its way in; a datagram socket is made without waiting. Whether anybody takes what is sent
	// to the first address cannot be known.
	out, err := g.dialer.DialContext(from.Context(), "udp", to[0])
	if err != nil {
		// The host has no way there: IPv6 often.
		from.UDP.Release()
		g.refuseUDP(from, id)
		return
	}
	var queue waiter.Queue
	endpoint, failed := r.CreateEndpoint(&queue)
	if failed != nil {
		_ = out.Close()
		from.UDP.Release()
		return
	}
	go func() {
		defer from.UDP.Release()
		RelayDatagrams(from.Context(), gonet.NewUDPConn(&queue, endpoint), out)
	}()
}

var datagrams = sync.Pool{New: func() any { return new([maxDatagram]byte) }}

// RelayDatagrams carries datagrams both ways until there have been none for a minute or the context ends, and closes both.
func RelayDatagrams(ctx context.Context, a, b net.Conn) {
	closeBoth := func() { _, _ = a.Close(), b.Close() }
	stop := context.AfterFunc(ctx, closeBoth)
	defer stop()
	idle := time.AfterFunc(udpIdle, closeBoth)
	defer idle.Stop()
	var both sync.WaitGroup
	copyTo := func(to, from net.Conn) {
		buf := datagrams.Get().(*[maxDatagram]byte)
		defer datagrams.Put(buf)
		for {
			n, err := from.Read(buf[:])
			if err != nil {
				// Nobody listens there: said once for each datagram, and no reason to end.
				if isRefused(err) {
					continue
				}
				closeBoth()
				return
			}
			idle.Reset(udpIdle)
			_, _ = to.Write(buf[:n])
		}
	}
	both.Go(func() { copyTo(a, b) })
	both.Go(func() { copyTo(b, a) })
	both.Wait()
}

// Dial connects to a port of a member, from the gateway's address; network is "tcp" or "udp".
func (g *Gateway) Dial(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
	address := tcpip.FullAddress{NIC: nic, Addr: toStack(to.Addr()), Port: to.Port()}
	if network == "udp" {
		return gonet.DialUDP(g.stack, g.self(0), &address, ipv4.ProtocolNumber)
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	return gonet.DialTCPWithBind(ctx, g.stack, *g.self(0), address, ipv4.ProtocolNumber)
}

// Listen gives both kinds of sockets of a port of the gateway.
func (g *Gateway) Listen(port uint16) (net.PacketConn, net.Listener, error) {
	packets, err := gonet.DialUDP(g.stack, g.self(port), nil, ipv4.ProtocolNumber)
	if err != nil {
		return nil, nil, err
	}
	listener, err := gonet.ListenTCP(g.stack, *g.self(port), ipv4.ProtocolNumber)
	if err != nil {
		_ = packets.Close()
		return nil, nil, err
	}
	return packets, listener, nil
}

func (g *Gateway) self(port uint16) *tcpip.FullAddress {
	return &tcpip.FullAddress{NIC: nic, Addr: toStack(g.lan.Gateway), Port: port}
}

func toStack(ip netip.Addr) tcpip.Address { return tcpip.AddrFromSlice(ip.AsSlice()) }

func fromStack(ip tcpip.Address) netip.Addr {
	found, _ := netip.AddrFromSlice(ip.AsSlice())
	return found
}

func protocolOf(ip netip.Addr) tcpip.NetworkProtocolNumber {
	if ip.Is4() {
		return ipv4.ProtocolNumber
	}
	return ipv6.ProtocolNumber
}
