package bridge

import (
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"woodlot.dev/switch/internal/lan"
)

// The rules, as nft(8) writes them; the sets have an element for each member:
//
//	table bridge woodlot {
//		set ports     { type ifname . ether_addr; }
//		set addresses { type ifname . ether_addr . ipv4_addr; }
//		set refusals  { type ifname; counter; }
//		set many      { type ifname; flags dynamic,timeout; }
//		chain ingress {
//			type filter hook prerouting priority dstnat; policy drop;
//			iifname "gateway" accept
//			ether daddr & 01:00:00:00:00:00 != 0 update @many { iifname limit rate over 500/second burst 200 packets } goto refuse
//			ether type arp iifname . ether saddr @ports accept
//			ether type ip iifname . ether saddr . ip saddr @addresses goto ip
//			goto refuse
//		}
//		chain ip {
//			ether daddr & 01:00:00:00:00:00 == 0 accept
//			ip daddr & 240.0.0.0 == 224.0.0.0 accept
//			ip daddr 255.255.255.255 accept
//			ip daddr SUBNET'S-BROADCAST accept
//			goto refuse
//		}
//		chain refuse  { iifname @refusals drop; drop; }
//		chain forward { type filter hook forward priority filter; policy accept; ether type arp iifname != "gateway" oifname != "gateway" drop; }
//		chain input   { type filter hook input priority filter; policy drop; }
//		chain output  { type filter hook output priority filter; policy drop; }
//	}
//
// ARP is the gateway's to answer, from the leases: no member sees another's. The namespace itself neither hears nor speaks.
type guard struct {
	conn                             *nftables.Conn
	ports, addresses, refusals, many *nftables.Set
	ingress, ip, refuse, forward     *nftables.Chain
	table                            *nftables.Table
}

const (
	tableName  = "woodlot"
	typeIPv4   = 0x0800
	typeARP    = 0x0806
	manyMemory = 60_000_000_000 // nanoseconds that a port's rate is remembered for
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
	g.ingress = g.hook("ingress", nftables.ChainHookPrerouting, nftables.ChainPriorityRaw, nftables.ChainPolicyDrop)
	g.forward = g.hook("forward", nftables.ChainHookForward, nftables.ChainPriorityFilter, nftables.ChainPolicyAccept)
	g.hook("input", nftables.ChainHookInput, nftables.ChainPriorityFilter, nftables.ChainPolicyDrop)
	g.hook("output", nftables.ChainHookOutput, nftables.ChainPriorityFilter, nftables.ChainPolicyDrop)
	g.ip = conn.AddChain(&nftables.Chain{Table: g.table, Name: "ip"})
	g.refuse = conn.AddChain(&nftables.Chain{Table: g.table, Name: "refuse"})
	g.addRules(broadcast)
	return g, conn.Flush()
}

func (g *guard) hook(name string, hook *nftables.ChainHook, priority *nftables.ChainPriority, policy nftables.ChainPolicy) *nftables.Chain {
	return g.conn.AddChain(&nftables.Chain{
		Table: g.table, Name: name, Type: nftables.ChainTypeFilter, Hooknum: hook, Priority: priority, Policy: &policy,
	})
}

func (g *guard) addSets() error {
	port := nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeEtherAddr)
	address := nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeEtherAddr, nftables.TypeIPAddr)
	g.ports = &nftables.Set{Table: g.table, Name: "ports", KeyType: port, Concatenation: true}
	g.addresses = &nftables.Set{Table: g.table, Name: "addresses", KeyType: address, Concatenation: true}
	g.refusals = &nftables.Set{Table: g.table, Name: "refusals", KeyType: nftables.TypeIFName, KeyByteOrder: binaryutil.NativeEndian, Counter: true}
	g.many = &nftables.Set{
		Table: g.table, Name: "many", KeyType: nftables.TypeIFName, KeyByteOrder: binaryutil.NativeEndian, Dynamic: true, HasTimeout: true, Timeout: manyMemory,
		Size: 2 * lan.MaxMembers,
	}
	for _, set := range []*nftables.Set{g.ports, g.addresses, g.refusals, g.many} {
		if err := g.conn.AddSet(set, nil); err != nil {
			return err
		}
	}
	return nil
}

func (g *guard) addRules(broadcast netip.Addr) {
	toRefuse := verdict(expr.VerdictGoto, "refuse")
	g.rule(g.ingress, portIs(expr.MetaKeyIIFNAME, expr.CmpOpEq, gatewayName), verdict(expr.VerdictAccept, ""))
	tooMany := &expr.Dynset{
		SrcRegKey: firstRegister, SetName: g.many.Name, SetID: g.many.ID, Operation: unix.NFT_DYNSET_OP_UPDATE,
		Exprs: []expr.Any{&expr.Limit{
			Type: expr.LimitTypePkts, Rate: lan.ManyPerSecond, Unit: expr.LimitTimeSecond, Burst: lan.ManyBurst, Over: true,
		}},
	}
	g.rule(g.ingress, isGroup(expr.CmpOpNeq), []expr.Any{port(firstRegister), tooMany}, toRefuse)
	g.rule(g.ingress, isType(typeARP), []expr.Any{port(firstRegister), source(macRegister)}, in(g.ports), verdict(expr.VerdictAccept, ""))
	g.rule(g.ingress, isType(typeIPv4), []expr.Any{port(firstRegister), source(macRegister), sourceIP(ipRegister)},
		in(g.addresses), verdict(expr.VerdictGoto, "ip"))
	g.rule(g.ingress, toRefuse)

	g.rule(g.ip, isGroup(expr.CmpOpEq), verdict(expr.VerdictAccept, ""))
	for _, many := range []netip.Prefix{
		netip.MustParsePrefix("224.0.0.0/4"), netip.MustParsePrefix("255.255.255.255/32"), netip.PrefixFrom(broadcast, 32),
	} {
		g.rule(g.ip, isTo(many), verdict(expr.VerdictAccept, ""))
	}
	g.rule(g.ip, toRefuse)

	g.rule(g.refuse, []expr.Any{port(firstRegister)}, in(g.refusals), verdict(expr.VerdictDrop, ""))
	g.rule(g.refuse, verdict(expr.VerdictDrop, ""))

	g.rule(g.forward, isType(typeARP), portIs(expr.MetaKeyIIFNAME, expr.CmpOpNeq, gatewayName),
		portIs(expr.MetaKeyOIFNAME, expr.CmpOpNeq, gatewayName), verdict(expr.VerdictDrop, ""))
}

func (g *guard) rule(chain *nftables.Chain, parts ...[]expr.Any) {
	rule := &nftables.Rule{Table: g.table, Chain: chain}
	for _, part := range parts {
		rule.Exprs = append(rule.Exprs, part...)
	}
	g.conn.AddRule(rule)
}

// allow lets a port send with the member's addresses.
func (g *guard) allow(name string, m *lan.Member) error {
	for set, element := range g.elements(name, m) {
		if err := g.conn.SetAddElements(set, []nftables.SetElement{element}); err != nil {
			return err
		}
	}
	return g.conn.Flush()
}

// forbid takes that back.
func (g *guard) forbid(name string, m *lan.Member) error {
	for set, element := range g.elements(name, m) {
		if err := g.conn.SetDeleteElements(set, []nftables.SetElement{element}); err != nil {
			return err
		}
	}
	return g.conn.Flush()
}

func (g *guard) elements(name string, m *lan.Member) map[*nftables.Set]nftables.SetElement {
	// Each part of a key fills whole words of four bytes.
	port := append(interfaceName(name), m.MAC[0], m.MAC[1], m.MAC[2], m.MAC[3], m.MAC[4], m.MAC[5], 0, 0)
	ip := m.IP.As4()
	return map[*nftables.Set]nftables.SetElement{
		g.ports:     {Key: port},
		g.addresses: {Key: append(append([]byte(nil), port...), ip[:]...)},
		g.refusals:  {Key: interfaceName(name)},
	}
}

// refused counts what a port has sent and may not.
func (g *guard) refused(name string) (uint64, error) {
	elements, err := g.conn.GetSetElements(g.refusals)
	if err != nil {
		return 0, err
	}
	for _, element := range elements {
		if string(element.Key) == string(interfaceName(name)) && element.Counter != nil {
			return element.Counter.Packets, nil
		}
	}
	return 0, nil
}

// The parts of rules. Keys of several parts are put together in registers of four bytes that follow each other.
const (
	firstRegister = unix.NFT_REG32_00
	macRegister   = firstRegister + unix.IFNAMSIZ/4
	ipRegister    = macRegister + 2
)

func interfaceName(name string) []byte {
	padded := make([]byte, unix.IFNAMSIZ)
	copy(padded, name)
	return padded
}

func verdict(kind expr.VerdictKind, chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: kind, Chain: chain}}
}

func in(set *nftables.Set) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: firstRegister, SetName: set.Name, SetID: set.ID}}
}

func port(register uint32) expr.Any {
	return &expr.Meta{Key: expr.MetaKeyIIFNAME, Register: register}
}

func portIs(key expr.MetaKey, operator expr.CmpOp, name string) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: key, Register: firstRegister},
		&expr.Cmp{Op: operator, Register: firstRegister, Data: interfaceName(name)},
	}
}

func source(register uint32) expr.Any {
	return &expr.Payload{DestRegister: register, Base: expr.PayloadBaseLLHeader, Offset: 6, Len: 6}
}

func sourceIP(register uint32) expr.Any {
	return &expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4}
}

func isType(number uint16) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: firstRegister, Base: expr.PayloadBaseLLHeader, Offset: 12, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: firstRegister, Data: binaryutil.BigEndian.PutUint16(number)},
	}
}

// isGroup compares the bit of the destination that says "many" with zero.
func isGroup(operator expr.CmpOp) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: firstRegister, Base: expr.PayloadBaseLLHeader, Offset: 0, Len: 1},
		&expr.Bitwise{SourceRegister: firstRegister, DestRegister: firstRegister, Len: 1, Mask: []byte{1}, Xor: []byte{0}},
		&expr.Cmp{Op: operator, Register: firstRegister, Data: []byte{0}},
	}
}

func isTo(prefix netip.Prefix) []expr.Any {
	mask, network := make([]byte, 4), prefix.Addr().As4()
	for bit := range prefix.Bits() {
		mask[bit/8] |= 0x80 >> (bit % 8)
	}
	return []expr.Any{
		&expr.Payload{DestRegister: firstRegister, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4},
		&expr.Bitwise{SourceRegister: firstRegister, DestRegister: firstRegister, Len: 4, Mask: mask, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: firstRegister, Data: network[:]},
	}
}
