package wire

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestFramesComeBack(t *testing.T) {
	var stream bytes.Buffer
	want := [][]byte{[]byte("one"), {}, bytes.Repeat([]byte("x"), 1514)}
	if err := WriteFrames(&stream, want); err != nil {
		t.Fatal(err)
	}
	if got := stream.Bytes()[:7]; !bytes.Equal(got, []byte("\x00\x00\x00\x03one")) {
		t.Errorf("the stream begins with %q", got)
	}
	buf := make([]byte, 1514)
	for _, frame := range want {
		got, err := ReadFrame(&stream, buf)
		if err != nil || !bytes.Equal(got, frame) {
			t.Errorf("%q, %v", got, err)
		}
	}
	if _, err := ReadFrame(&stream, buf); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
}

func TestALongFrameIsRefused(t *testing.T) {
	_, err := ReadFrame(strings.NewReader("\xff\xff\xff\xffx"), make([]byte, 64))
	if err == nil || !strings.Contains(err.Error(), "4294967295") {
		t.Errorf("%v", err)
	}
}

func TestACutFrameIsAnError(t *testing.T) {
	for _, cut := range []string{"\x00", "\x00\x00\x00\x03on"} {
		if _, err := ReadFrame(strings.NewReader(cut), make([]byte, 64)); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%q: %v", cut, err)
		}
	}
}
