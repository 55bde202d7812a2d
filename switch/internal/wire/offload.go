package wire

import "encoding/binary"

// Offload is what the kernel has yet to do for a frame of TCP that is written to a tap; the zero value is nothing.
type Offload struct {
	// Headers is how long they are, from the Ethernet header to the end of TCP's.
	Headers uint16
	// Checksum is where the checksum begins that is to be completed, and ChecksumAt where it goes, counted from there.
	Checksum, ChecksumAt uint16
	// Segment is the length that its data is to be cut into; 0 if it is short enough.
	Segment uint16
}

// OffloadLen is the length of what leads a frame on a tap (struct virtio_net_hdr, linux/virtio_net.h).
const OffloadLen = 10

const (
	needsChecksum = 1
	segmentTCP4   = 1
	segmentTCP6   = 4
	typeIPv6      = 0x86dd
)

// Header gives what leads the frame on a tap.
func (o Offload) Header(frame []byte) [OffloadLen]byte {
	var header [OffloadLen]byte
	if o.Checksum == 0 {
		return header
	}
	header[0] = needsChecksum
	if o.Segment != 0 {
		header[1] = segmentTCP4
		if binary.BigEndian.Uint16(frame[12:14]) == typeIPv6 {
			header[1] = segmentTCP6
		}
	}
	for i, field := range []uint16{o.Headers, o.Segment, o.Checksum, o.ChecksumAt} {
		binary.NativeEndian.PutUint16(header[2+2*i:], field)
	}
	return header
}
