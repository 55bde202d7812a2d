// Package wire reads and writes Ethernet frames on a stream, as QEMU's `-netdev stream` frames them: each is led by its
// length, four bytes in network order (net/stream.c).
package wire

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
)

const (
	// HeaderLen is the length of what leads a frame.
	HeaderLen = 4
	// EthernetLen is the length of an Ethernet header.
	EthernetLen = 14
)

// ReadFrame reads one frame into buf, which bounds it: a longer one is an error, after which the stream is of no use.
func ReadFrame(r io.Reader, buf []byte) ([]byte, error) {
	var header [HeaderLen]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(header[:])
	if uint64(n) > uint64(len(buf)) {
		return nil, fmt.Errorf("a frame of %d bytes, more than %d", n, len(buf))
	}
	if _, err := io.ReadFull(r, buf[:n]); err != nil {
		return nil, err
	}
	return buf[:n], nil
}

// WriteFrames writes frames, each led by its length, with as few system calls as there can be.
func WriteFrames(w io.Writer, frames [][]byte) error {
	headers := make([]byte, HeaderLen*len(frames))
	buffers := make(net.Buffers, 0, 2*len(frames))
	for i, frame := range frames {
		header := headers[HeaderLen*i : HeaderLen*(i+1)]
		binary.BigEndian.PutUint32(header, uint32(len(frame)))
		buffers = append(buffers, header, frame)
	}
	_, err := buffers.WriteTo(w)
	return err
}
