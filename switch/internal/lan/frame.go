package lan

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"

	"woodlot.dev/switch/internal/wire"
)

// Numbers of IEEE 802.3 and RFC 826.
const (
	typeIPv4   = 0x0800
	typeARP    = 0x0806
	typeIPv6   = 0x86dd
	arpLen     = 28
	arpRequest = 1
	arpReply   = 2
	ipv4Len    = 20
)

// Receive takes one frame of a member, valid during the call, to where it belongs.
func (l *Lan) Receive(from *Member, frame []byte) {
	if len(frame) < wire.EthernetLen || MAC(frame[6:12]) != from.MAC {
		from.Dropped.Add(1)
		return
	}
	payload := frame[wire.EthernetLen:]
	delivered := false
	switch binary.BigEndian.Uint16(frame[12:14]) {
	case typeARP:
		delivered = l.answerARP(from, payload)
	case typeIPv4:
		if isFrom(from.IP, payload) {
			delivered = l.forward(from, frame, payload, netip.AddrFrom4([4]byte(payload[16:20])), payload[9])
		}
	case typeIPv6:
		delivered = l.receiveIPv6(from, frame, payload)
	}
	if !delivered {
		from.Dropped.Add(1)
	}
}

func isARP(frame []byte) bool { return binary.BigEndian.Uint16(frame[12:14]) == typeARP }

func isNDP(frame []byte) bool {
	if binary.BigEndian.Uint16(frame[12:14]) != typeIPv6 {
		return false
	}
	p, ok := parseIPv6(frame[wire.EthernetLen:])
	return ok && p.isNDP()
}

// isFrom checks an IPv4 header's shape and source.
func isFrom(source netip.Addr, packet []byte) bool {
	if len(packet) < ipv4Len || packet[0]>>4 != 4 {
		return false
	}
	header := int(packet[0]&0xf) * 4
	total := int(binary.BigEndian.Uint16(packet[2:4]))
	if header < ipv4Len || total < header || total > len(packet) {
		return false
	}
	return netip.AddrFrom4([4]byte(packet[12:16])) == source
}

// forward takes a packet, whose source is checked, by the destination of its frame; ip and protocol are the packet's.
func (l *Lan) forward(from *Member, frame, packet []byte, ip netip.Addr, protocol byte) bool {
	destination := MAC(frame[0:6])
	switch {
	case destination == GatewayMAC:
		if l.uplink == nil {
			return false
		}
		l.uplink(from, packet, ip, protocol)
		return true
	case destination[0]&1 != 0:
		many := ip == l.broadcast || ip.IsMulticast() || ip == netip.AddrFrom4([4]byte{255, 255, 255, 255})
		return many && from.many.Allow() && l.flood(from, frame)
	}
	l.mu.RLock()
	to := l.byMAC[destination]
	l.mu.RUnlock()
	if to == nil || to == from {
		return false
	}
	to.Send(bytes.Clone(frame))
	return true
}

func (l *Lan) flood(from *Member, frame []byte) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for _, to := range l.byID {
		if to != from {
			to.Send(bytes.Clone(frame))
		}
	}
	return true
}

// Deliver brings a packet of the gateway to the member it is addressed to.
func (l *Lan) Deliver(packet []byte) {
	if len(packet) > MTU {
		return
	}
	if to, frame := l.address(packet); to != nil {
		to.Send(frame)
	}
}

// address puts a packet of the gateway into a frame for the member that it is for, or gives nil.
func (l *Lan) address(packet []byte) (*Member, []byte) {
	if len(packet) < ipv4Len {
		return nil, nil
	}
	kind, ip := uint16(typeIPv4), netip.AddrFrom4([4]byte(packet[16:20]))
	if packet[0]>>4 == 6 && len(packet) >= ipv6Len {
		kind, ip = typeIPv6, netip.AddrFrom16([16]byte(packet[24:40]))
	}
	to := l.MemberAt(ip)
	if to == nil {
		return nil, nil
	}
	return to, ethernet(to.MAC, GatewayMAC, kind, packet)
}

func ethernet(destination, source MAC, kind uint16, payload ...[]byte) []byte {
	head := slices.Concat(destination[:], source[:], binary.BigEndian.AppendUint16(nil, kind))
	return slices.Concat(append([][]byte{head}, payload...)...)
}

// answerARP answers a request for an address of the network. Replies of guests, and requests that lie about who asks,
// go nowhere.
func (l *Lan) answerARP(from *Member, packet []byte) bool {
	// Ethernet and IPv4, 6 and 4 bytes long; then the operation.
	if len(packet) < arpLen || !bytes.Equal(packet[:8], []byte{0, 1, 8, 0, 6, 4, 0, arpRequest}) {
		return false
	}
	sender := netip.AddrFrom4([4]byte(packet[14:18]))
	if MAC(packet[8:14]) != from.MAC || sender != from.IP && !sender.IsUnspecified() {
		return false
	}
	target := netip.AddrFrom4([4]byte(packet[24:28]))
	var owner MAC
	switch to := l.MemberAt(target); {
	case l.IsGateway(target) || l.IsHost(target):
		owner = GatewayMAC
	case to != nil && to != from:
		owner = to.MAC
	default:
		// Nobody has it: as on any wire, no answer.
		return true
	}
	from.Send(arp(from.MAC, arpReply, owner, target, from.MAC, sender))
	return true
}

// announce tells all others of a member's addresses; the lock is held.
func (l *Lan) announce(m *Member) {
	for _, to := range l.byID {
		if to != m {
			to.Send(arp(to.MAC, arpRequest, m.MAC, m.IP, MAC{}, m.IP))
			if m.IP6.IsValid() {
				to.Send(advertisement(to.MAC, m.MAC, m.IP6, allNodes, false))
			}
		}
	}
}

func arp(destination MAC, operation byte, sender MAC, senderIP netip.Addr, target MAC, targetIP netip.Addr) []byte {
	senderBytes, targetBytes := senderIP.As4(), targetIP.As4()
	return ethernet(destination, sender, typeARP,
		[]byte{0, 1, 8, 0, 6, 4, 0, operation}, sender[:], senderBytes[:], target[:], targetBytes[:])
}
