package listen

const (
	// preface opens every HTTP/2 connection (RFC 9113, 3.4).
	preface        = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	frameHeaderLen = 9
)

// hunt looks for the preface in a stream that begins anywhere.
type hunt struct{ matched int }

// feed gives the index after the preface, or false if b does not complete it.
func (h *hunt) feed(b []byte) (int, bool) {
	for i, c := range b {
		switch c {
		case preface[h.matched]:
			h.matched++
		case preface[0]: // the only byte of the preface that can begin it anew
			h.matched = 1
		default:
			h.matched = 0
		}
		if h.matched == len(preface) {
			return i + 1, true
		}
	}
	return 0, false
}

// frames follows HTTP/2 frames just far enough to know where each begins, so that a preface in the place of a frame
// header is seen. (As a header it would announce a frame of 5 MB and type '*', which no peer sends.)
type frames struct {
	// skip is what is left of the current frame's payload.
	skip int
	// header holds the have bytes of a frame header seen so far.
	header [frameHeaderLen]byte
	have   int
}

// feed looks at the next bytes, all of this connection unless next: then only b[:end] are, and b[rest:] follows the
// first bytes, as many as a frame header has, of another connection's preface.
func (f *frames) feed(b []byte) (end, rest int, next bool) {
	for i := 0; i < len(b); {
		if f.skip > 0 {
			n := min(f.skip, len(b)-i)
			f.skip -= n
			i += n
			continue
		}
		begin := i
		n := copy(f.header[f.have:], b[i:])
		f.have += n
		i += n
		if f.have < frameHeaderLen {
			break
		}
		f.have = 0
		if string(f.header[:]) == preface[:frameHeaderLen] {
			return begin, i, true
		}
		f.skip = int(f.header[0])<<16 | int(f.header[1])<<8 | int(f.header[2])
	}
	return len(b), len(b), false
}
