package wire

import (
	"bytes"
	"encoding/binary"
	"testing"
)

func TestWhatTheKernelHasYetToDo(t *testing.T) {
	v4, v6 := make([]byte, 60), make([]byte, 60)
	binary.BigEndian.PutUint16(v4[12:], 0x0800)
	binary.BigEndian.PutUint16(v6[12:], 0x86dd)
	for _, c := range []struct {
		name        string
		rest        Offload
		frame       []byte
		flags, kind byte
		fields      [4]uint16
	}{
		{"nothing", Offload{}, v4, 0, 0, [4]uint16{}},
		{"nothing, and a frame of no length", Offload{}, nil, 0, 0, [4]uint16{}},
		{"a checksum", Offload{Headers: 54, Checksum: 34, ChecksumAt: 16}, v4, 1, 0, [4]uint16{54, 0, 34, 16}},
		{"segments", Offload{Headers: 54, Checksum: 34, ChecksumAt: 16, Segment: 1460}, v4, 1, 1, [4]uint16{54, 1460, 34, 16}},
		{"segments of IPv6", Offload{Headers: 74, Checksum: 54, ChecksumAt: 16, Segment: 1440}, v6, 1, 4, [4]uint16{74, 1440, 54, 16}},
	} {
		want := []byte{c.flags, c.kind}
		for _, field := range c.fields {
			want = binary.NativeEndian.AppendUint16(want, field)
		}
		if got := c.rest.Header(c.frame); !bytes.Equal(got[:], want) {
			t.Errorf("%s: % x, not % x", c.name, got, want)
		}
	}
}
