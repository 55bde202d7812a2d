package lan

import (
	"encoding/binary"
	"net/netip"
)

// Numbers of RFC 8200.
const (
	ipv6Len         = 40
	hopByHop        = 0
	routing         = 43
	fragment        = 44
	destinationOpts = 60
	icmpv6          = 58
	fragmentLen     = 8
	// maxExtensions is more than anybody needs.
	maxExtensions = 8
)

// packet6 is what is looked at of an IPv6 packet.
type packet6 struct {
	source, destination netip.Addr
	hopLimit            byte
	// protocol is that of the payload, or of what the fragment is one of.
	protocol byte
	// payload is what follows the last header; nil in a fragment that is not the first.
	payload []byte
	// plain packets have no extension headers.
	plain bool
}

// parseIPv6 follows the extension headers to what they carry: what is behind them must not pass for something else
// (RFC 7113). A packet whose headers do not end in its first fragment is none.
func parseIPv6(packet []byte) (packet6, bool) {
	if len(packet) < ipv6Len || packet[0]>>4 != 6 {
		return packet6{}, false
	}
	end := ipv6Len + int(binary.BigEndian.Uint16(packet[4:6]))
	if end > len(packet) {
		return packet6{}, false
	}
	p := packet6{
		source:      netip.AddrFrom16([16]byte(packet[8:24])),
		destination: netip.AddrFrom16([16]byte(packet[24:40])),
		hopLimit:    packet[7],
		protocol:    packet[6],
		payload:     packet[ipv6Len:end],
		plain:       true,
	}
	for range maxExtensions {
		size := 0
		switch p.protocol {
		case hopByHop, routing, destinationOpts:
			if len(p.payload) < 8 {
				return packet6{}, false
			}
			size = 8 + 8*int(p.payload[1])
		case fragment:
			size = fragmentLen
		default:
			return p, p.protocol != icmpv6 || len(p.payload) >= 4
		}
		if len(p.payload) < size {
			return packet6{}, false
		}
		offset := binary.BigEndian.Uint16(p.payload[2:4]) >> 3
		later := p.protocol == fragment && offset != 0
		p.protocol, p.payload, p.plain = p.payload[0], p.payload[size:], false
		if later {
			p.payload = nil
			return p, true
		}
	}
	return packet6{}, false
}

// linkLocal gives the address that an interface makes of its MAC (RFC 4291, appendix A).
func linkLocal(mac MAC) netip.Addr {
	return netip.AddrFrom16([16]byte{
		0xfe, 0x80, 8: mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5],
	})
}

// counterpart gives the IPv6 address of a member: the same number in the one subnet as in the other.
func (l *Lan) counterpart(ip netip.Addr) netip.Addr {
	if !l.Prefix6.IsValid() {
		return netip.Addr{}
	}
	own, base := ip.As4(), l.Prefix.Addr().As4()
	number := binary.BigEndian.Uint32(own[:]) - binary.BigEndian.Uint32(base[:])
	address := l.Prefix6.Addr().As16()
	binary.BigEndian.PutUint32(address[12:], number)
	return netip.AddrFrom16(address)
}

// receiveIPv6 takes a member's packet to where it belongs.
func (l *Lan) receiveIPv6(from *Member, frame, packet []byte) bool {
	p, ok := parseIPv6(packet)
	if !ok || !from.IP6.IsValid() {
		return false
	}
	if p.isNDP() {
		return l.answerNDP(from, p)
	}
	if p.source != from.IP6 && p.source != from.LinkLocal {
		return false
	}
	return l.forward(from, frame, packet, p.destination, p.protocol)
}
