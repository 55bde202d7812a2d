package publish

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"woodlot.dev/switch/internal/gateway"
)

// packets is a UDP socket that knows at which of the host's addresses a datagram came: the answer must come from there, and
// a host has several, of IPv6 often.
type packets struct {
	*net.UDPConn
	v4 *ipv4.PacketConn
	// v6 is nil for a socket of IPv4 alone.
	v6 *ipv6.PacketConn
}

func listenPackets(network, address string) (*packets, error) {
	conn, err := net.ListenPacket(network, address)
	if err != nil {
		return nil, err
	}
	p := &packets{UDPConn: conn.(*net.UDPConn), v4: ipv4.NewPacketConn(conn)}
	if strings.HasSuffix(network, "4") {
		err = p.v4.SetControlMessage(ipv4.FlagDst, true)
	} else {
		p.v6 = ipv6.NewPacketConn(conn)
		err = p.v6.SetControlMessage(ipv6.FlagDst, true)
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return p, nil
}

// route is where a datagram came from and to.
type route struct {
	peer netip.AddrPort
	own  netip.Addr
}

func (p *packets) receive(buf []byte) (int, route, error) {
	var n int
	var from net.Addr
	var own net.IP
	var err error
	if p.v6 == nil {
		var cm *ipv4.ControlMessage
		if n, cm, from, err = p.v4.ReadFrom(buf); cm != nil {
			own = cm.Dst
		}
	} else {
		// It says an IPv4 address as one of IPv6.
		var cm *ipv6.ControlMessage
		if n, cm, from, err = p.v6.ReadFrom(buf); cm != nil {
			own = cm.Dst
		}
	}
	if err != nil {
		return 0, route{}, err
	}
	r := route{peer: from.(*net.UDPAddr).AddrPort()}
	r.own, _ = netip.AddrFromSlice(own)
	r.own = r.own.Unmap()
	return n, r, nil
}

// answer sends a datagram back; from where the kernel likes, if none can come from where it was asked, as a broadcast address.
func (p *packets) answer(buf []byte, r route) (int, error) {
	to := net.UDPAddrFromAddrPort(r.peer)
	err := errors.New("not known where it was asked")
	switch {
	case r.own.Is4():
		_, err = p.v4.WriteTo(buf, &ipv4.ControlMessage{Src: r.own.AsSlice()}, to)
	case r.own.Is6():
		_, err = p.v6.WriteTo(buf, &ipv6.ControlMessage{Src: r.own.AsSlice()}, to)
	}
	if err == nil {
		return len(buf), nil
	}
	return p.WriteTo(buf, to)
}

// client is one peer of a published UDP port, at one of the host's addresses: what a relay sees of it.
type client struct {
	*packets
	route
	in   chan []byte
	done chan struct{}
	once sync.Once
}

func (c *client) Read(buf []byte) (int, error) {
	select {
	case datagram := <-c.in:
		return copy(buf, datagram), nil
	case <-c.done:
		return 0, net.ErrClosed
	}
}

func (c *client) Write(buf []byte) (int, error) { return c.answer(buf, c.route) }

// Close ends this peer, not the port.
func (c *client) Close() error {
	c.once.Do(func() { close(c.done) })
	return nil
}

func (o *Opened) servePackets(g *gateway.Gateway, conn *packets, target netip.AddrPort) {
	var mu sync.Mutex
	clients := map[route]*client{}
	buf := make([]byte, maxDatagram)
	for {
		n, from, err := conn.receive(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		mu.Lock()
		c := clients[from]
		if c == nil && len(clients) < maxClients {
			if inner, err := g.Dial(o.ctx, "udp", target); err == nil {
				c = &client{packets: conn, route: from, in: make(chan []byte, 64), done: make(chan struct{})}
				clients[from] = c
				go func() {
					gateway.RelayDatagrams(o.ctx, c, inner)
					mu.Lock()
					delete(clients, from)
					mu.Unlock()
				}()
			}
		}
		mu.Unlock()
		if c != nil {
			select {
			case c.in <- append([]byte(nil), buf[:n]...):
			default:
			}
		}
	}
}
