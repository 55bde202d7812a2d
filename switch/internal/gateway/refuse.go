package gateway

import (
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"woodlot.dev/switch/internal/lan"
)

// refuseUDP tells a member that its datagram is not let through, "communication administratively prohibited" (RFC 1812,
// 5.2.7.1), so that it need not wait for an answer. What is quoted of it is what its sender is found by: addresses and ports.
func (g *Gateway) refuseUDP(from *lan.Member, id stack.TransportEndpointID) {
	if !from.Refusals.Allow() {
		return
	}
	const quoted = header.IPv4MinimumSize + header.UDPMinimumSize
	packet := make([]byte, header.IPv4MinimumSize+header.ICMPv4MinimumSize+quoted)
	encodeIPv4(packet, header.ICMPv4ProtocolNumber, g.lan.Gateway, fromStack(id.RemoteAddress))

	message := header.ICMPv4(packet[header.IPv4MinimumSize:])
	message.SetType(header.ICMPv4DstUnreachable)
	message.SetCode(header.ICMPv4AdminProhibited)
	datagram := message[header.ICMPv4MinimumSize:]
	encodeIPv4(datagram, header.UDPProtocolNumber, fromStack(id.RemoteAddress), fromStack(id.LocalAddress))
	header.UDP(datagram[header.IPv4MinimumSize:]).Encode(&header.UDPFields{
		SrcPort: id.RemotePort, DstPort: id.LocalPort, Length: header.UDPMinimumSize,
	})
	message.SetChecksum(header.ICMPv4Checksum(message, 0))
	g.lan.Deliver(packet)
}

func encodeIPv4(packet []byte, protocol tcpip.TransportProtocolNumber, source, destination netip.Addr) {
	h := header.IPv4(packet)
	h.Encode(&header.IPv4Fields{
		TotalLength: uint16(len(packet)), TTL: 64, Protocol: uint8(protocol),
		SrcAddr: toStack(source), DstAddr: toStack(destination),
	})
	h.SetChecksum(^h.CalculateChecksum())
}
