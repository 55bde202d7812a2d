package lan

import (
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// Numbers of RFC 4861.
const (
	routerSolicitation    = 133
	neighborSolicitation  = 135
	neighborAdvertisement = 136
	redirect              = 137
	discoveryHopLimit     = 255
	targetLinkLayer       = 2
	solicitationLen       = 24
	advertisementLen      = 32
)

var allNodes = netip.MustParseAddr("ff02::1")

func (p packet6) isNDP() bool {
	return p.protocol == icmpv6 && p.payload != nil && routerSolicitation <= p.payload[0] && p.payload[0] <= redirect
}

// answerNDP answers a solicitation of an address of the network. Everything else of the protocol goes nowhere: nobody but
// the switch says who has an address, and nobody is a router.
func (l *Lan) answerNDP(from *Member, p packet6) bool {
	if !p.plain || p.hopLimit != discoveryHopLimit || p.payload[1] != 0 {
		return false
	}
	if p.payload[0] == routerSolicitation {
		// As from a link without a router: there is nothing that a guest is not told otherwise.
		return true
	}
	own := p.source == from.IP6 || p.source == from.LinkLocal || p.source.IsUnspecified()
	if p.payload[0] != neighborSolicitation || len(p.payload) < solicitationLen || !own {
		return false
	}
	target := netip.AddrFrom16([16]byte(p.payload[8:24]))
	var owner MAC
	switch to := l.MemberAt(target); {
	case l.IsGateway(target) || l.IsHost(target):
		owner = GatewayMAC
	case to != nil && to != from:
		owner = to.MAC
	default:
		return true
	}
	to, solicited := p.source, true
	if p.source.IsUnspecified() {
		// It wants to know whether the address is taken, and has none to be told at.
		to, solicited = allNodes, false
	}
	from.Send(advertisement(from.MAC, owner, target, to, solicited))
	return true
}

// advertisement tells who has an address, over what was known before.
func advertisement(destination, owner MAC, address, to netip.Addr, solicited bool) []byte {
	packet := make([]byte, header.IPv6MinimumSize+advertisementLen)
	source, target := tcpip.AddrFrom16(address.As16()), tcpip.AddrFrom16(to.As16())
	header.IPv6(packet).Encode(&header.IPv6Fields{
		PayloadLength: advertisementLen, TransportProtocol: header.ICMPv6ProtocolNumber, HopLimit: discoveryHopLimit,
		SrcAddr: source, DstAddr: target,
	})
	message := header.ICMPv6(packet[header.IPv6MinimumSize:])
	message.SetType(neighborAdvertisement)
	advert := header.NDPNeighborAdvert(message.MessageBody())
	advert.SetTargetAddress(source)
	advert.SetSolicitedFlag(solicited)
	advert.SetOverrideFlag(true)
	advert.SetRouterFlag(owner == GatewayMAC)
	copy(message[solicitationLen:], append([]byte{targetLinkLayer, 1}, owner[:]...))
	message.SetChecksum(header.ICMPv6Checksum(header.ICMPv6ChecksumParams{Header: message, Src: source, Dst: target}))
	return ethernet(destination, owner, typeIPv6, packet)
}
