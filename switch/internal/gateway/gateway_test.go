package gateway_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"woodlot.dev/switch/internal/egress"
	"woodlot.dev/switch/internal/gateway"
	"woodlot.dev/switch/internal/guesttest"
	"woodlot.dev/switch/internal/lan"
)

// dialer stands for the world: it answers everything with an echo, and remembers what was asked for.
type dialer struct {
	mu    sync.Mutex
	asked []string
	// nobody is at this address.
	nobody string
}

func (d *dialer) DialContext(_ context.Context, network, address string) (net.Conn, error) {
	d.mu.Lock()
	d.asked = append(d.asked, network+" "+address)
	d.mu.Unlock()
	if address == d.nobody {
		return nil, syscall.ECONNREFUSED
	}
	ours, theirs := net.Pipe()
	go func() { _, _ = io.Copy(theirs, theirs); _ = theirs.Close() }()
	return ours, nil
}

func (d *dialer) all() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Join(d.asked, ", ")
}

func setup(t *testing.T, internal bool, rules ...egress.Rule) (*lan.Lan, *gateway.Gateway, *guesttest.Guest, *dialer) {
	t.Helper()
	l, err := lan.New(netip.MustParsePrefix("10.86.0.0/24"), netip.MustParsePrefix("fd00:86::/64"), internal)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	t.Cleanup(stop)
	world := &dialer{}
	g, err := gateway.New(ctx, l, world)
	if err != nil {
		t.Fatal(err)
	}
	request := lan.Request{ID: "a", MAC: lan.MAC{0x52, 0x54, 0, 0, 0, 1}, HostPorts: []lan.PortRange{{First: 5432, Last: 5440}}}
	if rules != nil {
		if request.Egress, err = egress.New(rules, egress.HostAddresses); err != nil {
			t.Fatal(err)
		}
	}
	return l, g, guesttest.Attach(t, l, request).Start(t), world
}

func echo(t *testing.T, conn net.Conn) {
	t.Helper()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := conn.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 5)
	if _, err := io.ReadFull(conn, buf); err != nil || string(buf) != "hello" {
		t.Fatalf("%q, %v", buf, err)
	}
}

func TestAGuestReachesTheWorld(t *testing.T) {
	_, _, guest, world := setup(t, false)
	ctx, stop := context.WithTimeout(context.Background(), 5*time.Second)
	defer stop()
	for to, want := range map[string]string{
		"198.51.100.7:443": "tcp 198.51.100.7:443",
		// Allowed by the user.
		"10.86.0.254:5433":       "tcp 127.0.0.1:5433",
		"[fd00:86::fe]:5434":     "tcp 127.0.0.1:5434",
		"[2001:db8::7]:443":      "tcp [2001:db8::7]:443",
		"[fd00:1::7]:443":        "tcp [fd00:1::7]:443",
		"[64:ff9b::909:909]:443": "tcp [64:ff9b::909:909]:443",
	} {
		conn, err := guest.Dial(ctx, to)
		if err != nil {
			t.Fatalf("%s: %v", to, err)
		}
		echo(t, conn)
		_ = conn.Close()
		if !strings.Contains(world.all(), want) {
			t.Errorf("%s became %s", to, world.all())
		}
	}
	for _, to := range []string{"198.51.100.7:123", "[2001:db8::7]:123"} {
		conn, err := guest.DialUDP(to)
		if err != nil {
			t.Fatal(err)
		}
		echo(t, conn)
		_ = conn.Close()
		if !strings.Contains(world.all(), "udp "+to) {
			t.Error(world.all())
		}
	}
}

func TestAServiceOfTheHostThatListensForIPv6Alone(t *testing.T) {
	for _, to := range []string{"10.86.0.254:5432", "[fd00:86::fe]:5432"} {
		_, _, guest, world := setup(t, false)
		world.nobody = "127.0.0.1:5432"
		ctx, stop := context.WithTimeout(context.Background(), 5*time.Second)
		conn, err := guest.Dial(ctx, to)
		stop()
		if err != nil {
			t.Fatal(err)
		}
		echo(t, conn)
		_ = conn.Close()
		if got := world.all(); got != "tcp 127.0.0.1:5432, tcp [::1]:5432" {
			t.Error(got)
		}
	}
}

func TestWhatAGuestMayNotReach(t *testing.T) {
	for name, c := range map[string]struct {
		internal bool
		to       string
	}{
		"the host's loopback":                  {false, "127.0.0.1:22"},
		"another loopback address":             {false, "127.8.8.8:22"},
		"this host":                            {false, "0.0.0.0:22"},
		"the gateway":                          {false, "10.86.0.1:22"},
		"a port of the host that is not given": {false, "10.86.0.254:22"},
		"an address that nobody has":           {false, "10.86.0.77:22"},
		"cloud metadata":                       {false, "169.254.169.254:80"},
		"multicast":                            {false, "224.0.0.251:53"},
		"a reserved address":                   {false, "250.1.1.1:80"},
		"the world, from an internal network":  {true, "198.51.100.7:443"},

		"the gateway, by IPv6":                        {false, "[fd00:86::1]:22"},
		"a port of the host, by IPv6":                 {false, "[fd00:86::fe]:22"},
		"an IPv6 address that nobody has":             {false, "[fd00:86::77]:22"},
		"a mapped address":                            {false, "[::ffff:127.0.0.1]:22"},
		"a compatible address":                        {false, "[::127.0.0.1]:22"},
		"the host's loopback, translated":             {false, "[64:ff9b::127.0.0.1]:22"},
		"cloud metadata, translated":                  {false, "[64:ff9b::169.254.169.254]:80"},
		"cloud metadata, by 6to4":                     {false, "[2002:a9fe:a9fe::1]:80"},
		"cloud metadata, by IPv6":                     {false, "[fd00:ec2::254]:80"},
		"a site-local address":                        {false, "[fec0::1]:80"},
		"another link-local address":                  {false, "[fe80::1]:80"},
		"IPv6 multicast":                              {false, "[ff02::fb]:5353"},
		"the world by IPv6, from an internal network": {true, "[2001:db8::7]:443"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, guest, world := setup(t, c.internal)
			ctx, stop := context.WithTimeout(context.Background(), 500*time.Millisecond)
			defer stop()
			if conn, err := guest.Dial(ctx, c.to); err == nil {
				_ = conn.Close()
				t.Error("connected")
			}
			if conn, err := guest.DialUDP(c.to); err == nil {
				_, _ = conn.Write([]byte("x"))
				time.Sleep(50 * time.Millisecond)
				_ = conn.Close()
			}
			if asked := world.all(); asked != "" {
				t.Errorf("asked the world for %s", asked)
			}
		})
	}
}

func TestARefusalIsToldAtOnce(t *testing.T) {
	_, _, guest, _ := setup(t, false)
	began := time.Now()
	ctx, stop := context.WithTimeout(context.Background(), 5*time.Second)
	defer stop()
	if _, err := guest.Dial(ctx, "10.86.0.254:22"); err == nil || time.Since(began) > 2*time.Second {
		t.Errorf("%v after %s", err, time.Since(began))
	}
}

// datagram is a UDP packet to port 22.
func datagram(from, to netip.Addr) []byte {
	const udp = "\x12\x34\x00\x16\x00\x09\x00\x00x"
	source, destination := tcpip.AddrFromSlice(from.AsSlice()), tcpip.AddrFromSlice(to.AsSlice())
	if to.Is6() {
		packet := make([]byte, header.IPv6MinimumSize, 64)
		header.IPv6(packet).Encode(&header.IPv6Fields{
			PayloadLength: uint16(len(udp)), HopLimit: 64, TransportProtocol: header.UDPProtocolNumber, SrcAddr: source, DstAddr: destination,
		})
		checksummed := header.UDP(append([]byte(nil), udp...))
		checksummed.SetChecksum(^checksummed.CalculateChecksum(checksum.Combine(
			header.PseudoHeaderChecksum(header.UDPProtocolNumber, source, destination, uint16(len(udp))), checksum.Checksum([]byte("x"), 0),
		)))
		return append(packet, checksummed...)
	}
	packet := make([]byte, header.IPv4MinimumSize, 64)
	h := header.IPv4(packet)
	h.Encode(&header.IPv4Fields{
		TotalLength: header.IPv4MinimumSize + uint16(len(udp)), TTL: 64, Protocol: 17, SrcAddr: source, DstAddr: destination,
	})
	h.SetChecksum(^h.CalculateChecksum())
	return append(packet, udp...)
}

func TestADatagramsRefusalIsToldAtOnce(t *testing.T) {
	l, _, _, _ := setup(t, false)
	guest := guesttest.Attach(t, l, lan.Request{ID: "b", MAC: lan.MAC{0x52, 0x54, 0, 0, 0, 2}})
	next := func() []byte {
		frame := guest.Next(t, 5*time.Second)
		if len(frame) < 14 {
			t.Fatal("no answer")
		}
		return frame[14:]
	}
	sent := datagram(guest.Member.IP, netip.MustParseAddr("10.86.0.254"))
	guest.Frame(lan.GatewayMAC, guest.Member.MAC, header.IPv4ProtocolNumber, sent)
	got := header.IPv4(next())
	told := header.ICMPv4(got.Payload())
	if !got.IsValid(len(got)) || !got.IsChecksumValid() || told.Checksum() != header.ICMPv4Checksum(told, 0) {
		t.Fatalf("%x", got)
	}
	quoted := header.IPv4(told.Payload())
	if told.Type() != header.ICMPv4DstUnreachable || told.Code() != header.ICMPv4AdminProhibited ||
		!bytes.Equal(quoted[12:24], sent[12:24]) {
		t.Errorf("type %d, code %d, of %x", told.Type(), told.Code(), quoted)
	}

	sent = datagram(guest.Member.IP6, netip.MustParseAddr("fd00:86::fe"))
	guest.Frame(lan.GatewayMAC, guest.Member.MAC, header.IPv6ProtocolNumber, sent)
	got6 := header.IPv6(next())
	told6 := header.ICMPv6(got6.Payload())
	if !got6.IsValid(len(got6)) || told6.Checksum() != header.ICMPv6Checksum(header.ICMPv6ChecksumParams{
		Header: told6, Src: got6.SourceAddress(), Dst: got6.DestinationAddress(),
	}) {
		t.Fatalf("%x", got6)
	}
	quoted6 := told6[8:]
	if told6.Type() != header.ICMPv6DstUnreachable || told6.Code() != header.ICMPv6Prohibited ||
		!bytes.Equal(quoted6[8:44], sent[8:44]) {
		t.Errorf("type %d, code %d, of %x", told6.Type(), told6.Code(), quoted6)
	}
	if n := guest.Member.EgressRefused.Load(); n != 2 {
		t.Errorf("%d are counted", n)
	}
}

func TestAPolicy(t *testing.T) {
	_, _, guest, world := setup(t, false,
		egress.Rule{Prefix: netip.MustParsePrefix("198.51.100.0/24"), Port: 443},
		egress.Rule{Name: "example.org"},
		egress.Rule{Name: "host.docker.internal", Port: 5433},
	)
	guest.Member.Egress.Permit("example.org", []netip.Addr{netip.MustParseAddr("203.0.113.5"), netip.MustParseAddr("169.254.1.1")}, time.Hour)
	for to, want := range map[string]string{
		"198.51.100.7:443": "tcp 198.51.100.7:443",
		"198.51.100.7:80":  "",
		"203.0.113.5:22":   "tcp 203.0.113.5:22",
		"203.0.113.6:22":   "",
		"169.254.1.1:22":   "",
		"10.86.0.254:5433": "tcp 127.0.0.1:5433",
		"10.86.0.254:5434": "",

		"[fd00:86::fe]:5433": "tcp 127.0.0.1:5433",
		"[fd00:86::fe]:5434": "",
	} {
		ctx, stop := context.WithTimeout(context.Background(), 2*time.Second)
		conn, err := guest.Dial(ctx, to)
		stop()
		if (err == nil) != (want != "") {
			t.Errorf("%s: %v", to, err)
		}
		if err == nil {
			_ = conn.Close()
		}
		if !strings.Contains(world.all(), want) {
			t.Errorf("%s became %s", to, world.all())
		}
	}
	if n := guest.Member.EgressRefused.Load(); n != 5 {
		t.Errorf("%d are counted", n)
	}
}

func TestConnectionsEndWithTheMember(t *testing.T) {
	l, _, guest, _ := setup(t, false)
	ctx, stop := context.WithTimeout(context.Background(), 5*time.Second)
	defer stop()
	conn, err := guest.Dial(ctx, "198.51.100.7:443")
	if err != nil {
		t.Fatal(err)
	}
	echo(t, conn)
	l.Detach(guest.Member)
	deadline := time.Now().Add(5 * time.Second)
	for len(guest.Member.TCP) > 0 && time.Now().Before(deadline) {
		time.Sleep(10 * time.Millisecond)
	}
	if n := len(guest.Member.TCP); n > 0 {
		t.Errorf("%d are left", n)
	}
}

func TestOneMemberTakesSoManyConnections(t *testing.T) {
	_, _, guest, _ := setup(t, false)
	limit, asked := cap(guest.Member.UDP), 0
	for deadline := time.Now().Add(10 * time.Second); asked < limit+20 && time.Now().Before(deadline); asked++ {
		conn, err := guest.DialUDP("198.51.100.7:123")
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(time.Second))
		_, _ = conn.Write([]byte("x"))
		if asked < limit {
			// Its answer, so that none is lost in a queue of the guest's.
			_, _ = conn.Read(make([]byte, 1))
		}
	}
	if n := len(guest.Member.UDP); n != limit {
		t.Errorf("%d of %d after %d", n, limit, asked)
	}
}

func TestTheGatewayReachesAGuest(t *testing.T) {
	_, g, guest, _ := setup(t, true)
	listener := guest.Listen(t, 80)
	go func() {
		conn, err := listener.Accept()
		if err == nil {
			_, _ = io.Copy(conn, conn)
			_ = conn.Close()
		}
	}()
	conn, err := g.Dial(context.Background(), "tcp", netip.AddrPortFrom(guest.Member.IP, 80))
	if err != nil {
		t.Fatal(err)
	}
	echo(t, conn)
	_ = conn.Close()
	if _, err := g.Dial(context.Background(), "tcp", netip.AddrPortFrom(guest.Member.IP, 81)); err == nil {
		t.Error("connected to nobody")
	}
}
