package ping_test

import (
	"net/netip"
	"testing"
	"time"

	"woodlot.dev/switch/internal/nettest"
	"woodlot.dev/switch/internal/ping"
)

const (
	world = "ip link set lo up; ip route add local 198.51.100.0/24 dev lo; ip -6 route add local 2001:db8:7::/64 dev lo"
	// As an ordinary user's process, without the right to raw sockets.
	unprivileged = `; set -- setpriv --bounding-set=-net_raw --inh-caps=-net_raw "$@"`
)

func TestRoot(t *testing.T) {
	if nettest.InNew(t, world) {
		expectReplies(t)
	}
}

func TestWhereTheAdministratorAllowsIt(t *testing.T) {
	if nettest.InNew(t, world+unprivileged+"; sysctl -q net.ipv4.ping_group_range='0 10'") {
		expectReplies(t)
	}
}

func TestWhereNobodyAllowsIt(t *testing.T) {
	if !nettest.InNew(t, world+unprivileged+"; sysctl -q net.ipv4.ping_group_range='1 0'") {
		return
	}
	if _, err := ping.Open(); err == nil {
		t.Error("it is allowed")
	}
}

func expectReplies(t *testing.T) {
	t.Helper()
	sockets, replies := open(t)
	// Somebody else's, whose replies are not ours.
	_, others := open(t)
	for _, address := range []string{"198.51.100.7", "2001:db8:7::7"} {
		to := netip.MustParseAddr(address)
		if err := sockets.Send(to, 4711, 17, []byte("hello")); err != nil {
			t.Fatal(err)
		}
		select {
		case r := <-replies:
			// The reply is a packet of its own, with a number of hops of its own.
			if r.From != to || r.Seq != 4711 || string(r.Data) != "hello" || r.TTL == 0 || r.TTL == 17 {
				t.Errorf("%+v", r)
			}
		case <-time.After(5 * time.Second):
			t.Errorf("no reply of %s", address)
		}
	}
	if len(others) > 0 {
		t.Errorf("another socket got %+v", <-others)
	}
	if err := sockets.Send(netip.MustParseAddr("192.0.2.1"), 1, 64, nil); err == nil {
		t.Error("sent where there is no way")
	}
	// It would be the last hop's to answer.
	if err := sockets.Send(netip.MustParseAddr("198.51.100.7"), 1, 0, nil); err == nil {
		t.Error("sent with no hops left")
	}
}

func open(t *testing.T) (*ping.Sockets, chan ping.Reply) {
	t.Helper()
	sockets, err := ping.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sockets.Close)
	replies := make(chan ping.Reply, 10)
	sockets.Serve(func(r ping.Reply) {
		r.Data = append([]byte(nil), r.Data...)
		replies <- r
	})
	return sockets, replies
}
