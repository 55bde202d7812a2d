package lan_test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"woodlot.dev/switch/internal/guesttest"
	"woodlot.dev/switch/internal/lan"
)

const (
	ipv6   = 0x86dd
	tcp    = 6
	icmpv6 = 58
)

var (
	nodes  = lan.MAC{0x33, 0x33, 0, 0, 0, 1}
	localA = "fe80::5054:ff:fe00:a"
	localB = "fe80::5054:ff:fe00:b"
)

func pair6(t *testing.T) (*lan.Lan, *guesttest.Guest, *guesttest.Guest) {
	t.Helper()
	l, err := lan.New(netip.MustParsePrefix("10.86.0.0/24"), netip.MustParsePrefix("fd00:86::/64"), false)
	if err != nil {
		t.Fatal(err)
	}
	a := guesttest.Attach(t, l, lan.Request{ID: "a", MAC: macA})
	b := guesttest.Attach(t, l, lan.Request{ID: "b", MAC: macB})
	// That b has come: by ARP, and by a neighbour advertisement to all.
	if a.Next(t, soon) == nil {
		t.Fatal("no announcement")
	}
	check(t, a.Next(t, soon), macA, macB, "fd00:86::3", "ff02::1", false)
	return l, a, b
}

// check sees that a frame is an advertisement of an address.
func check(t *testing.T, frame []byte, destination, owner lan.MAC, address, to string, solicited bool) {
	t.Helper()
	if len(frame) != 14+40+32 || lan.MAC(frame[:6]) != destination || lan.MAC(frame[6:12]) != owner {
		t.Fatalf("%s: %x", address, frame)
	}
	packet := header.IPv6(frame[14:])
	message := header.ICMPv6(packet.Payload())
	advert := header.NDPNeighborAdvert(message.MessageBody())
	source, target := packet.SourceAddress(), packet.DestinationAddress()
	sum := header.ICMPv6Checksum(header.ICMPv6ChecksumParams{Header: message, Src: source, Dst: target})
	if source.String() != address || target.String() != to || packet.HopLimit() != 255 || message.Checksum() != sum {
		t.Fatalf("%s: %x", address, frame)
	}
	if message.Type() != header.ICMPv6NeighborAdvert || advert.TargetAddress() != source || !advert.OverrideFlag() ||
		advert.SolicitedFlag() != solicited || advert.RouterFlag() != (owner == lan.GatewayMAC) ||
		!bytes.Equal(message[24:], append([]byte{2, 1}, owner[:]...)) {
		t.Errorf("%s: %x", address, frame)
	}
}

// packet6 carries a payload, behind the headers that come first in it.
func packet6(from, to string, protocol byte, payload ...byte) []byte {
	p := make([]byte, 40, 40+len(payload))
	p[0], p[6], p[7] = 0x60, protocol, 255
	binary.BigEndian.PutUint16(p[4:], uint16(len(payload)))
	source, destination := netip.MustParseAddr(from).As16(), netip.MustParseAddr(to).As16()
	copy(p[8:], source[:])
	copy(p[24:], destination[:])
	return append(p, payload...)
}

func solicit(target string) []byte {
	address := netip.MustParseAddr(target).As16()
	return append([]byte{135, 0, 0, 0, 0, 0, 0, 0}, address[:]...)
}

func TestNDPIsAnsweredFromTheLeases(t *testing.T) {
	_, a, b := pair6(t)
	for _, c := range []struct {
		from, target string
		owner        lan.MAC
	}{
		{"fd00:86::2", "fd00:86::3", macB},
		{"fd00:86::2", "fd00:86::1", lan.GatewayMAC},
		{"fd00:86::2", "fd00:86::fe", lan.GatewayMAC},
		{localA, "fd00:86::3", macB},
		{localA, localB, macB},
	} {
		a.Frame(lan.MAC{0x33, 0x33, 0xff, 0, 0, 3}, macA, ipv6, packet6(c.from, "ff02::1:ff00:3", icmpv6, solicit(c.target)...))
		check(t, a.Next(t, soon), macA, c.owner, c.target, c.from, true)
		// Also one that asks the neighbour it knows, whether it is there.
		a.Frame(c.owner, macA, ipv6, packet6(c.from, c.target, icmpv6, solicit(c.target)...))
		check(t, a.Next(t, soon), macA, c.owner, c.target, c.from, true)
	}
	// Before it takes an address, a guest asks whether somebody has it.
	a.Frame(nodes, macA, ipv6, packet6("::", "ff02::1:ff00:3", icmpv6, solicit("fd00:86::3")...))
	check(t, a.Next(t, soon), macA, macB, "fd00:86::3", "ff02::1", false)
	for _, nobody := range []string{"fd00:86::2", localA, "fd00:86::77", "fd00:86::fd", "2001:db8::1", "ff02::1"} {
		a.Frame(nodes, macA, ipv6, packet6("::", "ff02::1", icmpv6, solicit(nobody)...))
	}
	if got := a.Next(t, never); got != nil {
		t.Errorf("answered for nobody: %x", got)
	}
	if got := b.Next(t, never); got != nil {
		t.Errorf("passed on: %x", got)
	}
	if n := a.Member.Dropped.Load(); n != 0 {
		t.Errorf("dropped %d", n)
	}
}

func TestIPv6BetweenMembers(t *testing.T) {
	l, a, b := pair6(t)
	options := []byte{tcp, 0, 1, 4, 0, 0, 0, 0}
	for name, sent := range map[string][]byte{
		"its address":           packet6("fd00:86::2", "fd00:86::3", tcp, 1, 2, 3),
		"its link-local one":    packet6(localA, localB, tcp, 1, 2, 3),
		"a ping":                packet6("fd00:86::2", "fd00:86::3", icmpv6, 128, 0, 0, 0),
		"no payload":            packet6("fd00:86::2", "fd00:86::3", 59),
		"options":               packet6("fd00:86::2", "fd00:86::3", 60, options...),
		"a first fragment":      packet6("fd00:86::2", "fd00:86::3", 44, tcp, 0, 0, 1, 0, 0, 0, 9, 1, 2),
		"a later fragment":      packet6("fd00:86::2", "fd00:86::3", 44, icmpv6, 0, 0, 8, 0, 0, 0, 9, 134, 0),
		"a fragment of a ping":  packet6("fd00:86::2", "fd00:86::3", 44, icmpv6, 0, 0, 1, 0, 0, 0, 9, 128, 0, 0, 0),
		"more than the payload": append(packet6("fd00:86::2", "fd00:86::3", tcp, 1), 0, 0, 0),
	} {
		a.Frame(macB, macA, ipv6, sent)
		if got := b.Next(t, soon); got == nil || !bytes.Equal(got[14:], sent) {
			t.Errorf("%s: %x", name, got)
		}
	}
	// To many, and from the gateway.
	sent := packet6("fd00:86::2", "ff02::fb", 17, 1)
	a.Frame(lan.MAC{0x33, 0x33, 0, 0, 0, 0xfb}, macA, ipv6, sent)
	if got := b.Next(t, soon); got == nil || !bytes.Equal(got[14:], sent) {
		t.Errorf("to many: %x", got)
	}
	sent = packet6("2001:db8::1", "fd00:86::3", tcp, 1)
	l.Deliver(sent)
	if got := b.Next(t, soon); got == nil || !bytes.Equal(got[14:], sent) || lan.MAC(got[6:12]) != lan.GatewayMAC {
		t.Errorf("from the gateway: %x", got)
	}
}

func TestIPv6ThatAGuestForgesGoesNowhere(t *testing.T) {
	const other = "fd00:86::3"
	good := packet6("fd00:86::2", other, tcp, 1)
	advert := append([]byte{134, 0, 0, 0}, make([]byte, 12)...)
	claim := append([]byte{136, 0, 0, 0, 0x20, 0, 0, 0}, make([]byte, 16)...)
	hide := func(protocol, first byte, rest ...byte) []byte {
		return packet6("fd00:86::2", other, protocol, append([]byte{first, 0, 0, 0, 0, 0, 0, 0}, rest...)...)
	}
	far := packet6("fd00:86::2", other, icmpv6, solicit(other)...)
	far[7] = 64
	for name, c := range map[string]struct {
		destination lan.MAC
		payload     []byte
	}{
		"another's address":                {macB, packet6("fd00:86::4", other, tcp, 1)},
		"another's link-local address":     {macB, packet6(localB, other, tcp, 1)},
		"no address":                       {macB, packet6("::", other, tcp, 1)},
		"the gateway's address":            {macB, packet6("fd00:86::1", other, tcp, 1)},
		"an advertisement":                 {macB, packet6("fd00:86::2", other, icmpv6, claim...)},
		"a router":                         {nodes, packet6(localA, "ff02::1", icmpv6, advert...)},
		"a router, behind options":         {macB, hide(60, icmpv6, advert...)},
		"a router, behind hop-by-hop":      {macB, hide(0, icmpv6, advert...)},
		"a router, behind a route":         {macB, hide(43, icmpv6, advert...)},
		"a router, in a fragment":          {macB, hide(44, icmpv6, advert...)},
		"a redirect":                       {macB, packet6("fd00:86::2", other, icmpv6, append([]byte{137, 0, 0, 0}, make([]byte, 36)...)...)},
		"a solicitation in another's name": {macB, packet6("fd00:86::4", other, icmpv6, solicit(other)...)},
		"a solicitation from afar":         {macB, far},
		"half a solicitation":              {macB, packet6("fd00:86::2", other, icmpv6, solicit(other)[:20]...)},
		"half an ICMP header":              {macB, packet6("fd00:86::2", other, icmpv6, 134)},
		"headers that do not end":          {macB, hide(60, 60)},
		"headers in the next fragment":     {macB, hide(44, 60, icmpv6, 0)},
		"half a header":                    {macB, packet6("fd00:86::2", other, 60, icmpv6, 0)},
		"a header beyond the end":          {macB, packet6("fd00:86::2", other, 60, icmpv6, 9, 0, 0, 0, 0, 0, 0)},
		"too many headers":                 {macB, packet6("fd00:86::2", other, 60, bytes.Repeat([]byte{60, 0, 0, 0, 0, 0, 0, 0}, 20)...)},
		"a length beyond its end":          {macB, good[:40]},
		"half of itself":                   {macB, good[:20]},
		"another version":                  {macB, append([]byte{0x45}, good[1:]...)},
		"one packet for many":              {nodes, good},
		"an address that nobody has":       {macC, good},
	} {
		t.Run(name, func(t *testing.T) {
			_, a, b := pair6(t)
			a.Frame(c.destination, macA, tcpip.NetworkProtocolNumber(ipv6), c.payload)
			a.Frame(macB, macA, ipv6, good)
			// Only the good one behind it arrives.
			if got := b.Next(t, soon); got == nil || !bytes.Equal(got[14:], good) {
				t.Errorf("b got %x", got)
			}
			if got := a.Next(t, never); got != nil {
				t.Errorf("a got %x", got)
			}
			if n := a.Member.Dropped.Load(); n != 1 {
				t.Errorf("%d are counted", n)
			}
		})
	}
}

func TestANetworkWithoutIPv6(t *testing.T) {
	_, a, b := pair(t)
	a.Frame(nodes, macA, ipv6, packet6(localA, "ff02::1", icmpv6, solicit(localB)...))
	a.Frame(macB, macA, ipv6, packet6(localA, localB, tcp, 1))
	if got := b.Next(t, never); got != nil {
		t.Errorf("b got %x", got)
	}
	if got := a.Next(t, never); got != nil {
		t.Errorf("a got %x", got)
	}
	if a.Member.IP6.IsValid() {
		t.Error(a.Member.IP6)
	}
}

func TestIPv6SubnetsThatCannotBe(t *testing.T) {
	for _, bad := range []string{"2001:db8::/64", "fd00::/56", "fd00::1/64", "10.0.0.0/8", "fe80::/64"} {
		if _, err := lan.New(netip.MustParsePrefix("10.86.0.0/24"), netip.MustParsePrefix(bad), false); err == nil {
			t.Error(bad)
		}
	}
}

func FuzzReceiveIPv6(f *testing.F) {
	l, err := lan.New(netip.MustParsePrefix("10.86.0.0/24"), netip.MustParsePrefix("fd00:86::/64"), false)
	if err != nil {
		f.Fatal(err)
	}
	m, err := l.Attach(lan.Request{ID: "a", MAC: macA})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(packet6("fd00:86::2", "fd00:86::3", 60, tcp, 0, 1, 4, 0, 0, 0, 0))
	f.Add(packet6("fd00:86::2", "ff02::1", icmpv6, solicit("fd00:86::1")...))
	f.Add(packet6("fd00:86::2", "fd00:86::3", 44, icmpv6, 0, 0, 1, 0, 0, 0, 9, 128, 0, 0, 0))
	f.Fuzz(func(_ *testing.T, data []byte) {
		frame := append(append(append([]byte(nil), lan.GatewayMAC[:]...), macA[:]...), 0x86, 0xdd)
		l.Receive(m, append(frame, data...))
	})
}
