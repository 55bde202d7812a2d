// Package guesttest is a guest for tests: a TCP/IP stack whose frames come and go as a VMM's do.
package guesttest

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"woodlot.dev/switch/internal/lan"
	"woodlot.dev/switch/internal/wire"
)

// Guest has one address and sends everything to the gateway.
type Guest struct {
	Member *lan.Member
	// Conn is its end of the VMM's connection, for frames made by hand.
	Conn  net.Conn
	stack *stack.Stack
	link  *channel.Endpoint
}

// Attach attaches a guest to the network for the life of the test.
func Attach(t *testing.T, l *lan.Lan, request lan.Request) *Guest {
	t.Helper()
	member, err := l.Attach(request)
	if err != nil {
		t.Fatal(err)
	}
	inner, outer := net.Pipe()
	ended := make(chan struct{})
	go func() { _ = l.Serve(member, inner); close(ended) }()
	t.Cleanup(func() { l.Detach(member); <-ended })
	return &Guest{Member: member, Conn: outer}
}

// Start gives the guest a TCP/IP stack.
func (g *Guest) Start(t *testing.T) *Guest {
	t.Helper()
	g.link = channel.New(256, lan.MTU, "")
	g.stack = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocolWithOptions(ipv6.Options{})},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol},
	})
	if err := g.stack.CreateNIC(1, g.link); err != nil {
		t.Fatal(err)
	}
	for _, ip := range []netip.Addr{g.Member.IP, g.Member.IP6} {
		if !ip.IsValid() {
			continue
		}
		own := tcpip.ProtocolAddress{Protocol: protocolOf(ip), AddressWithPrefix: tcpip.AddrFromSlice(ip.AsSlice()).WithPrefix()}
		if err := g.stack.AddProtocolAddress(1, own, stack.AddressProperties{}); err != nil {
			t.Fatal(err)
		}
	}
	g.stack.SetRouteTable([]tcpip.Route{
		{Destination: header.IPv4EmptySubnet, NIC: 1}, {Destination: header.IPv6EmptySubnet, NIC: 1},
	})
	ctx, stop := context.WithCancel(context.Background())
	t.Cleanup(stop)
	go g.send(ctx)
	go g.receive()
	return g
}

func (g *Guest) send(ctx context.Context) {
	for pkt := g.link.ReadContext(ctx); pkt != nil; pkt = g.link.ReadContext(ctx) {
		g.Frame(lan.GatewayMAC, g.Member.MAC, pkt.NetworkProtocolNumber, pkt.ToView().AsSlice())
		pkt.DecRef()
	}
}

func (g *Guest) receive() {
	buf := make([]byte, 2048)
	for {
		frame, err := wire.ReadFrame(g.Conn, buf)
		if err != nil {
			return
		}
		switch kind := tcpip.NetworkProtocolNumber(binary.BigEndian.Uint16(frame[12:14])); kind {
		case ipv4.ProtocolNumber, ipv6.ProtocolNumber:
			pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(frame[14:])})
			g.link.InjectInbound(kind, pkt)
			pkt.DecRef()
		}
	}
}

// Frame sends a frame made by hand.
func (g *Guest) Frame(destination, source lan.MAC, kind tcpip.NetworkProtocolNumber, payload []byte) {
	frame := append(append(destination[:], source[:]...), byte(kind>>8), byte(kind))
	_ = wire.WriteFrames(g.Conn, [][]byte{append(frame, payload...)})
}

// Next gives the next frame that the guest receives, or nil if there is none for a moment; not with a stack.
func (g *Guest) Next(t *testing.T, wait time.Duration) []byte {
	t.Helper()
	_ = g.Conn.SetReadDeadline(time.Now().Add(wait))
	defer func() { _ = g.Conn.SetReadDeadline(time.Time{}) }()
	frame, err := wire.ReadFrame(g.Conn, make([]byte, 2048))
	if err != nil {
		return nil
	}
	return frame
}

// Dial connects from the guest.
func (g *Guest) Dial(ctx context.Context, to string) (net.Conn, error) {
	address, protocol := full(to)
	return gonet.DialContextTCP(ctx, g.stack, address, protocol)
}

// DialUDP makes a datagram socket in the guest.
func (g *Guest) DialUDP(to string) (net.Conn, error) {
	address, protocol := full(to)
	return gonet.DialUDP(g.stack, nil, &address, protocol)
}

// Listen listens in the guest.
func (g *Guest) Listen(t *testing.T, port uint16) net.Listener {
	t.Helper()
	listener, err := gonet.ListenTCP(g.stack, tcpip.FullAddress{NIC: 1, Port: port}, ipv4.ProtocolNumber)
	if err != nil {
		t.Fatal(err)
	}
	return listener
}

// ListenUDP takes datagrams in the guest.
func (g *Guest) ListenUDP(t *testing.T, port uint16) net.PacketConn {
	t.Helper()
	conn, err := gonet.DialUDP(g.stack, &tcpip.FullAddress{NIC: 1, Port: port}, nil, ipv4.ProtocolNumber)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func full(to string) (tcpip.FullAddress, tcpip.NetworkProtocolNumber) {
	address := netip.MustParseAddrPort(to)
	ip := tcpip.AddrFromSlice(address.Addr().AsSlice())
	return tcpip.FullAddress{NIC: 1, Addr: ip, Port: address.Port()}, protocolOf(address.Addr())
}

func protocolOf(ip netip.Addr) tcpip.NetworkProtocolNumber {
	if ip.Is4() {
		return ipv4.ProtocolNumber
	}
	return ipv6.ProtocolNumber
}
