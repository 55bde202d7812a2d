package netif

import (
	"strings"
	"testing"
)

func TestParseInterface(t *testing.T) {
	i, err := ParseInterface("52:54:00:12:34:56", "52:54:00:00:00:01", "eth0", []string{"10.0.2.15/24", "fd00::1/64"}, 1400)
	if err != nil {
		t.Fatal(err)
	}
	if got := i.Addresses[0].String(); got != "10.0.2.15/24" {
		t.Errorf("the host part was lost: %s", got)
	}
	for _, bad := range []struct {
		mac, name, address string
		mtu                uint32
	}{
		{"nonsense", "eth0", "10.0.0.1/8", 0},
		{"52:54:00:12:34:56", "../../x", "10.0.0.1/8", 0},
		{"52:54:00:12:34:56", strings.Repeat("x", 16), "10.0.0.1/8", 0},
		{"52:54:00:12:34:56", "eth0", "10.0.0.1", 0},
		{"52:54:00:12:34:56", "eth0", "10.0.0.1/8", 70000},
	} {
		if _, err := ParseInterface(bad.mac, "", bad.name, []string{bad.address}, bad.mtu); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
}

func TestWithoutIPv6(t *testing.T) {
	i, err := ParseInterface("52:54:00:12:34:56", "", "eth0", []string{"fd00::2/64", "10.0.2.15/24"}, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, destination := range []string{"0.0.0.0/0", "::/0"} {
		route, err := ParseRoute(destination, "", false)
		if err != nil {
			t.Fatal(err)
		}
		i.Routes = append(i.Routes, route)
	}
	got := withoutIPv6(i)
	if len(got.Addresses) != 1 || got.Addresses[0].String() != "10.0.2.15/24" || len(got.Routes) != 1 {
		t.Errorf("%+v", got)
	}
	if len(i.Addresses) != 2 || i.Addresses[0].String() != "fd00::2/64" {
		t.Errorf("the caller's became %v", i.Addresses)
	}
}

func TestParseRoute(t *testing.T) {
	r, err := ParseRoute("0.0.0.0/0", "10.0.2.2", false)
	if err != nil || r.Gateway.String() != "10.0.2.2" || r.Destination.String() != "0.0.0.0/0" {
		t.Errorf("%+v, %v", r, err)
	}
	if r, err := ParseRoute("10.0.2.2/32", "", true); err != nil || r.Gateway != nil || !r.Prohibit {
		t.Errorf("%+v, %v", r, err)
	}
	for _, bad := range [][2]string{{"default", ""}, {"10.0.0.0/8", "gateway"}} {
		if _, err := ParseRoute(bad[0], bad[1], false); err == nil {
			t.Errorf("%v was taken", bad)
		}
	}
}
