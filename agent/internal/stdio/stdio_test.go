package stdio

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

func TestPumpGivesAllUntilEndOfFile(t *testing.T) {
	s, err := NewPipes(false)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	want := strings.Repeat("0123456789abcdef", 1<<16)
	go func() {
		_, _ = io.WriteString(s.child[1], want)
		_ = s.child[1].Close()
	}()
	var got bytes.Buffer
	if err := Pump(s.Stdout, make(chan struct{}), func(b []byte) error { got.Write(b); return nil }); err != nil {
		t.Fatal(err)
	}
	if got.String() != want {
		t.Errorf("%d bytes of %d", got.Len(), len(want))
	}
}

func TestPumpIsBoundedAfterTheEnd(t *testing.T) {
	s, err := NewPipes(false)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.child[1].WriteString("before"); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	close(ended)
	start := time.Now()
	var got bytes.Buffer
	if err := Pump(s.Stdout, ended, func(b []byte) error { got.Write(b); return nil }); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(start); d < drainBound || d > drainBound+5*time.Second {
		t.Errorf("ended after %s", d)
	}
	if got.String() != "before" {
		t.Errorf("%q", got.String())
	}
}

func TestPumpStopsWhenTheClientDoes(t *testing.T) {
	s, err := NewPipes(false)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_, _ = s.child[1].WriteString("x")
	gone := errors.New("gone")
	if err := Pump(s.Stdout, make(chan struct{}), func([]byte) error { return gone }); !errors.Is(err, gone) {
		t.Error(err)
	}
}

func TestCloseInputGivesEndOfFile(t *testing.T) {
	s, err := NewPipes(true)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_, _ = s.Stdin.WriteString("abc")
	if err := s.CloseInput(); err != nil {
		t.Fatal(err)
	}
	if err := s.CloseInput(); err != nil {
		t.Fatalf("twice: %v", err)
	}
	if b, err := io.ReadAll(s.child[0]); string(b) != "abc" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
}
