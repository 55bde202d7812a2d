package lan

import "woodlot.dev/switch/internal/wire"

// Trunk is a wire that the kernel makes: it carries frames from member to member, and keeps forged ones out. What remains
// to be done here is what the gateway does: ARP, neighbour discovery, and packets beyond the network.
type Trunk interface {
	// Send carries a frame of the gateway to the member, or the members, that it is addressed to.
	Send(frame []byte, rest wire.Offload)
}

// SetTrunk has the kernel carry the frames; before the first member attaches.
func (l *Lan) SetTrunk(trunk Trunk) { l.trunk = trunk }

// HasTrunk tells whether the kernel carries the frames.
func (l *Lan) HasTrunk() bool { return l.trunk != nil }

// ReceiveTrunk takes a frame of the trunk, valid during the call. Those to many have reached the other members already.
func (l *Lan) ReceiveTrunk(frame []byte) {
	if len(frame) < wire.EthernetLen {
		return
	}
	l.mu.RLock()
	from := l.byMAC[MAC(frame[6:12])]
	l.mu.RUnlock()
	if from != nil && (MAC(frame[0:6]) == GatewayMAC || isARP(frame) || isNDP(frame)) {
		l.Receive(from, frame)
	}
}

// DeliverLarge brings a packet of the gateway, which may be longer than the MTU, to the member it is addressed to; the kernel
// does the rest.
func (l *Lan) DeliverLarge(packet []byte, rest wire.Offload) {
	if to, frame := l.address(packet); to != nil {
		l.trunk.Send(frame, rest)
	}
}
