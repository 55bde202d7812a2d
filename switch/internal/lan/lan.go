// Package lan is the network's own wire: who is attached, which addresses are theirs, and where a frame goes.
//
// Every frame is a guest's word. Its source must be the MAC and an address that the guest was given; ARP and IPv6's
// neighbour discovery are never passed on but answered here, from the leases, so that no guest can take the place of
// another or of the gateway.
//
//	guest ──stream──▶ Receive ──┬─ ARP, NDP ────────▶ answered from the leases
//	                            ├─ IP to a member ──▶ that member's queue
//	                            ├─ IP to many ──────▶ every other queue, at a bounded rate
//	                            ├─ IP to gateway ───▶ Uplink
//	                            └─ anything else ───▶ dropped
package lan

import (
	"errors"
	"fmt"
	"log"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"woodlot.dev/switch/internal/egress"
)

// Limits of one network.
const (
	MTU = 1500
	// MaxMembers bounds what the leases and queues of a network can cost.
	MaxMembers = 512
	// MaxNames bounds the names of one member.
	MaxNames = 64
	maxName  = 253
	// What guests are refused is their doing, and must not fill the host's disk with lines about it.
	refusalLines = 10
	refusalEvery = time.Minute
)

// What Attach refuses.
var (
	ErrTaken   = errors.New("taken")
	ErrFull    = errors.New("full")
	ErrInvalid = errors.New("invalid")
)

// MAC is an Ethernet address.
type MAC [6]byte

func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// ParseMAC takes a unicast address.
func ParseMAC(text string) (MAC, error) {
	parsed, err := net.ParseMAC(text)
	if err != nil || len(parsed) != 6 {
		return MAC{}, fmt.Errorf("%w: %q is no Ethernet address", ErrInvalid, text)
	}
	mac := MAC(parsed)
	if mac[0]&1 != 0 || mac == (MAC{}) {
		return MAC{}, fmt.Errorf("%w: %s is no address of one device", ErrInvalid, text)
	}
	return mac, nil
}

// GatewayMAC is the gateway's address in every network: locally administered, and of no member.
var GatewayMAC = MAC{0x52, 0x55, 0x0a, 0x56, 0x00, 0x01}

// Uplink takes a packet that a member sent beyond the network or to the gateway, and what it says of where it goes and what
// it carries. The packet is valid during the call.
type Uplink func(from *Member, packet []byte, to netip.Addr, protocol byte)

// Lan is one network.
type Lan struct {
	Prefix  netip.Prefix
	Gateway netip.Addr
	// Host is the address that stands for the host.
	Host netip.Addr
	// Prefix6, Gateway6 and Host6 are the zero values in a network without IPv6.
	Prefix6         netip.Prefix
	Gateway6, Host6 netip.Addr
	// Internal networks have no way out.
	Internal bool

	broadcast netip.Addr
	uplink    Uplink
	trunk     Trunk

	mu   sync.RWMutex
	byID map[string]*Member
	// byIP knows a member by its IPv6 addresses, too.
	byIP  map[netip.Addr]*Member
	byMAC map[MAC]*Member
	next  netip.Addr

	refusals *rate.Limiter
}

// New makes a network: the first address of prefix is the gateway's, the last one stands for the host. Without a valid
// prefix6 it has no IPv6.
func New(prefix, prefix6 netip.Prefix, internal bool) (*Lan, error) {
	if !prefix.Addr().Is4() || prefix != prefix.Masked() || prefix.Bits() < 8 || prefix.Bits() > 28 {
		return nil, fmt.Errorf("%w: %s is no IPv4 subnet from /8 to /28", ErrInvalid, prefix)
	}
	if prefix6.IsValid() && (!prefix6.Addr().IsPrivate() || !prefix6.Addr().Is6() || prefix6 != prefix6.Masked() || prefix6.Bits() != 64) {
		return nil, fmt.Errorf("%w: %s is no /64 of unique local addresses", ErrInvalid, prefix6)
	}
	broadcast := last(prefix)
	l := &Lan{
		Prefix:    prefix,
		Prefix6:   prefix6,
		Gateway:   prefix.Addr().Next(),
		Host:      broadcast.Prev(),
		Internal:  internal,
		broadcast: broadcast,
		byID:      map[string]*Member{},
		byIP:      map[netip.Addr]*Member{},
		byMAC:     map[MAC]*Member{},
		refusals:  rate.NewLimiter(rate.Every(refusalEvery), refusalLines),
	}
	l.Gateway6, l.Host6 = l.counterpart(l.Gateway), l.counterpart(l.Host)
	l.next = l.Gateway.Next()
	return l, nil
}

func last(prefix netip.Prefix) netip.Addr {
	bytes := prefix.Addr().As4()
	for bit := prefix.Bits(); bit < 32; bit++ {
		bytes[bit/8] |= 0x80 >> (bit % 8)
	}
	return netip.AddrFrom4(bytes)
}

// Contains tells whether an address is of the network's subnets.
func (l *Lan) Contains(ip netip.Addr) bool { return l.Prefix.Contains(ip) || l.Prefix6.Contains(ip) }

// IsGateway tells whether an address is the gateway's.
func (l *Lan) IsGateway(ip netip.Addr) bool { return ip == l.Gateway || ip == l.Gateway6 }

// IsHost tells whether an address stands for the host.
func (l *Lan) IsHost(ip netip.Addr) bool { return ip == l.Host || ip == l.Host6 }

// SetUplink says where packets beyond the network go; before the first member attaches.
func (l *Lan) SetUplink(uplink Uplink) { l.uplink = uplink }

// Broadcast is the address of all in the network.
func (l *Lan) Broadcast() netip.Addr { return l.broadcast }

// Request is what a member asks for.
type Request struct {
	ID    string
	Names []string
	// IP is the zero Addr for the next free one.
	IP          netip.Addr
	MAC         MAC
	HostPorts   []PortRange
	Nameservers []netip.Addr
	// Siblings are the control sockets of the member's other networks.
	Siblings []string
	// Egress is what it may reach beyond the network; nil is everything.
	Egress *egress.Policy
}

// PortRange holds both ends.
type PortRange struct{ First, Last uint16 }

// Attach gives a member its lease.
func (l *Lan) Attach(r Request) (*Member, error) {
	if r.ID == "" {
		return nil, fmt.Errorf("%w: no container id", ErrInvalid)
	}
	names, err := cleanNames(r.Names)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, taken := l.byID[r.ID]; taken {
		return nil, fmt.Errorf("%w: container %s is attached already", ErrTaken, r.ID)
	}
	if _, taken := l.byMAC[r.MAC]; taken || r.MAC == GatewayMAC {
		return nil, fmt.Errorf("%w: the MAC address %s is in use", ErrTaken, r.MAC)
	}
	if len(l.byID) >= MaxMembers {
		return nil, fmt.Errorf("%w: %d containers are attached, which is all a network takes", ErrFull, MaxMembers)
	}
	ip := r.IP
	if ip.IsValid() {
		err = l.check(ip)
	} else {
		ip, err = l.pick()
	}
	if err != nil {
		return nil, err
	}
	m := newMember(r, names, ip, l.counterpart(ip), l.trunk)
	l.byID[m.ID], l.byIP[m.IP], l.byMAC[m.MAC] = m, m, m
	if m.IP6.IsValid() {
		l.byIP[m.IP6], l.byIP[m.LinkLocal] = m, m
	}
	// Neighbours may still hold the address's former owner.
	l.announce(m)
	return m, nil
}

func (l *Lan) check(ip netip.Addr) error {
	switch {
	case !l.Prefix.Contains(ip) || ip == l.Prefix.Addr() || ip == l.broadcast:
		return fmt.Errorf("%w: %s is no address of the network's subnet %s", ErrInvalid, ip, l.Prefix)
	case ip == l.Gateway || ip == l.Host:
		return fmt.Errorf("%w: %s is the network's own", ErrTaken, ip)
	case l.byIP[ip] != nil:
		return fmt.Errorf("%w: the address %s is in use by container %s", ErrTaken, ip, l.byIP[ip].ID)
	}
	return nil
}

// pick takes addresses in turn, so that a freed one is not given to somebody else at once.
func (l *Lan) pick() (netip.Addr, error) {
	for range MaxMembers + 1 {
		ip := l.next
		if l.next = ip.Next(); l.next == l.Host {
			l.next = l.Gateway.Next()
		}
		if l.byIP[ip] == nil {
			return ip, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("%w: no address of the subnet %s is free", ErrFull, l.Prefix)
}

func cleanNames(names []string) ([]string, error) {
	if len(names) > MaxNames {
		return nil, fmt.Errorf("%w: %d names are more than %d", ErrInvalid, len(names), MaxNames)
	}
	var clean []string
	for _, name := range names {
		name = strings.ToLower(strings.TrimSuffix(name, "."))
		if name == "" || len(name) > maxName || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return nil, fmt.Errorf("%w: %q is no host name", ErrInvalid, name)
		}
		if !slices.Contains(clean, name) {
			clean = append(clean, name)
		}
	}
	return clean, nil
}

// Detach takes a member's lease back and ends its connections.
func (l *Lan) Detach(m *Member) {
	l.mu.Lock()
	delete(l.byID, m.ID)
	delete(l.byIP, m.IP)
	delete(l.byIP, m.IP6)
	delete(l.byIP, m.LinkLocal)
	delete(l.byMAC, m.MAC)
	l.mu.Unlock()
	m.end()
}

// Member gives the member with an id, or nil.
func (l *Lan) Member(id string) *Member {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.byID[id]
}

// MemberAt gives the member with an address, or nil.
func (l *Lan) MemberAt(ip netip.Addr) *Member {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.byIP[ip]
}

// Members gives all, by address.
func (l *Lan) Members() []*Member {
	l.mu.RLock()
	defer l.mu.RUnlock()
	all := make([]*Member, 0, len(l.byID))
	for _, m := range l.byID {
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b *Member) int { return a.IP.Compare(b.IP) })
	return all
}

// Refused counts what a member may not have, and says so in the log, but not every time.
func (l *Lan) Refused(m *Member, what string) {
	if n := m.EgressRefused.Add(1); l.refusals.Allow() {
		log.Printf("container %.12s may not have %s; refused %d times by now", m.ID, what, n)
	}
}

// Names of the host, as Docker and others spell them.
var hostNames = []string{"host.container.internal", "host.docker.internal"}

const gatewayName = "gateway.container.internal"

// Lookup gives the addresses of a name in lower case.
func (l *Lan) Lookup(name string) []netip.Addr {
	if slices.Contains(hostNames, name) {
		return valid(l.Host, l.Host6)
	}
	if name == gatewayName {
		return valid(l.Gateway, l.Gateway6)
	}
	var found []netip.Addr
	for _, m := range l.Members() {
		if slices.Contains(m.Names, name) {
			found = append(found, valid(m.IP, m.IP6)...)
		}
	}
	return found
}

// valid gives those of the addresses that there are.
func valid(ips ...netip.Addr) []netip.Addr {
	return slices.DeleteFunc(ips, func(ip netip.Addr) bool { return !ip.IsValid() })
}

// NameOf gives the name of an address, or "".
func (l *Lan) NameOf(ip netip.Addr) string {
	switch {
	case l.IsHost(ip):
		return hostNames[0]
	case l.IsGateway(ip):
		return gatewayName
	}
	if m := l.MemberAt(ip); m != nil && len(m.Names) > 0 {
		return m.Names[0]
	}
	return ""
}
