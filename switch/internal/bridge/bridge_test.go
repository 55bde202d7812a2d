package bridge

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"os"
	"testing"
	"time"

	"woodlot.dev/switch/internal/lan"
	"woodlot.dev/switch/internal/wire"
)

var (
	everyone = lan.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	anna     = lan.MAC{0x52, 0x54, 0, 0, 0, 1}
	ben      = lan.MAC{0x52, 0x54, 0, 0, 0, 2}
	stranger = lan.MAC{0x52, 0x54, 0, 0, 0, 9}
)

// machine is the VMM's end of a tap.
type machine struct {
	*lan.Member
	tap *os.File
}

type network struct {
	*Bridge
	lan *lan.Lan
	// gateway is what reaches it.
	gateway chan []byte
}

func newNetwork(t *testing.T) *network {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a bridge needs root")
	}
	l, err := lan.New(netip.MustParsePrefix("10.86.7.0/24"), netip.MustParsePrefix("fd00:87::/64"), false)
	if err != nil {
		t.Fatal(err)
	}
	b, err := New(l)
	if err != nil {
		t.Fatal(err)
	}
	n := &network{Bridge: b, lan: l, gateway: make(chan []byte, 4096)}
	l.SetUplink(func(_ *lan.Member, packet []byte, _ netip.Addr, _ byte) { n.gateway <- bytes.Clone(packet) })
	go func() { _ = b.Serve(l.ReceiveTrunk) }()
	return n
}

func (n *network) plug(t *testing.T, id string, mac lan.MAC) *machine {
	t.Helper()
	member, err := n.lan.Attach(lan.Request{ID: id, MAC: mac})
	if err != nil {
		t.Fatal(err)
	}
	tap, err := n.Plug(member)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tap.Close() })
	return &machine{member, tap}
}

func (m *machine) send(t *testing.T, destination, source lan.MAC, kind uint16, payload []byte) {
	t.Helper()
	frame := make([]byte, wire.OffloadLen, 2000)
	frame = append(append(frame, destination[:]...), source[:]...)
	frame = append(binary.BigEndian.AppendUint16(frame, kind), payload...)
	if _, err := m.tap.Write(frame); err != nil {
		t.Fatal(err)
	}
}

// next gives the next frame that the machine receives; nil if there is none for a moment.
func (m *machine) next(wait time.Duration) []byte {
	_ = m.tap.SetReadDeadline(time.Now().Add(wait))
	buf := make([]byte, 70000)
	n, err := m.tap.Read(buf)
	if err != nil {
		return nil
	}
	return buf[wire.OffloadLen:n]
}

func packet(from, to netip.Addr) []byte {
	source, destination := from.As4(), to.As4()
	head := []byte{0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0}
	return append(append(append(head, source[:]...), destination[:]...), "12345678"...)
}

func ask(mac lan.MAC, from, to netip.Addr) []byte {
	source, target := from.As4(), to.As4()
	request := append([]byte{0, 1, 8, 0, 6, 4, 0, 1}, mac[:]...)
	return append(append(append(request, source[:]...), 0, 0, 0, 0, 0, 0), target[:]...)
}

const (
	soon  = 3 * time.Second
	never = 300 * time.Millisecond
)

func TestFramesPassFromMemberToMemberAndToTheGateway(t *testing.T) {
	n := newNetwork(t)
	a, b := n.plug(t, "a", anna), n.plug(t, "b", ben)
	// ARP is answered from the leases, and nobody else hears it.
	a.send(t, everyone, anna, typeARP, ask(anna, a.IP, b.IP))
	if reply := a.next(soon); reply == nil || lan.MAC(reply[22:28]) != ben {
		t.Fatalf("the answer to ARP is % x", reply)
	}
	a.send(t, ben, anna, typeIPv4, packet(a.IP, b.IP))
	got := b.next(soon)
	if got == nil || !bytes.Equal(got[wire.EthernetLen:], packet(a.IP, b.IP)) {
		t.Fatalf("b received % x", got)
	}
	// To many, also over the bridge alone.
	a.send(t, everyone, anna, typeIPv4, packet(a.IP, n.lan.Broadcast()))
	if b.next(soon) == nil {
		t.Fatal("a broadcast was not received")
	}
	// To the world, and back.
	a.send(t, lan.GatewayMAC, anna, typeIPv4, packet(a.IP, netip.MustParseAddr("192.0.2.1")))
	select {
	case got := <-n.gateway:
		if !bytes.Equal(got, packet(a.IP, netip.MustParseAddr("192.0.2.1"))) {
			t.Fatalf("the gateway received % x", got)
		}
	case <-time.After(soon):
		t.Fatal("the gateway received nothing")
	}
	n.lan.Deliver(packet(netip.MustParseAddr("192.0.2.1"), b.IP))
	if got := b.next(soon); got == nil || lan.MAC(got[6:12]) != lan.GatewayMAC {
		t.Fatalf("from the gateway b received % x", got)
	}
	n.Count(a.Member)
	if a.Received.Load() != 4 || a.Dropped.Load() != 0 {
		t.Fatalf("of a %d frames were counted and %d dropped", a.Received.Load(), a.Dropped.Load())
	}
}

func TestWhatAMemberForgesGoesNowhere(t *testing.T) {
	n := newNetwork(t)
	a, b := n.plug(t, "a", anna), n.plug(t, "b", ben)
	for range 2 {
		if a.next(never) == nil { // the announcement of b
			break
		}
	}
	world := netip.MustParseAddr("192.0.2.1")
	forged := []struct {
		name                string
		destination, source lan.MAC
		kind                uint16
		payload             []byte
	}{
		{"another's MAC", ben, stranger, typeIPv4, packet(a.IP, b.IP)},
		{"its neighbour's MAC", lan.GatewayMAC, ben, typeIPv4, packet(b.IP, world)},
		{"the gateway's MAC", ben, lan.GatewayMAC, typeIPv4, packet(world, b.IP)},
		{"another's address", ben, anna, typeIPv4, packet(n.lan.Gateway, b.IP)},
		{"another's address to the gateway", lan.GatewayMAC, anna, typeIPv4, packet(b.IP, world)},
		{"no address", everyone, anna, typeIPv4, packet(netip.IPv4Unspecified(), netip.MustParseAddr("255.255.255.255"))},
		{"to one, for many", everyone, anna, typeIPv4, packet(a.IP, b.IP)},
		{"IPv6", ben, anna, 0x86dd, make([]byte, 60)},
		{"a VLAN", ben, anna, 0x8100, append([]byte{0, 1, 8, 0}, packet(a.IP, b.IP)...)},
		{"spanning tree", lan.MAC{1, 0x80, 0xc2, 0, 0, 0}, anna, 38, make([]byte, 46)},
		{"ARP as another", everyone, stranger, typeARP, ask(stranger, a.IP, b.IP)},
	}
	for _, f := range forged {
		a.send(t, f.destination, f.source, f.kind, f.payload)
	}
	// A reply and a lie in ARP pass the bridge to the gateway alone, which drops them.
	lie := ask(anna, b.IP, n.lan.Gateway)
	a.send(t, everyone, anna, typeARP, lie)
	a.send(t, ben, anna, typeARP, ask(anna, a.IP, b.IP))
	// To nobody's MAC: not to all either.
	a.send(t, stranger, anna, typeIPv4, packet(a.IP, b.IP))
	if got := b.next(never); got != nil {
		t.Fatalf("b received % x", got)
	}
	if got := a.next(never); got != nil {
		t.Fatalf("a was answered % x", got)
	}
	if len(n.gateway) != 0 {
		t.Fatalf("the gateway received % x", <-n.gateway)
	}
	n.Count(a.Member)
	if int(a.Dropped.Load()) != len(forged) {
		t.Fatalf("%d frames were counted as dropped", a.Dropped.Load())
	}
}

func TestFramesToManyAreFew(t *testing.T) {
	n := newNetwork(t)
	a, b := n.plug(t, "a", anna), n.plug(t, "b", ben)
	const sent = 4 * lan.ManyBurst
	begun := time.Now()
	for range sent {
		a.send(t, everyone, anna, typeIPv4, packet(a.IP, n.lan.Broadcast()))
	}
	// On a slow machine, more may pass.
	most := lan.ManyBurst + int(lan.ManyPerSecond*time.Since(begun).Seconds()) + 10
	received := 0
	for b.next(never) != nil {
		received++
	}
	if received < lan.ManyBurst/2 || received > most {
		t.Fatalf("%d of %d broadcasts passed", received, sent)
	}
}

func TestAMemberThatLeavesIsCutOffAndItsAddressIsFree(t *testing.T) {
	n := newNetwork(t)
	a, b := n.plug(t, "a", anna), n.plug(t, "b", ben)
	n.lan.Detach(a.Member)
	if err := n.Unplug(a.Member); err != nil {
		t.Fatal(err)
	}
	if _, err := a.tap.Write(make([]byte, 60)); err == nil {
		t.Fatal("its tap is still there")
	}
	again := n.plug(t, "a", anna)
	again.send(t, ben, anna, typeIPv4, packet(again.IP, b.IP))
	for {
		got := b.next(soon)
		if got == nil {
			t.Fatal("the next one with its MAC is not heard")
		}
		if binary.BigEndian.Uint16(got[12:14]) == typeIPv4 {
			break
		}
	}
	// A VMM that ended: its tap went with it.
	_ = again.tap.Close()
	if err := n.Unplug(again.Member); err != nil {
		t.Fatal(err)
	}
}

// packet6 carries the payload behind the header that is named first.
func packet6(from, to netip.Addr, header byte, payload ...byte) []byte {
	source, destination := from.As16(), to.As16()
	head := []byte{0x60, 0, 0, 0, 0, byte(len(payload)), header, 255}
	return append(append(append(head, source[:]...), destination[:]...), payload...)
}

func TestIPv6(t *testing.T) {
	const (
		tcp, icmpv6, options = 6, 58, 60
		router, solicitation = 134, 135
	)
	n := newNetwork(t)
	a, b := n.plug(t, "a", anna), n.plug(t, "b", ben)
	for range 2 { // the announcements of b
		if a.next(soon) == nil {
			t.Fatal("no announcement")
		}
	}
	nodes := lan.MAC{0x33, 0x33, 0, 0, 0, 1}
	all, world := netip.MustParseAddr("ff02::1"), netip.MustParseAddr("2001:db8::1")
	target := b.IP6.As16()
	solicit := append([]byte{solicitation, 0, 0, 0, 0, 0, 0, 0}, target[:]...)
	advert := append([]byte{router, 0, 0, 0}, make([]byte, 12)...)
	hidden := append([]byte{icmpv6, 0, 1, 4, 0, 0, 0, 0}, advert...)
	for _, forged := range [][]byte{
		packet6(netip.MustParseAddr("fd00:87::77"), b.IP6, tcp, make([]byte, 20)...),
		packet6(n.lan.Gateway6, b.IP6, tcp, make([]byte, 20)...),
		packet6(a.LinkLocal, all, icmpv6, advert...),
		packet6(a.LinkLocal, all, options, hidden...),
	} {
		a.send(t, nodes, anna, typeIPv6, forged)
		a.send(t, ben, anna, typeIPv6, forged)
	}
	a.send(t, nodes, anna, typeIPv6, packet6(a.IP6, all, icmpv6, solicit...))
	answer := a.next(soon)
	if answer == nil || lan.MAC(answer[6:12]) != ben || answer[14+40] != solicitation+1 || !bytes.Equal(answer[14+8:14+24], target[:]) {
		t.Errorf("a was answered % x", answer)
	}
	good := packet6(a.IP6, b.IP6, tcp, make([]byte, 20)...)
	a.send(t, ben, anna, typeIPv6, good)
	if got := b.next(soon); got == nil || !bytes.Equal(got[14:], good) {
		t.Errorf("b received % x", got)
	}
	out := packet6(a.IP6, world, tcp, make([]byte, 20)...)
	a.send(t, lan.GatewayMAC, anna, typeIPv6, out)
	select {
	case got := <-n.gateway:
		if !bytes.Equal(got, out) {
			t.Errorf("the gateway received % x", got)
		}
	case <-time.After(soon):
		t.Error("the gateway received nothing")
	}
	n.lan.Deliver(packet6(world, b.IP6, tcp, make([]byte, 20)...))
	if got := b.next(soon); got == nil || lan.MAC(got[6:12]) != lan.GatewayMAC {
		t.Errorf("from the gateway b received % x", got)
	}
}
