package gateway

import (
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"woodlot.dev/switch/internal/lan"
)

const (
	ttl = 64
	// What is quoted of a packet behind its header: its ports, or the number of a ping.
	quotedPayload = 8
	quoted4       = header.IPv4MinimumSize + quotedPayload
	quoted6       = header.IPv6MinimumSize + quotedPayload
)

// refuse tells a member that its packet is not let through, "communication administratively prohibited" (RFC 1812,
// 5.2.7.1; RFC 4443, 3.1), so that it need not wait for an answer. What is quoted of it is what its sender is found by.
func (g *Gateway) refuse(from *lan.Member, packet []byte) {
	if !from.Refusals.Allow() {
		return
	}
	if packet[0]>>4 == 4 {
		quoted := int(header.IPv4(packet).HeaderLength()) + quotedPayload
		g.lan.Deliver(refusal4(g.lan.Gateway, packet[:min(len(packet), quoted)]))
	} else {
		g.lan.Deliver(refusal6(g.lan.Gateway6, packet[:min(len(packet), quoted6)]))
	}
}

// refuseUDP does it for a datagram of which no more is known.
func (g *Gateway) refuseUDP(from *lan.Member, id stack.TransportEndpointID) {
	if fromStack(id.LocalAddress).Is4() {
		packet := make([]byte, quoted4)
		encodeIPv4(packet, header.UDPProtocolNumber, ttl, id.RemoteAddress, id.LocalAddress)
		encodeUDP(packet[header.IPv4MinimumSize:], id)
		g.refuse(from, packet)
	} else {
		packet := make([]byte, quoted6)
		encodeIPv6(packet, header.UDPProtocolNumber, ttl, id.RemoteAddress, id.LocalAddress)
		encodeUDP(packet[header.IPv6MinimumSize:], id)
		g.refuse(from, packet)
	}
}

func refusal4(gateway netip.Addr, quoted []byte) []byte {
	packet := make([]byte, header.IPv4MinimumSize+header.ICMPv4MinimumSize)
	packet = append(packet, quoted...)
	encodeIPv4(packet, header.ICMPv4ProtocolNumber, ttl, toStack(gateway), header.IPv4(quoted).SourceAddress())
	message := header.ICMPv4(packet[header.IPv4MinimumSize:])
	message.SetType(header.ICMPv4DstUnreachable)
	message.SetCode(header.ICMPv4AdminProhibited)
	message.SetChecksum(header.ICMPv4Checksum(message, 0))
	return packet
}

func refusal6(gateway netip.Addr, quoted []byte) []byte {
	packet := make([]byte, header.IPv6MinimumSize+header.ICMPv6DstUnreachableMinimumSize)
	packet = append(packet, quoted...)
	source, destination := toStack(gateway), header.IPv6(quoted).SourceAddress()
	encodeIPv6(packet, header.ICMPv6ProtocolNumber, ttl, source, destination)
	message := header.ICMPv6(packet[header.IPv6MinimumSize:])
	message.SetType(header.ICMPv6DstUnreachable)
	message.SetCode(header.ICMPv6Prohibited)
	message.SetChecksum(header.ICMPv6Checksum(header.ICMPv6ChecksumParams{Header: message, Src: source, Dst: destination}))
	return packet
}

func encodeIPv4(packet []byte, protocol tcpip.TransportProtocolNumber, hops byte, source, destination tcpip.Address) {
	h := header.IPv4(packet)
	h.Encode(&header.IPv4Fields{
		TotalLength: uint16(len(packet)), TTL: hops, Protocol: uint8(protocol), SrcAddr: source, DstAddr: destination,
	})
	h.SetChecksum(^h.CalculateChecksum())
}

func encodeIPv6(packet []byte, protocol tcpip.TransportProtocolNumber, hops byte, source, destination tcpip.Address) {
	header.IPv6(packet).Encode(&header.IPv6Fields{
		PayloadLength: uint16(len(packet) - header.IPv6MinimumSize), TransportProtocol: protocol, HopLimit: hops,
		SrcAddr: source, DstAddr: destination,
	})
}

func encodeUDP(datagram []byte, id stack.TransportEndpointID) {
	header.UDP(datagram).Encode(&header.UDPFields{
		SrcPort: id.RemotePort, DstPort: id.LocalPort, Length: header.UDPMinimumSize,
	})
}
