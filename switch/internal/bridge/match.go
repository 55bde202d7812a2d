package bridge

import (
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The parts of rules. Each matches, or puts a part of a key into registers of four bytes that follow each other.

const (
	firstRegister = unix.NFT_REG32_00
	macRegister   = firstRegister + unix.IFNAMSIZ/4
	ipRegister    = macRegister + 2
)

// Numbers of Ethernet, IP and neighbour discovery (RFC 4861), and where they stand.
const (
	typeIPv4       = 0x0800
	typeARP        = 0x0806
	typeIPv6       = 0x86dd
	discoveryFirst = 133
	discoveryLast  = 137
	ipv6Len        = 40
)

var (
	accept   = []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}
	drop     = []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}
	toRefuse = to("refuse")
)

func to(chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: chain}}
}

func in(set *nftables.Set) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: firstRegister, SetName: set.Name, SetID: set.ID}}
}

func notIn(set *nftables.Set) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: firstRegister, SetName: set.Name, SetID: set.ID, Invert: true}}
}

// The parts of keys: the port, then the MAC, then the address.

func port() []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: firstRegister}}
}

func sourceMAC() []expr.Any {
	return []expr.Any{field(macRegister, expr.PayloadBaseLLHeader, 6, 6)}
}

func sourceIPv4() []expr.Any {
	return []expr.Any{field(ipRegister, expr.PayloadBaseNetworkHeader, 12, 4)}
}

func sourceIPv6() []expr.Any {
	return []expr.Any{field(ipRegister, expr.PayloadBaseNetworkHeader, 8, 16)}
}

func portIs(key expr.MetaKey, operator expr.CmpOp, name string) []expr.Any {
	return []expr.Any{&expr.Meta{Key: key, Register: firstRegister}, compare(operator, interfaceName(name))}
}

func isType(number uint16) []expr.Any {
	return []expr.Any{
		field(firstRegister, expr.PayloadBaseLLHeader, 12, 2), compare(expr.CmpOpEq, binaryutil.BigEndian.PutUint16(number)),
	}
}

// isGroup compares the bit of the destination that says "many" with zero.
func isGroup(operator expr.CmpOp) []expr.Any {
	return []expr.Any{
		field(firstRegister, expr.PayloadBaseLLHeader, 0, 1), mask([]byte{1}), compare(operator, []byte{0}),
	}
}

// isTo matches packets of the prefix's family that go to it.
func isTo(prefix netip.Prefix) []expr.Any {
	network := prefix.Addr().AsSlice()
	offset, ones := uint32(16), make([]byte, len(network))
	if prefix.Addr().Is6() {
		offset = 24
	}
	for bit := range prefix.Bits() {
		ones[bit/8] |= 0x80 >> (bit % 8)
	}
	return []expr.Any{
		field(firstRegister, expr.PayloadBaseNetworkHeader, offset, uint32(len(network))), mask(ones), compare(expr.CmpOpEq, network),
	}
}

func nextHeaderIs(number byte) []expr.Any {
	return []expr.Any{field(firstRegister, expr.PayloadBaseNetworkHeader, 6, 1), compare(expr.CmpOpEq, []byte{number})}
}

// isDiscovery matches IPv6 packets of neighbour discovery.
func isDiscovery() []expr.Any {
	return append(
		nextHeaderIs(unix.IPPROTO_ICMPV6),
		field(firstRegister, expr.PayloadBaseNetworkHeader, ipv6Len, 1),
		&expr.Range{Op: expr.CmpOpEq, Register: firstRegister, FromData: []byte{discoveryFirst}, ToData: []byte{discoveryLast}},
	)
}

func field(register uint32, base expr.PayloadBase, offset, length uint32) expr.Any {
	return &expr.Payload{DestRegister: register, Base: base, Offset: offset, Len: length}
}

func mask(ones []byte) expr.Any {
	return &expr.Bitwise{
		SourceRegister: firstRegister, DestRegister: firstRegister, Len: uint32(len(ones)), Mask: ones, Xor: make([]byte, len(ones)),
	}
}

func compare(operator expr.CmpOp, data []byte) expr.Any {
	return &expr.Cmp{Op: operator, Register: firstRegister, Data: data}
}

func interfaceName(name string) []byte {
	padded := make([]byte, unix.IFNAMSIZ)
	copy(padded, name)
	return padded
}
