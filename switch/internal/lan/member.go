package lan

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/time/rate"

	"woodlot.dev/switch/internal/egress"
	"woodlot.dev/switch/internal/wire"
)

// Limits of one member.
const (
	// queueFrames is what waits for a guest that does not read; more is dropped, as on any wire.
	queueFrames = 1024
	writeBatch  = 64
	// ManyPerSecond frames to many, at most: they cost a copy for each member.
	ManyPerSecond = 500
	ManyBurst     = 200
	// As Linux does (net.ipv4.icmp_msgs_per_sec is 1000 for all).
	refusalsPerSecond = 100
	refusalsBurst     = 50
	maxFrame          = wire.EthernetLen + MTU
)

// Member is an attached container.
type Member struct {
	ID    string
	Names []string
	IP    netip.Addr
	// IP6 and LinkLocal are the zero Addr in a network without IPv6.
	IP6, LinkLocal netip.Addr

	MAC         MAC
	HostPorts   []PortRange
	Nameservers []netip.Addr
	Siblings    []string
	Egress      *egress.Policy

	// TCP, UDP, Pings and Queries bound what the member has under way beyond the network.
	TCP, UDP, Pings, Queries Slots

	Received, Sent, Dropped, EgressRefused atomic.Uint64

	// Refusals bounds how often the member is told that something is not let through.
	Refusals *rate.Limiter

	out chan []byte
	// trunk is the way to it instead of out, where the kernel carries frames.
	trunk Trunk
	many  *rate.Limiter
	ctx   context.Context
	end   context.CancelFunc
}

func newMember(r Request, names []string, ip, ip6 netip.Addr, trunk Trunk) *Member {
	m := &Member{
		ID: r.ID, Names: names, IP: ip, MAC: r.MAC, HostPorts: r.HostPorts, Nameservers: r.Nameservers, Siblings: r.Siblings,
		Egress: r.Egress,
		TCP:    make(Slots, 512), UDP: make(Slots, 256), Pings: make(Slots, 128), Queries: make(Slots, 64),
		out: make(chan []byte, queueFrames), trunk: trunk,
		many: rate.NewLimiter(ManyPerSecond, ManyBurst),

		Refusals: rate.NewLimiter(refusalsPerSecond, refusalsBurst),
	}
	if ip6.IsValid() {
		m.IP6, m.LinkLocal = ip6, linkLocal(m.MAC)
	}
	m.ctx, m.end = context.WithCancel(context.Background())
	return m
}

// Context ends when the member is detached.
func (m *Member) Context() context.Context { return m.ctx }

// MayReachHost tells whether the member may reach a port of the host's loopback: one that is given to all, and that its
// policy allows by one of the host's names.
func (m *Member) MayReachHost(port uint16) bool {
	named := func(name string) bool { return m.Egress.AllowsNameAt(name, port) }
	if !slices.ContainsFunc(hostNames, named) {
		return false
	}
	for _, r := range m.HostPorts {
		if r.First <= port && port <= r.Last {
			return true
		}
	}
	return false
}

// Slots bound something of which there may be so many at once.
type Slots chan struct{}

// Take takes a slot if one is free.
func (s Slots) Take() bool {
	select {
	case s <- struct{}{}:
		return true
	default:
		return false
	}
}

// Release gives it back.
func (s Slots) Release() { <-s }

// Send queues a frame for the member; a full queue drops it. The frame belongs to the member from here on.
func (m *Member) Send(frame []byte) {
	if m.trunk != nil {
		m.trunk.Send(frame, wire.Offload{})
		return
	}
	select {
	case m.out <- frame:
	default:
		m.Dropped.Add(1)
	}
}

// Serve carries frames between the member and its VMM until the connection ends, and gives the reason.
func (l *Lan) Serve(m *Member, conn net.Conn) error {
	stop := context.AfterFunc(m.ctx, func() { _ = conn.Close() })
	defer stop()
	var writer sync.WaitGroup
	ended := make(chan struct{})
	writer.Go(func() {
		m.write(conn, ended)
		// A VMM that cannot be written to is gone for reading, too.
		_ = conn.Close()
	})
	defer writer.Wait()
	defer close(ended)
	defer func() { _ = conn.Close() }()
	reader := bufio.NewReaderSize(conn, 64<<10)
	buf := make([]byte, maxFrame)
	for {
		frame, err := wire.ReadFrame(reader, buf)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		m.Received.Add(1)
		l.Receive(m, frame)
	}
}

func (m *Member) write(conn net.Conn, ended <-chan struct{}) {
	batch := make([][]byte, 0, writeBatch)
	for {
		select {
		case frame := <-m.out:
			batch = append(batch[:0], frame)
		case <-ended:
			return
		}
	more:
		for len(batch) < writeBatch {
			select {
			case frame := <-m.out:
				batch = append(batch, frame)
			default:
				break more
			}
		}
		if wire.WriteFrames(conn, batch) != nil {
			return
		}
		m.Sent.Add(uint64(len(batch)))
	}
}
