package egress

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

func parse(t *testing.T, rules ...Rule) *Policy {
	t.Helper()
	host := func() []netip.Addr { return []netip.Addr{netip.MustParseAddr("192.0.2.50")} }
	p, err := New(rules, host)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func at(text string) netip.AddrPort { return netip.MustParseAddrPort(text) }

func TestEverythingWithoutAPolicy(t *testing.T) {
	var p *Policy
	if !p.Allows(at("192.0.2.1:80")) || !p.AllowsName("example.org") || !p.AllowsNameAt("example.org", 80) {
		t.Error("refused")
	}
}

func TestAddresses(t *testing.T) {
	p := parse(t,
		Rule{Prefix: netip.MustParsePrefix("198.51.100.0/24")},
		Rule{Prefix: netip.MustParsePrefix("192.0.2.50/32"), Port: 443},
		Rule{Prefix: netip.MustParsePrefix("2001:db8::/32"), Port: 53},
	)
	for to, want := range map[string]bool{
		"198.51.100.7:1":   true,
		"198.51.101.7:1":   false,
		"192.0.2.50:443":   true, // the host, but by the user's own word
		"192.0.2.50:80":    false,
		"[2001:db8::1]:53": true,
		"[2001:db8::1]:54": false,
		"[::1]:53":         false,
	} {
		if p.Allows(at(to)) != want {
			t.Errorf("%s: not %v", to, want)
		}
	}
	if none := parse(t); none.Allows(at("198.51.100.7:1")) || none.AllowsName("example.org") {
		t.Error("no rule allows something")
	}
}

func TestNames(t *testing.T) {
	p := parse(t, Rule{Name: "example.org"}, Rule{Name: "*.example.com", Port: 443}, Rule{Name: "x.example.com", Port: 80})
	for name, want := range map[string]bool{
		"example.org":         true,
		"www.example.org":     false,
		"example.org.evil.it": false,
		"a.example.com":       true,
		"b.a.example.com":     true,
		"example.com":         false,
		".example.com":        false,
		"evilexample.com":     false,
		"":                    false,
	} {
		if p.AllowsName(name) != want {
			t.Errorf("%s: not %v", name, want)
		}
	}
	for port, want := range map[uint16]bool{443: true, 80: true, 22: false} {
		if p.AllowsNameAt("x.example.com", port) != want {
			t.Errorf("%d: not %v", port, want)
		}
	}
}

func TestWhatANameStandsFor(t *testing.T) {
	p := parse(t, Rule{Name: "example.org"}, Rule{Name: "*.example.com", Port: 443})
	now := time.Now()
	p.now = func() time.Time { return now }
	addresses := func(texts ...string) (found []netip.Addr) {
		for _, text := range texts {
			found = append(found, netip.MustParseAddr(text))
		}
		return found
	}
	p.Permit("example.org", addresses("203.0.113.1", "192.0.2.50", "168.63.129.16"), time.Hour)
	p.Permit("a.example.com", addresses("203.0.113.2"), time.Second)
	p.Permit("evil.it", addresses("203.0.113.3"), time.Hour)
	check := func(when string, cases map[string]bool) {
		t.Helper()
		for to, want := range cases {
			if p.Allows(at(to)) != want {
				t.Errorf("%s %s: not %v", when, to, want)
			}
		}
	}
	check("at once", map[string]bool{
		"203.0.113.1:22":    true,
		"203.0.113.2:443":   true,
		"203.0.113.2:80":    false,
		"203.0.113.3:443":   false, // of a name that is not allowed
		"192.0.2.50:80":     false, // the host
		"168.63.129.16:80":  false, // a cloud's metadata
		"203.0.113.254:443": false,
	})
	// A shorter time does not shorten.
	p.Permit("example.org", addresses("203.0.113.1"), 0)
	now = now.Add(minHold)
	check("later", map[string]bool{"203.0.113.1:22": true, "203.0.113.2:443": false})
	now = now.Add(time.Hour)
	check("much later", map[string]bool{"203.0.113.1:22": false})
	p.Permit("example.org", addresses("203.0.113.1"), 1000*MaxTTL)
	now = now.Add(MaxTTL)
	check("after the longest time", map[string]bool{"203.0.113.1:22": false})
}

func TestTheTableIsBounded(t *testing.T) {
	p := parse(t, Rule{Name: "*.example.org"})
	now := time.Now()
	p.now = func() time.Time { return now }
	for i := range maxNamed + 10 {
		p.Permit("a.example.org", []netip.Addr{netip.AddrFrom4([4]byte{203, 0, byte(i >> 8), byte(i)})}, time.Hour+time.Duration(i)*time.Second)
	}
	if len(p.named) != maxNamed || p.Allows(at("203.0.0.9:80")) || !p.Allows(at("203.0.0.10:80")) {
		t.Errorf("%d", len(p.named))
	}
	now = now.Add(2 * time.Hour)
	p.Permit("b.example.org", []netip.Addr{netip.MustParseAddr("198.51.100.1")}, time.Hour)
	if len(p.named) != 1 {
		t.Errorf("%d are left of which all but one have ended", len(p.named))
	}
}

func TestRulesThatCannotBe(t *testing.T) {
	both := Rule{Prefix: netip.MustParsePrefix("10.0.0.0/8"), Name: "a.b"}
	for _, rules := range [][]Rule{{{}}, {both}, {{Name: "a.*.b"}}, {{Name: "*"}}, {{Name: "*.*.b"}}, make([]Rule, MaxRules+1)} {
		if _, err := New(rules, nil); err == nil {
			t.Errorf("%s", fmt.Sprint(rules)[:9])
		}
	}
}

func TestTheHostsAddresses(t *testing.T) {
	for _, ip := range HostAddresses() {
		if ip == netip.AddrFrom4([4]byte{127, 0, 0, 1}) {
			return
		}
	}
	t.Error("127.0.0.1 is not among them")
}
