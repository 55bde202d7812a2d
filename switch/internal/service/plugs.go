package service

import (
	"context"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"woodlot.dev/switch/internal/lan"
)

// Plugs are taps for members' VMMs, on a wire that the kernel makes.
type Plugs interface {
	// Plug makes a member's tap; the caller closes it.
	Plug(m *lan.Member) (*os.File, error)
	// Unplug takes it away, also from a VMM that has it open.
	Unplug(m *lan.Member) error
	// Count brings the member's counters up to date.
	Count(m *lan.Member)
}

// handOver gives the tap to the one who connects, and then waits for the member's end: a kernel's wire has no end of its own.
func handOver(member *lan.Member, listener *net.UnixListener, tap *os.File) string {
	stop := context.AfterFunc(member.Context(), func() { _ = listener.Close() })
	defer stop()
	conn, err := listener.AcceptUnix()
	_ = listener.Close()
	if err != nil {
		return "nobody took its tap"
	}
	defer func() { _ = conn.Close() }()
	_, _, err = conn.WriteMsgUnix([]byte{0}, unix.UnixRights(int(tap.Fd())), nil)
	// From here on it is the VMM's: when that ends, the tap is gone.
	_ = tap.Close()
	if err != nil {
		return fmt.Sprintf("its tap could not be handed over: %v", err)
	}
	<-member.Context().Done()
	return "it was detached"
}
