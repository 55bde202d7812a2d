package watchfs

import (
	"maps"
	"sync"
	"time"
)

// event is what can happen to a name, as inotify has it.
type event uint8

const (
	createEvent event = iota
	deleteEvent
	moveEvent // of the name it had
	attribEvent
	modifyEvent
	closeEvent // of a file that was open to be written
	noEvent
)

const (
	// echoBound is how long the host may take to tell of what the guest did.
	echoBound = 10 * time.Second
	// writeBound is that for writes, of which the host tells once for several: until then others' are taken for ours.
	writeBound = 2 * time.Second
	maxEchoes  = 16384
)

type echoKey struct {
	place
	event event
}

type echo struct {
	count int
	until time.Time
}

// echoes are the events that the host will see because the guest did something: they have been raised here already.
type echoes struct {
	mu       sync.Mutex
	expected map[echoKey]echo
}

// expect counts one event more.
func (e *echoes) expect(p place, what event) { e.add(p, what, echoBound) }

func (e *echoes) add(p place, what event, bound time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now()
	if e.expected == nil || len(e.expected) >= maxEchoes {
		e.sweep(now)
	}
	key := echoKey{p, what}
	e.expected[key] = echo{count: e.expected[key].count + 1, until: now.Add(bound)}
}

// sweep makes room: for what never came first, for everything if need be; then some events are raised twice.
func (e *echoes) sweep(now time.Time) {
	maps.DeleteFunc(e.expected, func(_ echoKey, x echo) bool { return now.After(x.until) })
	if e.expected == nil || len(e.expected) >= maxEchoes {
		e.expected = make(map[echoKey]echo)
	}
}

// retract takes an expectation back: what was to cause the event failed.
func (e *echoes) retract(p place, what event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.take(echoKey{p, what})
}

// take counts one event less, and tells whether it was expected; the lock is held.
func (e *echoes) take(key echoKey) bool {
	x, ok := e.expected[key]
	if !ok {
		return false
	}
	if x.count--; x.count <= 0 || !time.Now().Before(x.until) {
		delete(e.expected, key)
	} else {
		e.expected[key] = x
	}
	return time.Now().Before(x.until)
}

// heard tells whether an event is an echo. Writes are not counted: they end with the file's being closed.
func (e *echoes) heard(p place, what event) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch what {
	case modifyEvent:
		x, ok := e.expected[echoKey{p, modifyEvent}]
		return ok && time.Now().Before(x.until)
	case closeEvent:
		key := echoKey{p, closeEvent}
		ours := e.take(key)
		if _, more := e.expected[key]; ours && !more {
			delete(e.expected, echoKey{p, modifyEvent})
		}
		return ours
	}
	return e.take(echoKey{p, what})
}

// expect is echoes.expect for all names of a node.
func (t *tree) expect(n *node, what event) {
	for _, p := range t.placesOf(n) {
		t.echoes.expect(p, what)
	}
}

// expectWrite is expect for a change of the content.
func (t *tree) expectWrite(n *node) {
	for _, p := range t.placesOf(n) {
		t.echoes.add(p, modifyEvent, writeBound)
	}
}
