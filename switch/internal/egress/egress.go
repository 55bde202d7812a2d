// Package egress decides what a container may reach beyond its network.
//
// A rule allows addresses, or a name. A name allows exactly the addresses that the switch's own resolution of it returned,
// for as long as they hold, and never one of the host: whoever answers for a name must not be able to open the host.
package egress

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// Limits of one policy.
const (
	// MaxRules bounds what a decision costs.
	MaxRules = 256
	// maxNamed bounds the addresses that names stand for.
	maxNamed = 1024
	// A program may use an address for longer than it is told to, as servers do that look a name up when they start.
	minHold = 10 * time.Minute
	// MaxTTL bounds what a resolver says.
	MaxTTL = 24 * time.Hour
)

// ErrInvalid is what New refuses.
var ErrInvalid = errors.New("invalid")

// Rule allows one thing.
type Rule struct {
	// Prefix or Name is set. A name is in lower case; "*.example.org" is all below example.org, and not itself.
	Prefix netip.Prefix
	Name   string
	// Port is 0 for every port.
	Port uint16
}

func (r Rule) matches(name string) bool {
	if suffix, below := strings.CutPrefix(r.Name, "*"); below {
		return len(name) > len(suffix) && strings.HasSuffix(name, suffix)
	}
	return r.Name != "" && r.Name == name
}

// Policy is what one container may reach; nil is everything. It is safe for concurrent use.
type Policy struct {
	rules []Rule
	host  func() []netip.Addr
	now   func() time.Time

	mu sync.Mutex
	// named holds until when an address that a name stands for is allowed; with port 0 at every port.
	named map[netip.AddrPort]time.Time
}

// New makes a policy that allows what the rules say and nothing else; host gives the addresses of the host.
func New(rules []Rule, host func() []netip.Addr) (*Policy, error) {
	if len(rules) > MaxRules {
		return nil, fmt.Errorf("%w: %d egress rules are more than %d", ErrInvalid, len(rules), MaxRules)
	}
	for _, r := range rules {
		if r.Prefix.IsValid() == (r.Name != "") || strings.Contains(strings.TrimPrefix(r.Name, "*."), "*") {
			return nil, fmt.Errorf("%w: an egress rule for %q and %s", ErrInvalid, r.Name, r.Prefix)
		}
	}
	return &Policy{rules: rules, host: host, now: time.Now, named: map[netip.AddrPort]time.Time{}}, nil
}

// AllowsName tells whether a name in lower case may be asked for.
func (p *Policy) AllowsName(name string) bool {
	return p == nil || len(p.ports(name)) > 0
}

// AllowsNameAt tells whether what a name stands for may be reached at a port.
func (p *Policy) AllowsNameAt(name string, port uint16) bool {
	if p == nil {
		return true
	}
	for _, allowed := range p.ports(name) {
		if allowed == 0 || allowed == port {
			return true
		}
	}
	return false
}

func (p *Policy) ports(name string) []uint16 {
	var ports []uint16
	for _, r := range p.rules {
		if r.matches(name) {
			ports = append(ports, r.Port)
		}
	}
	return ports
}

// Permit allows the addresses that the switch's own resolution of an allowed name returned.
func (p *Policy) Permit(name string, addresses []netip.Addr, ttl time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	until := p.now().Add(min(max(ttl, minHold), MaxTTL))
	for _, ip := range addresses {
		for _, port := range p.ports(name) {
			key := netip.AddrPortFrom(ip, port)
			if _, known := p.named[key]; !known && len(p.named) >= maxNamed {
				p.forget()
			}
			if until.After(p.named[key]) {
				p.named[key] = until
			}
		}
	}
}

// forget makes room: what has ended goes, or else what ends first. The lock is held.
func (p *Policy) forget() {
	var first netip.AddrPort
	for key, until := range p.named {
		if !until.After(p.now()) {
			delete(p.named, key)
		} else if !first.IsValid() || until.Before(p.named[first]) {
			first = key
		}
	}
	if len(p.named) >= maxNamed {
		delete(p.named, first)
	}
}

// Allows tells whether an address beyond the network may be reached.
func (p *Policy) Allows(to netip.AddrPort) bool {
	if p == nil {
		return true
	}
	for _, r := range p.rules {
		if r.Prefix.IsValid() && r.Prefix.Contains(to.Addr()) && (r.Port == 0 || r.Port == to.Port()) {
			return true
		}
	}
	return p.isNamed(to) && !isMetadata(to.Addr()) && !p.isHost(to.Addr())
}

func (p *Policy) isNamed(to netip.AddrPort) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	return p.named[to].After(now) || p.named[netip.AddrPortFrom(to.Addr(), 0)].After(now)
}

func (p *Policy) isHost(ip netip.Addr) bool {
	for _, own := range p.host() {
		if own == ip {
			return true
		}
	}
	return false
}

// Metadata services of clouds at addresses that are not link-local: Alibaba, Oracle, Azure, Amazon.
var metadata = []netip.Addr{
	netip.MustParseAddr("100.100.100.200"),
	netip.MustParseAddr("192.0.0.192"),
	netip.MustParseAddr("168.63.129.16"),
	netip.MustParseAddr("fd00:ec2::254"),
}

func isMetadata(ip netip.Addr) bool {
	for _, one := range metadata {
		if one == ip {
			return true
		}
	}
	return false
}
