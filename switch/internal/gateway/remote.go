package gateway

import "net/netip"

var (
	thisNetwork = netip.MustParsePrefix("0.0.0.0/8")
	reserved    = netip.MustParsePrefix("240.0.0.0/4")
	// Ways to write an IPv4 address in an IPv6 one: RFC 4291 (2.5.5.1), 6052, 3056.
	compatible = netip.MustParsePrefix("::/96")
	translated = netip.MustParsePrefix("64:ff9b::/96")
	sixToFour  = netip.MustParsePrefix("2002::/16")
	// Deprecated by RFC 3879.
	siteLocal = netip.MustParsePrefix("fec0::/10")
	// Amazon's, in place of a link-local address.
	metadata6 = netip.MustParseAddr("fd00:ec2::254")
)

// isRemote tells whether an address is one that may be another machine's. Loopback and 0.0.0.0 are this one's own, and
// link-local ones are where clouds tell a machine its secrets.
func isRemote(ip netip.Addr) bool {
	switch {
	case ip.Is4():
		return ip.IsGlobalUnicast() && !thisNetwork.Contains(ip) && !reserved.Contains(ip)
	case translated.Contains(ip):
		bytes := ip.As16()
		return isRemote(netip.AddrFrom4([4]byte(bytes[12:])))
	case sixToFour.Contains(ip):
		bytes := ip.As16()
		return isRemote(netip.AddrFrom4([4]byte(bytes[2:6])))
	}
	return ip.IsGlobalUnicast() && !ip.Is4In6() && !compatible.Contains(ip) && !siteLocal.Contains(ip) && ip != metadata6
}
