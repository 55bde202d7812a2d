package lan_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"

	"woodlot.dev/switch/internal/guesttest"
	"woodlot.dev/switch/internal/lan"
)

const (
	soon  = 5 * time.Second
	never = 50 * time.Millisecond
	ipv4  = 0x0800
	arp   = 0x0806
)

var (
	macA     = lan.MAC{0x52, 0x54, 0, 0, 0, 0xa}
	macB     = lan.MAC{0x52, 0x54, 0, 0, 0, 0xb}
	macC     = lan.MAC{0x52, 0x54, 0, 0, 0, 0xc}
	everyone = lan.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
)

func network(t *testing.T) *lan.Lan {
	t.Helper()
	l, err := lan.New(netip.MustParsePrefix("10.86.0.0/24"), netip.Prefix{}, false)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func pair(t *testing.T) (*lan.Lan, *guesttest.Guest, *guesttest.Guest) {
	t.Helper()
	l := network(t)
	a := guesttest.Attach(t, l, lan.Request{ID: "a", MAC: macA})
	b := guesttest.Attach(t, l, lan.Request{ID: "b", MAC: macB})
	// That b has come.
	if a.Next(t, soon) == nil {
		t.Fatal("no announcement")
	}
	return l, a, b
}

func packet(from, to string) []byte {
	p := make([]byte, 28)
	p[0] = 0x45
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	source, destination := netip.MustParseAddr(from).As4(), netip.MustParseAddr(to).As4()
	copy(p[12:], source[:])
	copy(p[16:], destination[:])
	return p
}

func request(operation byte, sender lan.MAC, senderIP, target string) []byte {
	p := []byte{0, 1, 8, 0, 6, 4, 0, operation}
	from, to := netip.MustParseAddr(senderIP).As4(), netip.MustParseAddr(target).As4()
	p = append(append(p, sender[:]...), from[:]...)
	return append(append(p, make([]byte, 6)...), to[:]...)
}

func TestMembersReachEachOther(t *testing.T) {
	_, a, b := pair(t)
	want := packet("10.86.0.2", "10.86.0.3")
	a.Frame(macB, macA, ipv4, want)
	got := b.Next(t, soon)
	if got == nil || !bytes.Equal(got[14:], want) || lan.MAC(got[:6]) != macB || lan.MAC(got[6:12]) != macA {
		t.Errorf("%x", got)
	}
}

func TestWhatAGuestForgesGoesNowhere(t *testing.T) {
	good := packet("10.86.0.2", "10.86.0.3")
	cut := append([]byte(nil), good...)
	binary.BigEndian.PutUint16(cut[2:], 200)
	options := append([]byte(nil), good...)
	options[0] = 0x4f
	for name, c := range map[string]struct {
		destination, source lan.MAC
		kind                uint16
		payload             []byte
	}{
		"another's MAC":           {macB, macB, ipv4, good},
		"the gateway's MAC":       {macB, lan.GatewayMAC, ipv4, good},
		"another's address":       {macB, macA, ipv4, packet("10.86.0.9", "10.86.0.3")},
		"the gateway's address":   {macB, macA, ipv4, packet("10.86.0.1", "10.86.0.3")},
		"one packet for many":     {everyone, macA, ipv4, good},
		"no header":               {macB, macA, ipv4, good[:10]},
		"no packet":               {macB, macA, ipv4, nil},
		"a length beyond its end": {macB, macA, ipv4, cut},
		"options beyond its end":  {macB, macA, ipv4, options},
		"another version":         {macB, macA, ipv4, append([]byte{0x65}, good[1:]...)},
		"another protocol":        {macB, macA, 0x86dd, good},
		"a VLAN":                  {macB, macA, 0x8100, good},
		"an ARP reply":            {macB, macA, arp, request(2, macA, "10.86.0.1", "10.86.0.3")},
		"ARP in another's name":   {everyone, macA, arp, request(1, macA, "10.86.0.1", "10.86.0.3")},
		"ARP with another's MAC":  {everyone, macA, arp, request(1, macB, "10.86.0.2", "10.86.0.3")},
		"half an ARP request":     {everyone, macA, arp, request(1, macA, "10.86.0.2", "10.86.0.3")[:20]},
		"a MAC that nobody has":   {macC, macA, ipv4, good},
		"itself":                  {macA, macA, ipv4, packet("10.86.0.2", "10.86.0.2")},
	} {
		t.Run(name, func(t *testing.T) {
			_, a, b := pair(t)
			a.Frame(c.destination, c.source, 0, nil)
			a.Frame(c.destination, c.source, tcpip.NetworkProtocolNumber(c.kind), c.payload)
			a.Frame(macB, macA, ipv4, packet("10.86.0.2", "10.86.0.3"))
			// Only the good one behind it arrives.
			if got := b.Next(t, soon); got == nil || !bytes.Equal(got[14:], good) || lan.MAC(got[6:12]) != macA {
				t.Errorf("b got %x", got)
			}
			if got := b.Next(t, never); got != nil {
				t.Errorf("b got %x", got)
			}
			if got := a.Next(t, never); got != nil {
				t.Errorf("a got %x", got)
			}
			if a.Member.Dropped.Load() == 0 {
				t.Error("not counted")
			}
		})
	}
}

func TestAFrameTooLongEndsTheConnection(t *testing.T) {
	_, a, _ := pair(t)
	if _, err := a.Conn.Write([]byte{0xff, 0xff, 0xff, 0xff}); err != nil {
		t.Fatal(err)
	}
	_ = a.Conn.SetReadDeadline(time.Now().Add(soon))
	if _, err := a.Conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("still open: %v", err)
	}
}

func TestAFrameTooShortIsDropped(t *testing.T) {
	l, a, _ := pair(t)
	for length := range 14 {
		l.Receive(a.Member, make([]byte, length))
	}
	if got := a.Member.Dropped.Load(); got != 14 {
		t.Errorf("dropped %d", got)
	}
}

func TestARPIsAnsweredFromTheLeases(t *testing.T) {
	_, a, b := pair(t)
	for target, want := range map[string]lan.MAC{"10.86.0.3": macB, "10.86.0.1": lan.GatewayMAC, "10.86.0.254": lan.GatewayMAC} {
		a.Frame(everyone, macA, arp, request(1, macA, "10.86.0.2", target))
		got := a.Next(t, soon)
		ip := netip.MustParseAddr(target).As4()
		if got == nil || got[21] != 2 || lan.MAC(got[22:28]) != want || !bytes.Equal(got[28:32], ip[:]) || lan.MAC(got[:6]) != macA {
			t.Errorf("%s: %x", target, got)
		}
	}
	a.Frame(everyone, macA, arp, request(1, macA, "10.86.0.2", "10.86.0.77"))
	a.Frame(everyone, macA, arp, request(1, macA, "10.86.0.2", "192.0.2.1"))
	if got := a.Next(t, never); got != nil {
		t.Errorf("answered for nobody: %x", got)
	}
	if got := b.Next(t, never); got != nil {
		t.Errorf("passed on: %x", got)
	}
}

func TestAFloodIsBounded(t *testing.T) {
	_, a, b := pair(t)
	go func() {
		for range 2000 {
			a.Frame(everyone, macA, ipv4, packet("10.86.0.2", "10.86.0.255"))
		}
	}()
	count := 0
	for b.Next(t, 200*time.Millisecond) != nil {
		count++
	}
	if count < 100 || count > 1500 {
		t.Errorf("%d of 2000 arrived", count)
	}
}

func TestAGuestThatDoesNotReadHoldsNobodyUp(t *testing.T) {
	l, a, b := pair(t)
	c := guesttest.Attach(t, l, lan.Request{ID: "c", MAC: macC})
	for range 5000 {
		a.Frame(macB, macA, ipv4, packet("10.86.0.2", "10.86.0.3"))
	}
	a.Frame(macC, macA, ipv4, packet("10.86.0.2", "10.86.0.4"))
	if c.Next(t, soon) == nil {
		t.Error("c is held up by b")
	}
	if b.Member.Dropped.Load() < 3000 {
		t.Errorf("b's queue dropped %d", b.Member.Dropped.Load())
	}
}

func TestLeases(t *testing.T) {
	l := network(t)
	attach := func(id string, mac byte, ip string) (*lan.Member, error) {
		r := lan.Request{ID: id, MAC: lan.MAC{2, 0, 0, 0, 0, mac}}
		if ip != "" {
			r.IP = netip.MustParseAddr(ip)
		}
		return l.Attach(r)
	}
	first, err := attach("a", 1, "")
	if err != nil || first.IP.String() != "10.86.0.2" {
		t.Fatalf("%v, %v", first, err)
	}
	l.Detach(first)
	if first.Context().Err() == nil {
		t.Error("its context goes on")
	}
	// Not the one that has just become free.
	second, err := attach("b", 2, "")
	if err != nil || second.IP.String() != "10.86.0.3" {
		t.Fatalf("%v, %v", second, err)
	}
	if third, err := attach("c", 3, "10.86.0.77"); err != nil || third.IP.String() != "10.86.0.77" {
		t.Fatalf("%v, %v", third, err)
	}
	for _, bad := range []struct {
		id   string
		mac  byte
		ip   string
		kind error
	}{
		{"b", 9, "", lan.ErrTaken},
		{"d", 2, "", lan.ErrTaken},
		{"d", 9, "10.86.0.77", lan.ErrTaken},
		{"d", 9, "10.86.0.1", lan.ErrTaken},
		{"d", 9, "10.86.0.254", lan.ErrTaken},
		{"d", 9, "10.86.0.255", lan.ErrInvalid},
		{"d", 9, "10.86.0.0", lan.ErrInvalid},
		{"d", 9, "10.87.0.5", lan.ErrInvalid},
		{"", 9, "", lan.ErrInvalid},
	} {
		if _, err := attach(bad.id, bad.mac, bad.ip); !errors.Is(err, bad.kind) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

func TestAFullNetworkSaysSo(t *testing.T) {
	l, err := lan.New(netip.MustParsePrefix("10.86.0.0/28"), netip.Prefix{}, false)
	if err != nil {
		t.Fatal(err)
	}
	for i := range byte(12) {
		if _, err := l.Attach(lan.Request{ID: string('a' + rune(i)), MAC: lan.MAC{2, 0, 0, 0, 0, i}}); err != nil {
			t.Fatalf("%d: %v", i, err)
		}
	}
	if _, err := l.Attach(lan.Request{ID: "z", MAC: lan.MAC{2, 0, 0, 0, 0, 99}}); !errors.Is(err, lan.ErrFull) {
		t.Errorf("%v", err)
	}
}

func TestNames(t *testing.T) {
	l := network(t)
	for id, names := range map[string][]string{"1": {"Web", "shared"}, "2": {"db.", "shared", "SHARED"}} {
		if _, err := l.Attach(lan.Request{ID: id, Names: names, MAC: lan.MAC{2, 0, 0, 0, 0, id[0]}}); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]int{
		"web": 1, "db": 1, "shared": 2, "other": 0, "host.docker.internal": 1, "host.container.internal": 1,
	} {
		if got := l.Lookup(name); len(got) != want {
			t.Errorf("%s: %v", name, got)
		}
	}
	for _, bad := range []string{"", "with space", "ü", "a\nb"} {
		if _, err := l.Attach(lan.Request{ID: "x", Names: []string{bad}, MAC: macC}); !errors.Is(err, lan.ErrInvalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestSubnets(t *testing.T) {
	for _, bad := range []string{"10.0.0.0/7", "10.0.0.0/30", "10.0.0.1/24", "fd00::/64"} {
		if _, err := lan.New(netip.MustParsePrefix(bad), netip.Prefix{}, false); !errors.Is(err, lan.ErrInvalid) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	l, err := lan.New(netip.MustParsePrefix("172.16.0.0/12"), netip.Prefix{}, true)
	if err != nil || l.Host.String() != "172.31.255.254" || l.Gateway.String() != "172.16.0.1" {
		t.Errorf("%+v, %v", l, err)
	}
}

func TestMACs(t *testing.T) {
	for _, bad := range []string{"", "52:54", "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", "00:00:00:00:00:00", "00:00:00:00:00:00:00:01"} {
		if _, err := lan.ParseMAC(bad); !errors.Is(err, lan.ErrInvalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
