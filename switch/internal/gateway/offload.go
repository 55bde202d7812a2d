package gateway

import (
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"woodlot.dev/switch/internal/wire"
)

// offload is what the stack has left for the kernel to do.
func offload(pkt *stack.PacketBuffer) wire.Offload {
	gso := pkt.GSOOptions
	if gso.Type == stack.GSONone || !gso.NeedsCsum {
		return wire.Offload{}
	}
	rest := wire.Offload{
		Headers:    wire.EthernetLen + uint16(pkt.HeaderSize()),
		Checksum:   wire.EthernetLen + gso.L3HdrLen,
		ChecksumAt: gso.CsumOffset,
	}
	if pkt.Data().Size() > int(gso.MSS) {
		rest.Segment = gso.MSS
	}
	return rest
}
