// Package bridge is a network's wire where the kernel carries the frames: a bridge, a tap for each member, and nftables.
//
// All of it is in a network namespace without a name. The host's interfaces, routes, firewall and sysctls are neither used
// nor changed, and the namespace goes, with everything in it, when the switch and the last VMM that holds a tap have ended,
// however they end.
//
//	VMM ── tap vm0 ──┐                                 the namespace: no address, no route, no forwarding
//	VMM ── tap vm1 ──┤ bridge, its ports guarded by nftables (rules.go)
//	                 └── tap gateway ──▶ Serve ──▶ lan: ARP, and the gateway's TCP/IP stack
//
// Frames from member to member never leave the kernel. Those to the gateway come here, up to 64 KiB at once, for both sides
// leave the cutting into segments and their checksums to the kernel.
package bridge

import (
	"fmt"
	"log"
	"net"
	"net/netip"
	"os"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"woodlot.dev/switch/internal/lan"
	"woodlot.dev/switch/internal/wire"
)

const (
	bridgeName  = "bridge"
	gatewayName = "gateway"
)

// Bridge is the wire of one network.
type Bridge struct {
	space   *namespace
	guard   *guard
	bridge  netlink.Link
	gateway int

	mu    sync.Mutex
	ports map[*lan.Member]string
	made  int
}

var _ lan.Trunk = (*Bridge)(nil)

// New makes the wire; it needs CAP_SYS_ADMIN now, and CAP_NET_ADMIN from here on.
func New(l *lan.Lan) (*Bridge, error) {
	space, err := enterNamespace()
	if err != nil {
		return nil, fmt.Errorf("make a network namespace: %w", err)
	}
	b := &Bridge{space: space, ports: map[*lan.Member]string{}}
	if err := space.do(func() error { return b.build(l.Broadcast()) }); err != nil {
		return nil, err
	}
	l.SetTrunk(b)
	log.Printf("the bridge is seen with nsenter --net=%s", space.path)
	return b, nil
}

func (b *Bridge) build(broadcast netip.Addr) error {
	quieten()
	no := false
	attributes := netlink.NewLinkAttrs()
	attributes.Name = bridgeName
	b.bridge = &netlink.Bridge{LinkAttrs: attributes, MulticastSnooping: &no}
	if err := netlink.LinkAdd(b.bridge); err != nil {
		return fmt.Errorf("make a bridge: %w", err)
	}
	var err error
	if b.guard, err = newGuard(broadcast); err != nil {
		return fmt.Errorf("make the bridge's nftables rules: %w", err)
	}
	if b.gateway, err = b.connect(gatewayName, lan.GatewayMAC); err != nil {
		return err
	}
	if err := acceptLarge(b.gateway); err != nil {
		return fmt.Errorf("set up the tap %s: %w", gatewayName, err)
	}
	if err := netlink.LinkSetUp(b.bridge); err != nil {
		return fmt.Errorf("set up the bridge: %w", err)
	}
	return nil
}

// connect makes a tap that is a port of the bridge. What is at its other end is said, not learned from its frames; what is
// for nobody goes nowhere.
func (b *Bridge) connect(name string, mac lan.MAC) (int, error) {
	tap, err := openTap(name)
	if err != nil {
		return -1, fmt.Errorf("make the tap %s: %w", name, err)
	}
	if err := b.join(name, mac); err != nil {
		_ = unix.Close(tap)
		return -1, fmt.Errorf("connect the tap %s to the bridge: %w", name, err)
	}
	return tap, nil
}

func (b *Bridge) join(name string, mac lan.MAC) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetMaster(link, b.bridge); err != nil {
		return err
	}
	if err := netlink.LinkSetLearning(link, false); err != nil {
		return err
	}
	if err := netlink.LinkSetFlood(link, false); err != nil {
		return err
	}
	end := &netlink.Neigh{
		LinkIndex: link.Attrs().Index, Family: unix.AF_BRIDGE, HardwareAddr: net.HardwareAddr(mac[:]),
		State: unix.NUD_NOARP, Flags: unix.NTF_MASTER,
	}
	if err := netlink.NeighAdd(end); err != nil {
		return err
	}
	return netlink.LinkSetUp(link)
}

// Plug makes a member's tap, for its VMM. The caller closes the file; the tap is there while anybody has it open.
func (b *Bridge) Plug(m *lan.Member) (*os.File, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	// A name is never given again: what is said of one member's port must not hold for another's.
	name := fmt.Sprintf("vm%d", b.made)
	b.made++
	tap := -1
	err := b.space.do(func() (err error) {
		if err = b.guard.allow(name, m.MAC, addresses(m)); err != nil {
			return fmt.Errorf("allow %s to use the tap %s: %w", m.IP, name, err)
		}
		if tap, err = b.connect(name, m.MAC); err != nil {
			_ = b.guard.forbid(name, m.MAC, addresses(m))
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	b.ports[m] = name
	return os.NewFile(uintptr(tap), name), nil
}

func addresses(m *lan.Member) []netip.Addr {
	if m.IP6.IsValid() {
		return []netip.Addr{m.IP, m.IP6, m.LinkLocal}
	}
	return []netip.Addr{m.IP}
}

// Unplug takes the tap away, also from a VMM that has it open.
func (b *Bridge) Unplug(m *lan.Member) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	name, there := b.ports[m]
	if !there {
		return nil
	}
	delete(b.ports, m)
	return b.space.do(func() error {
		err := b.guard.forbid(name, m.MAC, addresses(m))
		// It is gone already if the VMM is.
		if link, missing := netlink.LinkByName(name); missing == nil {
			_ = netlink.LinkDel(link)
		}
		return err
	})
}

// Count brings a member's counters up to date.
func (b *Bridge) Count(m *lan.Member) {
	b.mu.Lock()
	defer b.mu.Unlock()
	name, there := b.ports[m]
	if !there {
		return
	}
	_ = b.space.do(func() error {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		refused, err := b.guard.refused(name)
		if err != nil {
			return err
		}
		if seen := link.Attrs().Statistics; seen != nil {
			m.Received.Store(seen.RxPackets)
			m.Sent.Store(seen.TxPackets)
			m.Dropped.Store(refused + seen.TxDropped)
		}
		return nil
	})
}

// Send puts a frame of the gateway's on the wire.
func (b *Bridge) Send(frame []byte, rest wire.Offload) {
	header := rest.Header(frame)
	// What the kernel does not take is lost, as on any wire.
	_, _ = unix.Writev(b.gateway, [][]byte{header[:], frame})
}

// Serve gives what is for the gateway to receive, frame by frame, until the wire is gone.
func (b *Bridge) Serve(receive func(frame []byte)) error {
	tap := os.NewFile(uintptr(b.gateway), gatewayName)
	defer func() { _ = tap.Close() }()
	buf := make([]byte, wire.OffloadLen+wire.EthernetLen+maxPacket)
	for {
		n, err := tap.Read(buf)
		if err != nil {
			return fmt.Errorf("read from the tap %s: %w", gatewayName, err)
		}
		if n > wire.OffloadLen {
			receive(buf[wire.OffloadLen:n])
		}
	}
}
