package names_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"woodlot.dev/switch/internal/lan"
	"woodlot.dev/switch/internal/names"
)

// upstream answers every question with 192.0.2.9, to the id it was asked with.
type upstream struct {
	asked []string
	fail  bool
	// records are what it answers in place of that, and cut says that a datagram does not hold them.
	records []dnsmessage.Resource
	cut     bool
	// rename is the question that it says it answers, if it is another one.
	rename string
	// last is the question it got.
	last dnsmessage.Message
}

func (u *upstream) DialContext(_ context.Context, network, address string) (net.Conn, error) {
	u.asked = append(u.asked, network+" "+address)
	if u.fail {
		return nil, errors.New("no route")
	}
	ours, theirs := net.Pipe()
	go func() {
		defer func() { _ = theirs.Close() }()
		buf := make([]byte, 4096)
		if network == "tcp" {
			_, _ = io.ReadFull(theirs, buf[:2])
		}
		n, _ := theirs.Read(buf)
		var m dnsmessage.Message
		if m.Unpack(buf[:n]) != nil {
			return
		}
		u.last = m
		m.Response = true
		head := dnsmessage.ResourceHeader{Name: m.Questions[0].Name, Class: dnsmessage.ClassINET}
		m.Answers = []dnsmessage.Resource{{Header: head, Body: &dnsmessage.AResource{A: [4]byte{192, 0, 2, 9}}}}
		if u.records != nil {
			m.Answers = u.records
		}
		if u.cut && network == "udp" {
			m.Truncated, m.Answers = true, nil
		}
		if u.rename != "" {
			m.Questions[0].Name = dnsmessage.MustNewName(u.rename)
		}
		packed, _ := m.Pack()
		if network == "tcp" {
			_, _ = theirs.Write([]byte{byte(len(packed) >> 8), byte(len(packed))})
		} else {
			// One for somebody else comes first.
			wrong := append([]byte(nil), packed...)
			wrong[0] ^= 0xff
			_, _ = theirs.Write(wrong)
		}
		_, _ = theirs.Write(packed)
	}()
	return ours, nil
}

func setup(t *testing.T, internal bool) (*names.Server, *lan.Member, *upstream) {
	t.Helper()
	l, err := lan.New(netip.MustParsePrefix("10.86.0.0/24"), netip.MustParsePrefix("fd00:86::/64"), internal)
	if err != nil {
		t.Fatal(err)
	}
	m, err := l.Attach(lan.Request{ID: "1", Names: []string{"web", "www.example"}, MAC: lan.MAC{2, 0, 0, 0, 0, 1}})
	if err != nil {
		t.Fatal(err)
	}
	u := &upstream{}
	resolvers := func() []netip.Addr { return []netip.Addr{netip.MustParseAddr("192.0.2.53")} }
	siblings := func(_ context.Context, _ *lan.Member, name string) []netip.Addr {
		if name != "sibling" {
			return nil
		}
		return []netip.Addr{netip.MustParseAddr("10.87.0.9")}
	}
	return names.New(l, u, resolvers, siblings), m, u
}

func query(t *testing.T, name string, kind dnsmessage.Type) []byte {
	t.Helper()
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 4711, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: kind, Class: dnsmessage.ClassINET}},
	}
	packed, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return packed
}

func TestAnswers(t *testing.T) {
	const a, aaaa, ptr, mx = dnsmessage.TypeA, dnsmessage.TypeAAAA, dnsmessage.TypePTR, dnsmessage.TypeMX
	const ok, none = dnsmessage.RCodeSuccess, dnsmessage.RCodeNameError
	six := "2." + strings.Repeat("0.", 15) + "0.0.0.0.0.0.0.0.6.8.0.0.0.0.d.f."
	for _, c := range []struct {
		name     string
		kind     dnsmessage.Type
		internal bool
		code     dnsmessage.RCode
		answer   string
		asked    string
	}{
		{"web.", a, false, ok, "10.86.0.2", ""},
		{"WEB.", a, true, ok, "10.86.0.2", ""},
		{"www.example.", a, false, ok, "10.86.0.2", ""},
		{"web.", aaaa, false, ok, "fd00:86::2", ""},
		{"web.", aaaa, true, ok, "fd00:86::2", ""},
		{"host.docker.internal.", aaaa, false, ok, "fd00:86::fe", ""},
		{"gateway.container.internal.", aaaa, true, ok, "fd00:86::1", ""},
		{six + "ip6.arpa.", ptr, false, ok, "web.", ""},
		{"3" + six[1:] + "ip6.arpa.", ptr, false, none, "", ""},
		{"0.8.b.d.0.1.0.0.2.ip6.arpa.", ptr, false, ok, "192.0.2.9", "udp 192.0.2.53:53"},
		{"web.", mx, false, ok, "", ""},
		{"host.docker.internal.", a, false, ok, "10.86.0.254", ""},
		{"2.0.86.10.in-addr.arpa.", ptr, false, ok, "web.", ""},
		{"9.0.86.10.in-addr.arpa.", ptr, false, none, "", ""},
		{"gone.", a, false, none, "", ""},
		{"gone.", aaaa, false, none, "", ""},
		{"example.com.", a, false, ok, "192.0.2.9", "udp 192.0.2.53:53"},
		{"example.com.", a, true, none, "", ""},
		{"9.2.0.192.in-addr.arpa.", ptr, false, ok, "192.0.2.9", "udp 192.0.2.53:53"},
	} {
		server, member, world := setup(t, c.internal)
		var m dnsmessage.Message
		if err := m.Unpack(server.Answer(member, query(t, c.name, c.kind), "udp")); err != nil {
			t.Fatalf("%s %s: %v", c.name, c.kind, err)
		}
		answer := ""
		if len(m.Answers) == 1 {
			switch body := m.Answers[0].Body.(type) {
			case *dnsmessage.AResource:
				answer = netip.AddrFrom4(body.A).String()
			case *dnsmessage.AAAAResource:
				answer = netip.AddrFrom16(body.AAAA).String()
			case *dnsmessage.PTRResource:
				answer = body.PTR.String()
			}
		}
		if m.ID != 4711 || m.RCode != c.code || answer != c.answer || strings.Join(world.asked, ",") != c.asked {
			t.Errorf("%s %s: %s %q, asked %v", c.name, c.kind, m.RCode, answer, world.asked)
		}
	}
}

func TestANetworkWithoutIPv6HasNoData(t *testing.T) {
	l, err := lan.New(netip.MustParsePrefix("10.86.0.0/24"), netip.Prefix{}, false)
	if err != nil {
		t.Fatal(err)
	}
	member, err := l.Attach(lan.Request{ID: "1", Names: []string{"web"}, MAC: lan.MAC{2, 0, 0, 0, 0, 1}})
	if err != nil {
		t.Fatal(err)
	}
	server := names.New(l, &upstream{fail: true}, func() []netip.Addr { return nil }, nil)
	for _, name := range []string{"web.", "host.container.internal.", "gateway.container.internal."} {
		for kind, count := range map[dnsmessage.Type]int{dnsmessage.TypeA: 1, dnsmessage.TypeAAAA: 0} {
			var m dnsmessage.Message
			if err := m.Unpack(server.Answer(member, query(t, name, kind), "udp")); err != nil {
				t.Fatal(err)
			}
			if m.RCode != dnsmessage.RCodeSuccess || len(m.Answers) != count {
				t.Errorf("%s %s: %v", name, kind, m)
			}
		}
	}
}

func TestNamesOfAMembersOtherNetworks(t *testing.T) {
	for _, siblings := range [][]string{nil, {"/run/other"}} {
		server, member, _ := setup(t, true)
		member.Siblings = siblings
		var m dnsmessage.Message
		if err := m.Unpack(server.Answer(member, query(t, "Sibling.", dnsmessage.TypeA), "udp")); err != nil {
			t.Fatal(err)
		}
		if len(m.Answers) != len(siblings) {
			t.Errorf("%v: %v", siblings, m)
		}
	}
}

func TestOverAStream(t *testing.T) {
	server, member, world := setup(t, false)
	var m dnsmessage.Message
	if err := m.Unpack(server.Answer(member, query(t, "example.com.", dnsmessage.TypeA), "tcp")); err != nil || len(m.Answers) != 1 {
		t.Errorf("%v, %v", m, err)
	}
	if world.asked[0] != "tcp 192.0.2.53:53" {
		t.Error(world.asked)
	}
}

func TestAMembersOwnResolvers(t *testing.T) {
	server, member, world := setup(t, false)
	member.Nameservers = []netip.Addr{netip.MustParseAddr("203.0.113.1")}
	server.Answer(member, query(t, "example.com.", dnsmessage.TypeA), "udp")
	if world.asked[0] != "udp 203.0.113.1:53" {
		t.Error(world.asked)
	}
}

func TestNoResolverAnswers(t *testing.T) {
	server, member, world := setup(t, false)
	world.fail = true
	var m dnsmessage.Message
	if err := m.Unpack(server.Answer(member, query(t, "example.com.", dnsmessage.TypeA), "udp")); err != nil || m.RCode != dnsmessage.RCodeServerFailure {
		t.Errorf("%v, %v", m, err)
	}
}

func TestNonsense(t *testing.T) {
	server, member, _ := setup(t, false)
	good := query(t, "web.", dnsmessage.TypeA)
	response := append([]byte(nil), good...)
	response[2] |= 0x80
	for _, silent := range [][]byte{nil, {1}, good[:11], response} {
		if got := server.Answer(member, silent, "udp"); got != nil {
			t.Errorf("%x: %x", silent, got)
		}
	}
	two := append([]byte(nil), good...)
	two[5] = 2
	for _, bad := range [][]byte{good[:14], two, append(good[:len(good)-1:len(good)-1], 3)} {
		var m dnsmessage.Message
		if err := m.Unpack(server.Answer(member, bad, "udp")); err != nil || m.RCode == dnsmessage.RCodeSuccess {
			t.Errorf("%x: %v, %v", bad, m, err)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	l, err := lan.New(netip.MustParsePrefix("10.86.0.0/24"), netip.MustParsePrefix("fd00:86::/64"), true)
	if err != nil {
		f.Fatal(err)
	}
	m, err := l.Attach(lan.Request{ID: "1", Names: []string{"web"}, MAC: lan.MAC{2, 0, 0, 0, 0, 1}})
	if err != nil {
		f.Fatal(err)
	}
	server := names.New(l, &upstream{fail: true}, func() []netip.Addr { return nil }, nil)
	f.Add([]byte("\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03web\x00\x00\x01\x00\x01"))
	f.Fuzz(func(_ *testing.T, data []byte) { server.Answer(m, data, "udp") })
}
