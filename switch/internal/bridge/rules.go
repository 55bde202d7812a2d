package bridge

import (
	"bytes"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"woodlot.dev/switch/internal/lan"
)

// The rules, as nft(8) writes them; the sets have an element for each member:
//
//	table bridge woodlot {
//		set ports      { type ifname . ether_addr; }
//		set addresses  { type ifname . ether_addr . ipv4_addr; }
//		set addresses6 { type ifname . ether_addr . ipv6_addr; }
//		set refusals   { type ifname; counter; }
//		set many       { type ifname; flags dynamic,timeout; }
//		chain ingress {
//			type filter hook prerouting priority dstnat; policy drop;
//			iifname "gateway" accept
//			ether daddr & 01:00:00:00:00:00 != 0 update @many { iifname limit rate over 500/second burst 200 packets } goto refuse
//			ether type arp iifname . ether saddr @ports accept
//			ether type ip iifname . ether saddr . ip saddr @addresses goto ip
//			ether type ip6 iifname . ether saddr @ports goto ip6
//			goto refuse
//		}
//		chain ip {
//			ether daddr & 01:00:00:00:00:00 == 0 accept
//			ip daddr & 240.0.0.0 == 224.0.0.0 accept
//			ip daddr 255.255.255.255 accept
//			ip daddr SUBNET'S-BROADCAST accept
//			goto refuse
//		}
//		chain ip6 {
//			ip6 nexthdr icmpv6 icmpv6 type 133-137 accept
//			ip6 nexthdr { tcp, udp, icmpv6, ipv6-frag } goto own6
//			goto refuse
//		}
//		chain own6 {
//			iifname . ether saddr . ip6 saddr != @addresses6 goto refuse
//			ether daddr & 01:00:00:00:00:00 == 0 accept
//			ip6 daddr ff00::/8 accept
//			goto refuse
//		}
//		chain refuse  { iifname @refusals drop; drop; }
//		chain forward {
//			type filter hook forward priority filter; policy accept;
//			ether type arp iifname != "gateway" oifname != "gateway" drop
//			ether type ip6 ip6 nexthdr icmpv6 icmpv6 type 133-137 iifname != "gateway" oifname != "gateway" drop
//		}
//		chain input  { type filter hook input priority filter; policy drop; }
//		chain output { type filter hook output priority filter; policy drop; }
//	}
//
// ARP and IPv6's neighbour discovery are the gateway's to answer, from the leases: no member sees another's. In fragments, or
// behind other headers, which go nowhere, Linux takes no discovery either (RFC 6980). The namespace itself neither hears nor
// speaks.
type guard struct {
	conn  *nftables.Conn
	table *nftables.Table

	ports, addresses, addresses6, refusals, many *nftables.Set
}

const (
	tableName  = "woodlot"
	manyMemory = time.Minute
)

// newGuard makes the table; its connection stays in the namespace of the calling thread.
func newGuard(broadcast netip.Addr) (*guard, error) {
	conn, err := nftables.New(nftables.AsLasting())
	if err != nil {
		return nil, err
	}
	g := &guard{conn: conn}
	g.table = conn.AddTable(&nftables.Table{Family: nftables.TableFamilyBridge, Name: tableName})
	if err := g.addSets(); err != nil {
		return nil, err
	}
	ingress := g.hook("ingress", nftables.ChainHookPrerouting, nftables.ChainPriorityRaw, nftables.ChainPolicyDrop)
	forward := g.hook("forward", nftables.ChainHookForward, nftables.ChainPriorityFilter, nftables.ChainPolicyAccept)
	g.hook("input", nftables.ChainHookInput, nftables.ChainPriorityFilter, nftables.ChainPolicyDrop)
	g.hook("output", nftables.ChainHookOutput, nftables.ChainPriorityFilter, nftables.ChainPolicyDrop)
	ip, ip6, own6, refuse := g.chain("ip"), g.chain("ip6"), g.chain("own6"), g.chain("refuse")

	g.addIngress(ingress)
	g.addIPv4(ip, broadcast)
	g.addIPv6(ip6, own6)
	g.rule(refuse, port(), in(g.refusals), drop)
	g.rule(refuse, drop)
	between := slices.Concat(
		portIs(expr.MetaKeyIIFNAME, expr.CmpOpNeq, gatewayName), portIs(expr.MetaKeyOIFNAME, expr.CmpOpNeq, gatewayName),
	)
	g.rule(forward, isType(typeARP), between, drop)
	g.rule(forward, isType(typeIPv6), isDiscovery(), between, drop)
	return g, conn.Flush()
}

func (g *guard) addSets() error {
	key := nftables.MustConcatSetType
	name, mac := nftables.TypeIFName, nftables.TypeEtherAddr
	g.ports = &nftables.Set{Name: "ports", KeyType: key(name, mac), Concatenation: true}
	g.addresses = &nftables.Set{Name: "addresses", KeyType: key(name, mac, nftables.TypeIPAddr), Concatenation: true}
	g.addresses6 = &nftables.Set{Name: "addresses6", KeyType: key(name, mac, nftables.TypeIP6Addr), Concatenation: true}
	g.refusals = &nftables.Set{Name: "refusals", KeyType: name, KeyByteOrder: binaryutil.NativeEndian, Counter: true}
	g.many = &nftables.Set{
		Name: "many", KeyType: name, KeyByteOrder: binaryutil.NativeEndian, Size: 2 * lan.MaxMembers,
		Dynamic: true, HasTimeout: true, Timeout: manyMemory,
	}
	for _, set := range []*nftables.Set{g.ports, g.addresses, g.addresses6, g.refusals, g.many} {
		set.Table = g.table
		if err := g.conn.AddSet(set, nil); err != nil {
			return err
		}
	}
	return nil
}

func (g *guard) addIngress(ingress *nftables.Chain) {
	tooMany := []expr.Any{&expr.Dynset{
		SrcRegKey: firstRegister, SetName: g.many.Name, SetID: g.many.ID, Operation: unix.NFT_DYNSET_OP_UPDATE,
		Exprs: []expr.Any{&expr.Limit{
			Type: expr.LimitTypePkts, Rate: lan.ManyPerSecond, Unit: expr.LimitTimeSecond, Burst: lan.ManyBurst, Over: true,
		}},
	}}
	g.rule(ingress, portIs(expr.MetaKeyIIFNAME, expr.CmpOpEq, gatewayName), accept)
	g.rule(ingress, isGroup(expr.CmpOpNeq), port(), tooMany, toRefuse)
	g.rule(ingress, isType(typeARP), port(), sourceMAC(), in(g.ports), accept)
	g.rule(ingress, isType(typeIPv4), port(), sourceMAC(), sourceIPv4(), in(g.addresses), to("ip"))
	g.rule(ingress, isType(typeIPv6), port(), sourceMAC(), in(g.ports), to("ip6"))
	g.rule(ingress, toRefuse)
}

func (g *guard) addIPv4(ip *nftables.Chain, broadcast netip.Addr) {
	g.rule(ip, isGroup(expr.CmpOpEq), accept)
	for _, many := range []netip.Prefix{
		netip.MustParsePrefix("224.0.0.0/4"), netip.MustParsePrefix("255.255.255.255/32"), netip.PrefixFrom(broadcast, 32),
	} {
		g.rule(ip, isTo(many), accept)
	}
	g.rule(ip, toRefuse)
}

func (g *guard) addIPv6(ip6, own6 *nftables.Chain) {
	g.rule(ip6, isDiscovery(), accept)
	for _, header := range []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_ICMPV6, unix.IPPROTO_FRAGMENT} {
		g.rule(ip6, nextHeaderIs(header), to("own6"))
	}
	g.rule(ip6, toRefuse)

	g.rule(own6, port(), sourceMAC(), sourceIPv6(), notIn(g.addresses6), toRefuse)
	g.rule(own6, isGroup(expr.CmpOpEq), accept)
	g.rule(own6, isTo(netip.MustParsePrefix("ff00::/8")), accept)
	g.rule(own6, toRefuse)
}

func (g *guard) hook(name string, hook *nftables.ChainHook, priority *nftables.ChainPriority, policy nftables.ChainPolicy) *nftables.Chain {
	return g.conn.AddChain(&nftables.Chain{
		Table: g.table, Name: name, Type: nftables.ChainTypeFilter, Hooknum: hook, Priority: priority, Policy: &policy,
	})
}

func (g *guard) chain(name string) *nftables.Chain {
	return g.conn.AddChain(&nftables.Chain{Table: g.table, Name: name})
}

func (g *guard) rule(chain *nftables.Chain, parts ...[]expr.Any) {
	g.conn.AddRule(&nftables.Rule{Table: g.table, Chain: chain, Exprs: slices.Concat(parts...)})
}

// allow lets a port send from a MAC, and from these addresses.
func (g *guard) allow(name string, mac lan.MAC, addresses []netip.Addr) error {
	for set, elements := range g.elements(name, mac, addresses) {
		if err := g.conn.SetAddElements(set, elements); err != nil {
			return err
		}
	}
	return g.conn.Flush()
}

// forbid takes that back.
func (g *guard) forbid(name string, mac lan.MAC, addresses []netip.Addr) error {
	for set, elements := range g.elements(name, mac, addresses) {
		if err := g.conn.SetDeleteElements(set, elements); err != nil {
			return err
		}
	}
	return g.conn.Flush()
}

func (g *guard) elements(name string, mac lan.MAC, addresses []netip.Addr) map[*nftables.Set][]nftables.SetElement {
	// Each part of a key fills whole words of four bytes.
	port := slices.Concat(interfaceName(name), mac[:], []byte{0, 0})
	elements := map[*nftables.Set][]nftables.SetElement{
		g.ports:    {{Key: port}},
		g.refusals: {{Key: interfaceName(name)}},
	}
	for _, ip := range addresses {
		set := g.addresses
		if ip.Is6() {
			set = g.addresses6
		}
		elements[set] = append(elements[set], nftables.SetElement{Key: slices.Concat(port, ip.AsSlice())})
	}
	return elements
}

// refused counts what a port has sent and may not.
func (g *guard) refused(name string) (uint64, error) {
	elements, err := g.conn.GetSetElements(g.refusals)
	if err != nil {
		return 0, err
	}
	for _, element := range elements {
		if bytes.Equal(element.Key, interfaceName(name)) && element.Counter != nil {
			return element.Counter.Packets, nil
		}
	}
	return 0, nil
}
