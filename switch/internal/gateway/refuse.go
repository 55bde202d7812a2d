package gateway

import (
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"woodlot.dev/switch/internal/lan"
)

const (
	ttl     = 64
	quoted4 = header.IPv4MinimumSize + header.UDPMinimumSize
	quoted6 = header.IPv6MinimumSize + header.UDPMinimumSize
)

// refuseUDP tells a member that its datagram is not let through, "communication administratively prohibited" (RFC 1812,
// 5.2.7.1; RFC 4443, 3.1), so that it need not wait for an answer. What is quoted of it is what its sender is found by:
// addresses and ports.
func (g *Gateway) refuseUDP(from *lan.Member, id stack.TransportEndpointID) {
	if !from.Refusals.Allow() {
		return
	}
	if fromStack(id.LocalAddress).Is4() {
		g.lan.Deliver(refusal4(g.lan.Gateway, id))
	} else {
		g.lan.Deliver(refusal6(g.lan.Gateway6, id))
	}
}

func refusal4(gateway netip.Addr, id stack.TransportEndpointID) []byte {
	packet := make([]byte, header.IPv4MinimumSize+header.ICMPv4MinimumSize+quoted4)
	encodeIPv4(packet, header.ICMPv4ProtocolNumber, toStack(gateway), id.RemoteAddress)
	message := header.ICMPv4(packet[header.IPv4MinimumSize:])
	message.SetType(header.ICMPv4DstUnreachable)
	message.SetCode(header.ICMPv4AdminProhibited)
	datagram := message[header.ICMPv4MinimumSize:]
	encodeIPv4(datagram, header.UDPProtocolNumber, id.RemoteAddress, id.LocalAddress)
	encodeUDP(datagram[header.IPv4MinimumSize:], id)
	message.SetChecksum(header.ICMPv4Checksum(message, 0))
	return packet
}

func refusal6(gateway netip.Addr, id stack.TransportEndpointID) []byte {
	packet := make([]byte, header.IPv6MinimumSize+header.ICMPv6DstUnreachableMinimumSize+quoted6)
	encodeIPv6(packet, header.ICMPv6ProtocolNumber, toStack(gateway), id.RemoteAddress)
	message := header.ICMPv6(packet[header.IPv6MinimumSize:])
	message.SetType(header.ICMPv6DstUnreachable)
	message.SetCode(header.ICMPv6Prohibited)
	datagram := message[header.ICMPv6DstUnreachableMinimumSize:]
	encodeIPv6(datagram, header.UDPProtocolNumber, id.RemoteAddress, id.LocalAddress)
	encodeUDP(datagram[header.IPv6MinimumSize:], id)
	message.SetChecksum(header.ICMPv6Checksum(header.ICMPv6ChecksumParams{
		Header: message, Src: toStack(gateway), Dst: id.RemoteAddress,
	}))
	return packet
}

func encodeIPv4(packet []byte, protocol tcpip.TransportProtocolNumber, source, destination tcpip.Address) {
	h := header.IPv4(packet)
	h.Encode(&header.IPv4Fields{
		TotalLength: uint16(len(packet)), TTL: ttl, Protocol: uint8(protocol), SrcAddr: source, DstAddr: destination,
	})
	h.SetChecksum(^h.CalculateChecksum())
}

func encodeIPv6(packet []byte, protocol tcpip.TransportProtocolNumber, source, destination tcpip.Address) {
	header.IPv6(packet).Encode(&header.IPv6Fields{
		PayloadLength: uint16(len(packet) - header.IPv6MinimumSize), TransportProtocol: protocol, HopLimit: ttl,
		SrcAddr: source, DstAddr: destination,
	})
}

func encodeUDP(datagram []byte, id stack.TransportEndpointID) {
	header.UDP(datagram).Encode(&header.UDPFields{
		SrcPort: id.RemotePort, DstPort: id.LocalPort, Length: header.UDPMinimumSize,
	})
}
