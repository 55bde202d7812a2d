package publish_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"woodlot.dev/switch/internal/gateway"
	"woodlot.dev/switch/internal/guesttest"
	"woodlot.dev/switch/internal/lan"
	"woodlot.dev/switch/internal/nettest"
	"woodlot.dev/switch/internal/publish"
)

var loopback = netip.MustParseAddr("127.0.0.1")

func setup(t *testing.T) (*gateway.Gateway, *guesttest.Guest) {
	t.Helper()
	l, err := lan.New(netip.MustParsePrefix("10.86.0.0/24"), netip.MustParsePrefix("fd00:86::/64"), true)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	t.Cleanup(stop)
	g, err := gateway.New(ctx, l, &net.Dialer{})
	if err != nil {
		t.Fatal(err)
	}
	return g, guesttest.Attach(t, l, lan.Request{ID: "a", MAC: lan.MAC{2, 0, 0, 0, 0, 1}}).Start(t)
}

func dial(t *testing.T, p *publish.Opened) net.Conn {
	t.Helper()
	conn, err := net.Dial(p.Protocol, net.JoinHostPort("127.0.0.1", strconv.Itoa(int(p.HostPort))))
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	return conn
}

func TestTCPBothWaysAndItsEnd(t *testing.T) {
	g, guest := setup(t)
	listener := guest.Listen(t, 80)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		// Answers only once the client has said that it is done.
		all, _ := io.ReadAll(conn)
		_, _ = conn.Write(append([]byte("got "), all...))
		_ = conn.Close()
	}()
	opened, err := publish.Open(g, guest.Member, publish.Port{HostIP: loopback, Container: 80, Protocol: "tcp"}, 0)
	if err != nil {
		t.Fatal(err)
	}
	conn := dial(t, opened)
	if _, err := conn.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if all, err := io.ReadAll(conn); err != nil || string(all) != "got hello" {
		t.Errorf("%q, %v", all, err)
	}
}

func TestNobodyListensInTheGuest(t *testing.T) {
	g, guest := setup(t)
	opened, err := publish.Open(g, guest.Member, publish.Port{HostIP: loopback, Container: 81, Protocol: "tcp"}, 0)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(opened.HostPort))))
	if err != nil {
		// Reset that early.
		return
	}
	if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("%d, %v", n, err)
	}
}

func TestUDP(t *testing.T) {
	g, guest := setup(t)
	socket := guest.ListenUDP(t, 53)
	go func() {
		buf := make([]byte, 2048)
		for {
			n, from, err := socket.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = socket.WriteTo(append([]byte("got "), buf[:n]...), from)
		}
	}()
	opened, err := publish.Open(g, guest.Member, publish.Port{HostIP: loopback, Container: 53, Protocol: "udp"}, 0)
	if err != nil {
		t.Fatal(err)
	}
	first, second := dial(t, opened), dial(t, opened)
	for conn, text := range map[net.Conn]string{first: "one", second: "two"} {
		if _, err := conn.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 64)
		if n, err := conn.Read(buf); err != nil || string(buf[:n]) != "got "+text {
			t.Errorf("%q, %v", buf[:n], err)
		}
	}
}

func TestARangeThatIsTaken(t *testing.T) {
	g, guest := setup(t)
	holder, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = holder.Close() }()
	port := uint16(holder.Addr().(*net.TCPAddr).Port)
	_, err = publish.Open(g, guest.Member, publish.Port{HostIP: loopback, HostPort: port, Container: 80, Protocol: "tcp"}, port)
	if !errors.Is(err, publish.ErrBusy) {
		t.Errorf("%v", err)
	}
	_, err = publish.Open(g, guest.Member, publish.Port{HostIP: loopback, HostPort: port, Container: 80, Protocol: "tcp"}, port-1)
	if !errors.Is(err, publish.ErrInvalid) {
		t.Errorf("%v", err)
	}
}

func TestAPrivilegedPort(t *testing.T) {
	first, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	if start, _ := strconv.Atoi(strings.TrimSpace(string(first))); err != nil || start <= 81 || os.Geteuid() == 0 {
		t.Skip("this user may open low ports")
	}
	g, guest := setup(t)
	for _, protocol := range []string{"tcp", "udp"} {
		_, err = publish.Open(g, guest.Member, publish.Port{HostIP: loopback, HostPort: 81, Container: 80, Protocol: protocol}, 0)
		if !errors.Is(err, publish.ErrPrivileged) || !strings.Contains(err.Error(), "127.0.0.1:81/"+protocol) {
			t.Errorf("%v", err)
		}
	}
}

func TestAPortIsOpenWhereItIsSaidToBe(t *testing.T) {
	requireIPv6(t)
	for host, want := range map[string]struct {
		open      [2]bool
		addresses string
	}{
		"":          {[2]bool{true, true}, "[0.0.0.0 ::]"},
		"0.0.0.0":   {[2]bool{true, false}, "[0.0.0.0]"},
		"127.0.0.1": {[2]bool{true, false}, "[127.0.0.1]"},
		"::":        {[2]bool{false, true}, "[::]"},
		"::1":       {[2]bool{false, true}, "[::1]"},
	} {
		for _, protocol := range []string{"tcp", "udp"} {
			g, guest := setup(t)
			echo(t, guest, protocol)
			p := publish.Port{Container: 80, Protocol: protocol}
			if host != "" {
				p.HostIP = netip.MustParseAddr(host)
			}
			opened, err := publish.Open(g, guest.Member, p, 0)
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(opened.Addresses); got != want.addresses {
				t.Errorf("%q: %s", host, got)
			}
			for i, address := range []string{"127.0.0.1", "::1"} {
				if got := asks(protocol, net.JoinHostPort(address, strconv.Itoa(int(opened.HostPort)))); got != want.open[i] {
					t.Errorf("%q at %s/%s: %t", host, address, protocol, got)
				}
			}
		}
	}
}

func requireIPv6(t *testing.T) {
	t.Helper()
	if probe, err := net.Listen("tcp6", "[::1]:0"); err != nil {
		t.Skip("the host has no IPv6: ", err)
	} else {
		_ = probe.Close()
	}
}

// echo sends back what port 80 of the guest is sent.
func echo(t *testing.T, guest *guesttest.Guest, protocol string) {
	t.Helper()
	if protocol == "udp" {
		socket := guest.ListenUDP(t, 80)
		go func() {
			buf := make([]byte, 64)
			for n, from, err := socket.ReadFrom(buf); err == nil; n, from, err = socket.ReadFrom(buf) {
				_, _ = socket.WriteTo(buf[:n], from)
			}
		}()
		return
	}
	listener := guest.Listen(t, 80)
	go func() {
		for conn, err := listener.Accept(); err == nil; conn, err = listener.Accept() {
			_, _ = io.Copy(conn, conn)
			_ = conn.Close()
		}
	}()
}

// asks tells whether what is sent to an address comes back.
func asks(protocol, address string) bool {
	conn, err := net.Dial(protocol, address)
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	_, _ = conn.Write([]byte("hello"))
	buf := make([]byte, 5)
	_, err = io.ReadFull(conn, buf)
	return err == nil && string(buf) == "hello"
}

func TestAPortThatIsBusyInOneFamily(t *testing.T) {
	requireIPv6(t)
	for network, address := range map[string]string{"tcp4": "127.0.0.1:0", "tcp6": "[::]:0"} {
		g, guest := setup(t)
		holder, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		port := uint16(holder.Addr().(*net.TCPAddr).Port)
		_, err = publish.Open(g, guest.Member, publish.Port{HostPort: port, Container: 80, Protocol: "tcp"}, 0)
		if !errors.Is(err, publish.ErrBusy) {
			t.Errorf("%s: %v", network, err)
		}
		_ = holder.Close()
	}
}

func TestAHostOfSeveralAddressesAnswersFromTheOneThatWasAsked(t *testing.T) {
	if !nettest.InNew(t, `ip link set lo up
		for address in 192.0.2.1/32 192.0.2.2/32 2001:db8::1/128 2001:db8::2/128; do ip addr add $address dev lo; done`) {
		return
	}
	for _, host := range []netip.Addr{{}, netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		g, guest := setup(t)
		echo(t, guest, "udp")
		opened, err := publish.Open(g, guest.Member, publish.Port{HostIP: host, Container: 80, Protocol: "udp"}, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, own := range []string{"192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"} {
			if ip := netip.MustParseAddr(own); host.IsValid() && ip.Is4() != host.Is4() {
				continue
			}
			// A connected socket takes what comes from there and nothing else. To the address it asks from, the kernel
			// would answer from that one.
			from := map[bool]string{true: "127.0.0.1", false: "::1"}[netip.MustParseAddr(own).Is4()]
			conn, err := (&net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(from)}}).Dial("udp", net.JoinHostPort(own, strconv.Itoa(int(opened.HostPort))))
			if err != nil {
				t.Fatal(err)
			}
			_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
			_, _ = conn.Write([]byte("hello"))
			buf := make([]byte, 5)
			if n, err := conn.Read(buf); err != nil || string(buf[:n]) != "hello" {
				t.Errorf("%v at %s: %q, %v", host, own, buf[:n], err)
			}
			_ = conn.Close()
		}
	}
}

func TestAHostWithoutIPv6(t *testing.T) {
	if !nettest.InNew(t, "sysctl -q net.ipv6.conf.all.disable_ipv6=1; ip link set lo up") {
		return
	}
	g, guest := setup(t)
	echo(t, guest, "tcp")
	opened, err := publish.Open(g, guest.Member, publish.Port{Container: 80, Protocol: "tcp"}, 0)
	if err != nil || fmt.Sprint(opened.Addresses) != "[0.0.0.0]" {
		t.Fatal(opened, err)
	}
	if !asks("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(opened.HostPort)))) {
		t.Error("no answer")
	}
	for _, host := range []string{"::", "::1", "2001:db8::1"} {
		_, err := publish.Open(g, guest.Member, publish.Port{HostIP: netip.MustParseAddr(host), HostPort: 8080, Container: 80, Protocol: "tcp"}, 0)
		if !errors.Is(err, publish.ErrInvalid) || !strings.Contains(err.Error(), "["+host+"]:8080/tcp") || !strings.Contains(err.Error(), "no IPv6") {
			t.Error(err)
		}
	}
}
