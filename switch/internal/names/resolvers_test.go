package names

import (
	"net/netip"
	"slices"
	"testing"
)

func TestParse(t *testing.T) {
	for text, want := range map[string][]string{
		"nameserver 192.0.2.1\n# nameserver 192.0.2.2\nsearch x\nnameserver fe80::1%eth0": {"192.0.2.1", "fe80::1%eth0"},
		"nameserver a\nnameserver\n": {"127.0.0.1"},
		"nameserver 1.1.1.1\nnameserver 1.1.1.2\nnameserver 1.1.1.3\nnameserver 1.1.1.4\n": {"1.1.1.1", "1.1.1.2", "1.1.1.3"},
	} {
		var wanted []netip.Addr
		for _, ip := range want {
			wanted = append(wanted, netip.MustParseAddr(ip))
		}
		if got := parse(text); !slices.Equal(got, wanted) {
			t.Errorf("%q: %v", text, got)
		}
	}
}
