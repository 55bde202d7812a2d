package names_test

import (
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"woodlot.dev/switch/internal/egress"
	"woodlot.dev/switch/internal/lan"
	"woodlot.dev/switch/internal/names"
)

// guarded is a member that may ask for example.org and what is below example.com, there at port 443.
func guarded(t *testing.T) (*names.Server, *lan.Member, *upstream) {
	t.Helper()
	server, member, world := setup(t, false)
	policy, err := egress.New([]egress.Rule{{Name: "example.org"}, {Name: "*.example.com", Port: 443}}, egress.HostAddresses)
	if err != nil {
		t.Fatal(err)
	}
	member.Egress = policy
	return server, member, world
}

func ask(t *testing.T, server *names.Server, member *lan.Member, name string, kind dnsmessage.Type) dnsmessage.Message {
	t.Helper()
	var m dnsmessage.Message
	if err := m.Unpack(server.Answer(member, query(t, name, kind), "udp")); err != nil {
		t.Fatalf("%s %s: %v", name, kind, err)
	}
	return m
}

func record(owner string, ttl uint32, body dnsmessage.ResourceBody) dnsmessage.Resource {
	head := dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName(owner), Class: dnsmessage.ClassINET, TTL: ttl}
	return dnsmessage.Resource{Header: head, Body: body}
}

func address(last byte) *dnsmessage.AResource {
	return &dnsmessage.AResource{A: [4]byte{203, 0, 113, last}}
}

func alias(to string) *dnsmessage.CNAMEResource {
	return &dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName(to)}
}

func TestNamesThatAPolicyAllows(t *testing.T) {
	const a, aaaa, txt, https = dnsmessage.TypeA, dnsmessage.TypeAAAA, dnsmessage.TypeTXT, dnsmessage.Type(65)
	const ok, none = dnsmessage.RCodeSuccess, dnsmessage.RCodeNameError
	for _, c := range []struct {
		name  string
		kind  dnsmessage.Type
		code  dnsmessage.RCode
		count int
		// asked tells whether anybody beyond the network learns of the question.
		asked bool
	}{
		{"example.org.", a, ok, 1, true},
		{"eXample.ORG.", a, ok, 1, true},
		{"a.b.example.com.", a, ok, 1, true},
		{"example.org.", aaaa, ok, 0, true},
		{"example.org.", txt, ok, 0, false},
		{"example.org.", https, ok, 0, false},
		{"web.", a, ok, 1, false},
		{"secret.evil.example.", a, none, 0, false},
		{"secret.example.org.", a, none, 0, false},
		{"secret.evil.example.", txt, none, 0, false},
		{"example.com.", a, none, 0, false},
		{"1.113.0.203.in-addr.arpa.", dnsmessage.TypePTR, none, 0, false},
		{"com.", dnsmessage.TypeNS, none, 0, false},
	} {
		server, member, world := guarded(t)
		m := ask(t, server, member, c.name, c.kind)
		if m.RCode != c.code || len(m.Answers) != c.count || (len(world.asked) > 0) != c.asked {
			t.Errorf("%s %s: %s %v, asked %v", c.name, c.kind, m.RCode, m.Answers, world.asked)
		}
		if n := member.EgressRefused.Load(); (n == 1) != (c.code == none) {
			t.Errorf("%s %s: refused %d", c.name, c.kind, n)
		}
		if m.ID != 4711 || len(m.Questions) != 1 || m.Questions[0].Name.String() != c.name {
			t.Errorf("%s: %v", c.name, m)
		}
	}
}

func TestOnlyTheNameGoesOut(t *testing.T) {
	server, member, world := guarded(t)
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 1, CheckingDisabled: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName("eXaMpLe.oRg."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
		Additionals: []dnsmessage.Resource{
			record("secret.evil.example.", 0, &dnsmessage.TXTResource{TXT: []string{"secret"}}),
		},
	}
	packed, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	if server.Answer(member, packed, "tcp") == nil {
		t.Fatal("no answer")
	}
	got := world.last
	if got.Questions[0].Name.String() != "example.org." || len(got.Additionals) != 1 || got.CheckingDisabled ||
		got.Additionals[0].Header.Type != dnsmessage.TypeOPT {
		t.Errorf("%v", got)
	}
}

func TestANameAllowsWhatItResolvesTo(t *testing.T) {
	server, member, world := guarded(t)
	world.records = []dnsmessage.Resource{
		record("Example.org.", 300, alias("edge.cdn.example.")),
		record("other.cdn.example.", 1, address(99)),
		record("edge.cdn.example.", 60, address(1)),
		record("edge.cdn.example.", 90, address(2)),
		record("edge.cdn.example.", 5, &dnsmessage.AAAAResource{AAAA: [16]byte{0x20, 1}}),
		record("example.org.", 300, address(98)),
		record("edge.cdn.example.", 60, &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}}),
	}
	allows := func(text string) bool { return member.Egress.Allows(netip.MustParseAddrPort(text)) }
	if allows("203.0.113.1:22") {
		t.Error("allowed before it is asked for")
	}
	m := ask(t, server, member, "example.org.", dnsmessage.TypeA)
	if len(m.Answers) != 3 || m.Answers[0].Header.Name.String() != "example.org." || m.Answers[0].Header.TTL != 60 {
		t.Errorf("%v", m.Answers)
	}
	for to, want := range map[string]bool{
		"203.0.113.1:22":  true,
		"203.0.113.2:443": true,
		"203.0.113.98:22": false, // of the alias's own name, which has no other data
		"203.0.113.99:22": false, // of a name that was not asked for
		"127.0.0.1:22":    false, // the host's
		"[2001::]:22":     false, // not what was asked for
	} {
		if allows(to) != want {
			t.Errorf("%s: not %v", to, want)
		}
	}
}

func TestAnAnswerThatADatagramDoesNotHold(t *testing.T) {
	server, member, world := guarded(t)
	world.cut = true
	for i := range byte(100) {
		world.records = append(world.records, record("example.org.", 1<<31, address(i)))
	}
	m := ask(t, server, member, "example.org.", dnsmessage.TypeA)
	if len(m.Answers) != 8 || strings.Join(world.asked, ",") != "udp 192.0.2.53:53,tcp 192.0.2.53:53" {
		t.Errorf("%v, asked %v", m.Answers, world.asked)
	}
	if ttl := m.Answers[0].Header.TTL; ttl != uint32(egress.MaxTTL.Seconds()) {
		t.Errorf("holds for %d s", ttl)
	}
	allowed := 0
	for i := range byte(100) {
		if member.Egress.Allows(netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, i}), 80)) {
			allowed++
		}
	}
	if allowed != 8 {
		t.Errorf("%d are allowed", allowed)
	}
}

func TestAnAnswerToAnotherQuestion(t *testing.T) {
	server, member, world := guarded(t)
	world.fail = true
	if m := ask(t, server, member, "example.org.", dnsmessage.TypeA); m.RCode != dnsmessage.RCodeServerFailure {
		t.Errorf("%v", m)
	}
	world.fail, world.rename = false, "evil.example."
	if m := ask(t, server, member, "example.org.", dnsmessage.TypeA); m.RCode != dnsmessage.RCodeServerFailure {
		t.Errorf("%v", m)
	}
}
