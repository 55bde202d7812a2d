package gateway_test

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"woodlot.dev/switch/internal/egress"
	"woodlot.dev/switch/internal/gateway"
	"woodlot.dev/switch/internal/guesttest"
	"woodlot.dev/switch/internal/lan"
	"woodlot.dev/switch/internal/ping"
)

const (
	soon = 5 * time.Second
	// never is how long it takes to be sure enough that nothing comes.
	never = 100 * time.Millisecond
)

// pinger stands for the world: it says what it was asked to send.
type pinger struct {
	sent chan ping.Reply
	take func(ping.Reply)
	fail error
}

func (p *pinger) Send(to netip.Addr, seq uint16, ttl byte, data []byte) error {
	if p.fail != nil {
		return p.fail
	}
	p.sent <- ping.Reply{From: to, Seq: seq, TTL: ttl, Data: slices.Clone(data)}
	return nil
}

func (p *pinger) Serve(take func(ping.Reply)) { p.take = take }

// next is what was sent last; nothing if that is the zero value.
func (p *pinger) next(wait time.Duration) ping.Reply {
	select {
	case r := <-p.sent:
		return r
	case <-time.After(wait):
		return ping.Reply{}
	}
}

// setupPings has two guests without a stack, the first one with these rules.
func setupPings(t *testing.T, prefix6 string, internal bool, rules ...egress.Rule) (*pinger, *guesttest.Guest, *guesttest.Guest) {
	t.Helper()
	l, err := lan.New(netip.MustParsePrefix("10.86.0.0/24"), netip.MustParsePrefix(prefix6), internal)
	if err != nil {
		t.Fatal(err)
	}
	g, err := gateway.New(t.Context(), l, &dialer{})
	if err != nil {
		t.Fatal(err)
	}
	world := &pinger{sent: make(chan ping.Reply, 1000)}
	g.CarryPings(world)
	request := lan.Request{ID: "a", MAC: lan.MAC{0x52, 0x54, 0, 0, 0, 1}}
	if rules != nil {
		if request.Egress, err = egress.New(rules, egress.HostAddresses); err != nil {
			t.Fatal(err)
		}
	}
	a := guesttest.Attach(t, l, request)
	b := guesttest.Attach(t, l, lan.Request{ID: "b", MAC: lan.MAC{0x52, 0x54, 0, 0, 0, 2}})
	// That b has come.
	for range 2 {
		if a.Next(t, soon) == nil {
			t.Fatal("no announcement")
		}
	}
	return world, a, b
}

// send has a guest send an echo request.
func send(guest *guesttest.Guest, to string, hops byte, id, seq uint16, data string) {
	guest.Frame(lan.GatewayMAC, guest.Member.MAC, protocol(to), echoRequest(guest, to, hops, id, seq, data))
}

func protocol(to string) tcpip.NetworkProtocolNumber {
	if netip.MustParseAddr(to).Is6() {
		return header.IPv6ProtocolNumber
	}
	return header.IPv4ProtocolNumber
}

func echoRequest(guest *guesttest.Guest, to string, hops byte, id, seq uint16, data string) []byte {
	destination := netip.MustParseAddr(to)
	if destination.Is6() {
		source, target := tcpip.AddrFrom16(guest.Member.IP6.As16()), tcpip.AddrFrom16(destination.As16())
		packet := append(make([]byte, header.IPv6MinimumSize+header.ICMPv6EchoMinimumSize), data...)
		header.IPv6(packet).Encode(&header.IPv6Fields{
			PayloadLength: uint16(header.ICMPv6EchoMinimumSize + len(data)), HopLimit: hops,
			TransportProtocol: header.ICMPv6ProtocolNumber, SrcAddr: source, DstAddr: target,
		})
		message := header.ICMPv6(packet[header.IPv6MinimumSize:])
		message.SetType(header.ICMPv6EchoRequest)
		message.SetIdent(id)
		message.SetSequence(seq)
		message.SetChecksum(header.ICMPv6Checksum(header.ICMPv6ChecksumParams{Header: message, Src: source, Dst: target}))
		return packet
	}
	packet := append(make([]byte, header.IPv4MinimumSize+header.ICMPv4MinimumSize), data...)
	h := header.IPv4(packet)
	h.Encode(&header.IPv4Fields{
		TotalLength: uint16(len(packet)), TTL: hops, Protocol: uint8(header.ICMPv4ProtocolNumber),
		SrcAddr: tcpip.AddrFrom4(guest.Member.IP.As4()), DstAddr: tcpip.AddrFrom4(destination.As4()),
	})
	h.SetChecksum(^h.CalculateChecksum())
	message := header.ICMPv4(h.Payload())
	message.SetType(header.ICMPv4Echo)
	message.SetIdent(id)
	message.SetSequence(seq)
	message.SetChecksum(header.ICMPv4Checksum(message, 0))
	return packet
}

// told is an ICMP message as a guest receives it.
type told struct {
	from    string
	hops    byte
	kind    byte
	code    byte
	id, seq uint16
	data    string
}

// receive gives the next ICMP message that a guest receives, or nothing if the wait is over.
func receive(t *testing.T, guest *guesttest.Guest, wait time.Duration) told {
	t.Helper()
	frame := guest.Next(t, wait)
	if frame == nil {
		return told{}
	}
	packet := frame[14:]
	if packet[0]>>4 == 6 {
		h := header.IPv6(packet)
		m := header.ICMPv6(h.Payload())
		sum := header.ICMPv6Checksum(header.ICMPv6ChecksumParams{Header: m, Src: h.SourceAddress(), Dst: h.DestinationAddress()})
		if m.Checksum() != sum || h.DestinationAddress().String() != guest.Member.IP6.String() {
			t.Errorf("%x", packet)
		}
		return told{h.SourceAddress().String(), h.HopLimit(), byte(m.Type()), byte(m.Code()), m.Ident(), m.Sequence(), string(m.Payload())}
	}
	h := header.IPv4(packet)
	m := header.ICMPv4(h.Payload())
	if !h.IsChecksumValid() || m.Checksum() != header.ICMPv4Checksum(m, 0) || h.DestinationAddress().String() != guest.Member.IP.String() {
		t.Errorf("%x", packet)
	}
	return told{h.SourceAddress().String(), h.TTL(), byte(m.Type()), byte(m.Code()), m.Ident(), m.Sequence(), string(m.Payload())}
}

const (
	reply4, reply6     = 0, 129
	refused4, refused6 = 3, 1
)

func TestPingsGoOutAndTheirAnswersComeBack(t *testing.T) {
	for to, kind := range map[string]byte{"198.51.100.7": reply4, "2001:db8::7": reply6} {
		world, a, b := setupPings(t, "fd00:86::/64", false)
		// Two guests whose pings look the same.
		send(a, to, 64, 1, 2, "from a")
		first := world.next(soon)
		send(b, to, 9, 1, 2, "from b")
		second := world.next(soon)
		if first.From.String() != to || first.TTL != 63 || string(first.Data) != "from a" || second.TTL != 8 || first.Seq == second.Seq {
			t.Errorf("%+v, %+v", first, second)
		}
		// Somebody else's answer is none, and each answer counts once.
		liar := first
		liar.From = netip.MustParseAddr("198.51.100.8")
		second.TTL = 50
		for _, r := range []ping.Reply{liar, second, second, first} {
			world.take(r)
		}
		if got, want := receive(t, b, soon), (told{to, 49, kind, 0, 1, 2, "from b"}); got != want {
			t.Errorf("%+v", got)
		}
		if got, want := receive(t, a, soon), (told{to, 62, kind, 0, 1, 2, "from a"}); got != want {
			t.Errorf("%+v", got)
		}
		for _, guest := range []*guesttest.Guest{a, b} {
			if got := receive(t, guest, never); got != (told{}) {
				t.Errorf("%+v", got)
			}
			if n := len(guest.Member.Pings); n != 0 {
				t.Errorf("%d are under way", n)
			}
		}
	}
}

func TestTheGatewayAndTheHostAnswerThemselves(t *testing.T) {
	world, a, _ := setupPings(t, "fd00:86::/64", true, []egress.Rule{}...)
	for to, kind := range map[string]byte{"10.86.0.1": reply4, "10.86.0.254": reply4, "fd00:86::1": reply6, "fd00:86::fe": reply6} {
		send(a, to, 64, 1, 2, "hello")
		if got := receive(t, a, soon); got.from != to || got.kind != kind || got.data != "hello" {
			t.Errorf("%+v", got)
		}
	}
	if len(world.sent) > 0 {
		t.Errorf("sent %+v", <-world.sent)
	}
}

func TestPingsThatMayNotLeave(t *testing.T) {
	rules := []egress.Rule{
		{Prefix: netip.MustParsePrefix("198.51.100.0/24")},
		{Prefix: netip.MustParsePrefix("203.0.113.0/24"), Port: 443},
		{Name: "example.org"},
	}
	for name, c := range map[string]struct {
		to       string
		internal bool
		rules    []egress.Rule
		sent     bool
	}{
		"anything, without a policy":        {"192.0.2.7", false, nil, true},
		"an address that is allowed":        {"198.51.100.7", false, rules, true},
		"an address allowed at one port":    {"203.0.113.7", false, rules, false},
		"an address that is not":            {"192.0.2.7", false, rules, false},
		"an address that a name stands for": {"192.0.2.8", false, rules, true},
		"an IPv6 address that is not":       {"2001:db8::7", false, rules, false},
		"anything, with none allowed":       {"198.51.100.7", false, []egress.Rule{}, false},
		"beyond an internal network":        {"198.51.100.7", true, nil, false},
		"beyond one, by IPv6":               {"2001:db8::7", true, nil, false},
		"this host":                         {"127.0.0.1", false, nil, false},
		"this host, by IPv6":                {"::1", false, nil, false},
		"cloud metadata":                    {"169.254.169.254", false, nil, false},
		"many":                              {"224.0.0.1", false, nil, false},
		"the network's broadcast address":   {"10.86.0.255", false, nil, false},
		"an address that nobody has":        {"10.86.0.77", false, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			world, a, _ := setupPings(t, "fd00:86::/64", c.internal, c.rules...)
			if c.rules != nil {
				a.Member.Egress.Permit("example.org", []netip.Addr{netip.MustParseAddr("192.0.2.8")}, time.Hour)
			}
			packet := echoRequest(a, c.to, 64, 1, 2, strings.Repeat("x", 1000))
			a.Frame(lan.GatewayMAC, a.Member.MAC, protocol(c.to), packet)
			if c.sent {
				if got := world.next(soon); got.From.String() != c.to {
					t.Errorf("%+v", got)
				}
				return
			}
			got := receive(t, a, soon)
			from, kind, code, quoted := "10.86.0.1", byte(refused4), byte(header.ICMPv4AdminProhibited), 28
			if protocol(c.to) == header.IPv6ProtocolNumber {
				from, kind, code, quoted = "fd00:86::1", refused6, byte(header.ICMPv6Prohibited), 48
			}
			if got.from != from || got.kind != kind || got.code != code || got.data != string(packet[:quoted]) {
				t.Errorf("%+v", got)
			}
			if len(world.sent) > 0 {
				t.Errorf("sent %+v", <-world.sent)
			}
			if n := a.Member.EgressRefused.Load(); n != 1 {
				t.Errorf("%d are counted", n)
			}
		})
	}
}

func TestWhatTheHostHasNoWayToIsToldAtOnce(t *testing.T) {
	world, a, _ := setupPings(t, "fd00:86::/64", false)
	world.fail = errors.New("network is unreachable")
	send(a, "2001:db8::7", 64, 1, 2, "hello")
	if got := receive(t, a, soon); got.kind != refused6 || len(a.Member.Pings) != 0 {
		t.Errorf("%+v, %d under way", got, len(a.Member.Pings))
	}
}

func TestNoPingOrOneThatIsNotWhole(t *testing.T) {
	world, a, _ := setupPings(t, "fd00:86::/64", false)
	change := func(to string, at int, value byte) []byte {
		packet := echoRequest(a, to, 64, 1, 2, "hello")
		packet[at] = value
		return packet
	}
	const v4, v6 = "198.51.100.7", "2001:db8::7"
	short := change(v4, 3, header.IPv4MinimumSize+4)
	short6 := change(v6, 5, 4)
	for name, packet := range map[string][]byte{
		"a fragment":                change(v4, 6, 0x20),
		"a later fragment":          change(v4, 7, 1),
		"another message":           change(v4, 20, 13),
		"a wrong checksum":          change(v4, 22, 0xab),
		"a short message":           short,
		"another message of IPv6":   change(v6, 40, 1),
		"a wrong checksum of IPv6":  change(v6, 42, 0xab),
		"a short message of IPv6":   short6,
		"one with its last hop":     echoRequest(a, v4, 1, 1, 2, "hello"),
		"one with no hops":          echoRequest(a, v4, 0, 1, 2, "hello"),
		"IPv6's with its last hop":  echoRequest(a, v6, 1, 1, 2, "hello"),
		"an answer that nobody has": change(v4, 20, 0),
	} {
		kind := tcpip.NetworkProtocolNumber(header.IPv4ProtocolNumber)
		if packet[0]>>4 == 6 {
			kind = header.IPv6ProtocolNumber
		}
		a.Frame(lan.GatewayMAC, a.Member.MAC, kind, packet)
		if got := world.next(never / 10); got.From.IsValid() {
			t.Errorf("%s: sent %+v", name, got)
		}
	}
	if got := receive(t, a, never); got != (told{}) || len(a.Member.Pings) != 0 {
		t.Errorf("%+v, %d under way", got, len(a.Member.Pings))
	}
}

func TestOneMemberHasSoManyPingsUnderWay(t *testing.T) {
	world, a, b := setupPings(t, "fd00:86::/64", false)
	limit := cap(a.Member.Pings)
	for n := range limit + 20 {
		send(a, "198.51.100.7", 64, 1, uint16(n), "")
	}
	// Another member has its own number, and an answer makes room.
	send(b, "198.51.100.7", 64, 1, 1, "b")
	var first ping.Reply
	for n := range limit {
		got := world.next(soon)
		if n == 0 {
			first = got
		}
		if string(got.Data) == "b" {
			t.Fatalf("only %d were sent", n)
		}
	}
	if got := world.next(soon); string(got.Data) != "b" {
		t.Errorf("sent %+v", got)
	}
	world.take(first)
	if got := receive(t, a, soon); got.kind != reply4 || got.seq != 0 {
		t.Errorf("%+v", got)
	}
	send(a, "198.51.100.7", 64, 1, 4711, "again")
	if got := world.next(soon); string(got.Data) != "again" {
		t.Errorf("%+v", got)
	}
}

func FuzzPings(f *testing.F) {
	l, err := lan.New(netip.MustParsePrefix("10.86.0.0/24"), netip.MustParsePrefix("fd00:86::/64"), false)
	if err != nil {
		f.Fatal(err)
	}
	g, err := gateway.New(f.Context(), l, &dialer{})
	if err != nil {
		f.Fatal(err)
	}
	world := &pinger{fail: errors.New("network is unreachable")}
	g.CarryPings(world)
	member, err := l.Attach(lan.Request{ID: "a", MAC: lan.MAC{0x52, 0x54, 0, 0, 0, 1}})
	if err != nil {
		f.Fatal(err)
	}
	guest := &guesttest.Guest{Member: member}
	for _, to := range []string{"198.51.100.7", "2001:db8::7"} {
		f.Add(uint16(protocol(to)), echoRequest(guest, to, 64, 1, 2, "hello"))
	}
	f.Fuzz(func(t *testing.T, kind uint16, packet []byte) {
		frame := slices.Concat(lan.GatewayMAC[:], member.MAC[:], []byte{byte(kind >> 8), byte(kind)}, packet)
		l.Receive(member, frame)
		if n := len(member.Pings); n != 0 {
			t.Errorf("%d are under way", n)
		}
	})
}
