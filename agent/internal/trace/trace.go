// Package trace keeps when the last operations of this guest began and ended.
package trace

import (
	"sync"

	"golang.org/x/sys/unix"
)

// Kept is how many operations are.
const Kept = 256

// Span is one operation, by the guest's monotonic clock in nanoseconds.
type Span struct {
	Name       string
	Start, End int64
}

var (
	mu    sync.Mutex
	spans [Kept]Span
	count int
)

// Begin notes the start of an operation, and the function it gives the end.
func Begin(name string) (end func()) {
	start := Now()
	return func() {
		s := Span{Name: name, Start: start, End: Now()}
		mu.Lock()
		defer mu.Unlock()
		spans[count%Kept] = s
		count++
	}
}

// Now is the time of the clock.
func Now() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		return 0
	}
	return t.Nano()
}

// Last gives what is kept, in the order of the ends.
func Last() []Span {
	mu.Lock()
	defer mu.Unlock()
	if count <= Kept {
		return append([]Span(nil), spans[:count]...)
	}
	at := count % Kept
	return append(append([]Span(nil), spans[at:]...), spans[:at]...)
}
