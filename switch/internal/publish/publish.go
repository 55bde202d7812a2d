// Package publish opens ports of the host towards containers.
package publish

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"syscall"
	"time"

	"woodlot.dev/switch/internal/egress"
	"woodlot.dev/switch/internal/gateway"
	"woodlot.dev/switch/internal/lan"
)

// Limits of one published port.
const (
	maxConnections = 1024
	maxClients     = 512
	maxDatagram    = 64 << 10
	acceptPause    = 50 * time.Millisecond
)

// What opening a port refuses.
var (
	ErrBusy       = errors.New("in use")
	ErrPrivileged = errors.New("privileged")
	ErrInvalid    = errors.New("invalid")
)

// Port is one published port.
type Port struct {
	// HostIP is the zero Addr for every address of the host, of both families.
	HostIP    netip.Addr
	HostPort  uint16
	Container uint16
	// Protocol is "tcp" or "udp".
	Protocol string
}

func (p Port) String() string {
	host := "*"
	if p.HostIP.IsValid() {
		host = p.HostIP.String()
	}
	return fmt.Sprintf("%s/%s", net.JoinHostPort(host, strconv.Itoa(int(p.HostPort))), p.Protocol)
}

// network is of one family if the address is: 0.0.0.0 is every address of IPv4, and none of IPv6.
func (p Port) network(ipv6 bool) string {
	switch {
	case !p.HostIP.IsValid() && ipv6:
		return p.Protocol
	case !p.HostIP.IsValid() || p.HostIP.Is4():
		return p.Protocol + "4"
	}
	return p.Protocol + "6"
}

// Opened is a port that is open; it closes with the member, or before.
type Opened struct {
	Port
	// Addresses are where it is open: every address of a family is 0.0.0.0 or "::".
	Addresses []netip.Addr

	ctx   context.Context
	close context.CancelFunc
}

// Close closes the port and its connections.
func (o *Opened) Close() { o.close() }

// Open opens a port towards a member; with last, the first that is free from p.HostPort to last.
func Open(g *gateway.Gateway, to *lan.Member, p Port, last uint16) (*Opened, error) {
	if p.Container == 0 || p.Protocol != "tcp" && p.Protocol != "udp" || last != 0 && last < p.HostPort {
		return nil, fmt.Errorf("%w: cannot publish %s", ErrInvalid, p)
	}
	var failure error
	for port := int(p.HostPort); port <= max(int(p.HostPort), int(last)); port++ {
		try := p
		try.HostPort = uint16(port)
		opened, err := open(g, to, try)
		if err == nil {
			return opened, nil
		}
		if failure = err; !errors.Is(err, ErrBusy) {
			break
		}
	}
	if last > p.HostPort && errors.Is(failure, ErrBusy) {
		return nil, fmt.Errorf("%w: all ports of the host from %d to %d (%s)", ErrBusy, p.HostPort, last, p.Protocol)
	}
	return nil, failure
}

func open(g *gateway.Gateway, to *lan.Member, p Port) (*Opened, error) {
	ipv6 := hasIPv6()
	o := &Opened{Port: p}
	host := ""
	switch {
	case p.HostIP.Is6() && !ipv6:
		// Nobody could come, though "::" can be listened on.
		return nil, fmt.Errorf("%w: %s cannot be opened, for this host has no IPv6", ErrInvalid, p)
	case p.HostIP.IsValid():
		host, o.Addresses = p.HostIP.String(), []netip.Addr{p.HostIP}
	case ipv6:
		o.Addresses = []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	default:
		o.Addresses = []netip.Addr{netip.IPv4Unspecified()}
	}
	address, network := net.JoinHostPort(host, strconv.Itoa(int(p.HostPort))), p.network(ipv6)
	o.ctx, o.close = context.WithCancel(to.Context())
	target := netip.AddrPortFrom(to.IP, p.Container)
	if p.Protocol == "udp" {
		conn, err := listenPackets(network, address)
		if err != nil {
			o.close()
			return nil, explain(err, p)
		}
		o.HostPort = uint16(conn.LocalAddr().(*net.UDPAddr).Port)
		context.AfterFunc(o.ctx, func() { _ = conn.Close() })
		go o.servePackets(g, conn, target)
		return o, nil
	}
	listener, err := net.Listen(network, address)
	if err != nil {
		o.close()
		return nil, explain(err, p)
	}
	o.HostPort = uint16(listener.Addr().(*net.TCPAddr).Port)
	context.AfterFunc(o.ctx, func() { _ = listener.Close() })
	go o.serve(g, listener, target)
	return o, nil
}

// hasIPv6 tells whether any of the host's cards has an IPv6 address; where the protocol is switched off, none has.
func hasIPv6() bool { return slices.ContainsFunc(egress.HostAddresses(), netip.Addr.Is6) }

func explain(err error, p Port) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%w: port %s of the host", ErrBusy, p)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%w: port %s of the host", ErrPrivileged, p)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%w: %s is no address of this host", ErrInvalid, p.HostIP)
	}
	return fmt.Errorf("open port %s of the host: %w", p, err)
}

func (o *Opened) serve(g *gateway.Gateway, listener net.Listener, target netip.AddrPort) {
	slots := make(lan.Slots, maxConnections)
	for {
		conn, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// No more descriptors: what is open must end first.
			time.Sleep(acceptPause)
			continue
		}
		if !slots.Take() {
			_ = conn.Close()
			continue
		}
		go func() {
			defer slots.Release()
			inner, err := g.Dial(o.ctx, "tcp", target)
			if err != nil {
				reset(conn)
				return
			}
			gateway.Relay(o.ctx, conn, inner)
		}()
	}
}

// reset lets the client know that nobody is there, as far as that is possible once it is connected.
func reset(conn net.Conn) {
	if c, ok := conn.(*net.TCPConn); ok {
		_ = c.SetLinger(0)
	}
	_ = conn.Close()
}
