package gateway

import (
	"net/netip"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"

	"woodlot.dev/switch/internal/lan"
	"woodlot.dev/switch/internal/ping"
)

// echoWait is how long an answer to a ping is waited for.
const echoWait = 10 * time.Second

// Pinger sends ICMP echo requests from the host; ping.Sockets but in tests.
type Pinger interface {
	Send(to netip.Addr, seq uint16, ttl byte, data []byte) error
	Serve(take func(ping.Reply))
}

// echoes are the pings of all members that have no answer yet. Each has a sequence number of the host's, by which its
// answer is found: what a guest chooses may be another's, too.
type echoes struct {
	pinger Pinger

	mu    sync.Mutex
	asked map[uint16]*asked
	last  uint16
}

type asked struct {
	from *lan.Member
	// own is the address that the member asked from.
	own, to netip.Addr
	id, seq uint16
	late    *time.Timer
}

// CarryPings has pings go on from the host, and their answers come back; before the first member attaches. Without it, only
// the gateway and the host answer.
func (g *Gateway) CarryPings(pinger Pinger) {
	g.echoes = echoes{pinger: pinger, asked: map[uint16]*asked{}}
	pinger.Serve(g.answer)
}

// request is an echo request as a member sends it.
type request struct {
	own, to netip.Addr
	hops    byte
	id, seq uint16
	data    []byte
}

// parseEcho reads a packet whose header's shape and source are checked. Fragments are not put together.
func parseEcho(packet []byte) (request, bool) {
	if packet[0]>>4 == 4 {
		h := header.IPv4(packet)
		message := header.ICMPv4(packet[h.HeaderLength():h.TotalLength()])
		if h.More() || h.FragmentOffset() != 0 || len(message) < header.ICMPv4MinimumSize ||
			message.Type() != header.ICMPv4Echo || message.Checksum() != header.ICMPv4Checksum(message, 0) {
			return request{}, false
		}
		return request{
			own: fromStack(h.SourceAddress()), to: fromStack(h.DestinationAddress()), hops: h.TTL(),
			id: message.Ident(), seq: message.Sequence(), data: message.Payload(),
		}, true
	}
	h := header.IPv6(packet)
	message := header.ICMPv6(h.Payload())
	if h.TransportProtocol() != header.ICMPv6ProtocolNumber || len(message) < header.ICMPv6EchoMinimumSize ||
		message.Type() != header.ICMPv6EchoRequest ||
		message.Checksum() != header.ICMPv6Checksum(header.ICMPv6ChecksumParams{Header: message, Src: h.SourceAddress(), Dst: h.DestinationAddress()}) {
		return request{}, false
	}
	return request{
		own: fromStack(h.SourceAddress()), to: fromStack(h.DestinationAddress()), hops: h.HopLimit(),
		id: message.Ident(), seq: message.Sequence(), data: message.Payload(),
	}, true
}

// echo sends a member's ping on, if that is what the packet is and the member may.
func (g *Gateway) echo(from *lan.Member, packet []byte) {
	r, ok := parseEcho(packet)
	if !ok {
		return
	}
	// A port is nothing that a ping has: what is allowed must be so at every one.
	if !g.mayLeave(from, netip.AddrPortFrom(r.to, 0)) {
		g.lan.Refused(from, "a ping of "+r.to.String())
		g.refuse(from, packet)
		return
	}
	// With its last hop it ends here.
	if g.echoes.pinger == nil || r.hops <= 1 {
		return
	}
	seq, ok := g.echoes.note(from, r)
	if !ok {
		return
	}
	if err := g.echoes.pinger.Send(r.to, seq, r.hops-1, r.data); err != nil {
		// The host has no way there: IPv6 often.
		g.echoes.take(seq, r.to)
		g.refuse(from, packet)
	}
}

// note gives a ping its number, if the member has not too many under way.
func (e *echoes) note(from *lan.Member, r request) (uint16, bool) {
	if !from.Pings.Take() {
		return 0, false
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.last++
	seq := e.last
	if e.asked[seq] != nil {
		// All members together have every number under way.
		from.Pings.Release()
		return 0, false
	}
	one := &asked{from: from, own: r.own, to: r.to, id: r.id, seq: r.seq}
	one.late = time.AfterFunc(echoWait, func() { e.forget(seq, one) })
	e.asked[seq] = one
	return seq, true
}

// take gives the ping that an address answers, or nil if there is none.
func (e *echoes) take(seq uint16, to netip.Addr) *asked {
	e.mu.Lock()
	one := e.asked[seq]
	e.mu.Unlock()
	if one == nil || one.to != to || !e.forget(seq, one) {
		return nil
	}
	return one
}

// forget gives a ping's number back, and tells whether it still had it.
func (e *echoes) forget(seq uint16, one *asked) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.asked[seq] != one {
		return false
	}
	one.late.Stop()
	delete(e.asked, seq)
	one.from.Pings.Release()
	return true
}

// answer brings a reply to the member whose ping it is.
func (g *Gateway) answer(r ping.Reply) {
	one := g.echoes.take(r.Seq, r.From)
	if one == nil || one.from.Context().Err() != nil || r.TTL <= 1 {
		return
	}
	source, destination := toStack(one.to), toStack(one.own)
	if one.to.Is4() {
		packet := append(make([]byte, header.IPv4MinimumSize+header.ICMPv4MinimumSize), r.Data...)
		encodeIPv4(packet, header.ICMPv4ProtocolNumber, r.TTL-1, source, destination)
		message := header.ICMPv4(packet[header.IPv4MinimumSize:])
		message.SetType(header.ICMPv4EchoReply)
		message.SetIdent(one.id)
		message.SetSequence(one.seq)
		message.SetChecksum(header.ICMPv4Checksum(message, 0))
		g.lan.Deliver(packet)
		return
	}
	packet := append(make([]byte, header.IPv6MinimumSize+header.ICMPv6EchoMinimumSize), r.Data...)
	encodeIPv6(packet, header.ICMPv6ProtocolNumber, r.TTL-1, source, destination)
	message := header.ICMPv6(packet[header.IPv6MinimumSize:])
	message.SetType(header.ICMPv6EchoReply)
	message.SetIdent(one.id)
	message.SetSequence(one.seq)
	message.SetChecksum(header.ICMPv6Checksum(header.ICMPv6ChecksumParams{Header: message, Src: source, Dst: destination}))
	g.lan.Deliver(packet)
}
