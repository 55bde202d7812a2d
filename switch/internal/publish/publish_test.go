package publish_test

import (
	"context"
	"errors"
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
	if probe, err := net.Listen("tcp6", "[::1]:0"); err != nil {
		t.Skip("the host has no IPv6: ", err)
	} else {
		_ = probe.Close()
	}
	for host, want := range map[string][2]bool{
		"":          {true, true},
		"0.0.0.0":   {true, false},
		"127.0.0.1": {true, false},
		"::":        {false, true},
		"::1":       {false, true},
	} {
		g, guest := setup(t)
		guest.Listen(t, 80)
		p := publish.Port{Container: 80, Protocol: "tcp"}
		if host != "" {
			p.HostIP = netip.MustParseAddr(host)
		}
		opened, err := publish.Open(g, guest.Member, p, 0)
		if err != nil {
			t.Fatal(err)
		}
		for i, address := range []string{"127.0.0.1", "::1"} {
			conn, err := net.Dial("tcp", net.JoinHostPort(address, strconv.Itoa(int(opened.HostPort))))
			if (err == nil) != want[i] {
				t.Errorf("%q at %s: %v", host, address, err)
			}
			if err == nil {
				_ = conn.Close()
			}
		}
	}
}
