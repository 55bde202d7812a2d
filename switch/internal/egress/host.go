package egress

import (
	"net"
	"net/netip"
)

// HostAddresses gives the addresses of the host's own cards, as they are now.
func HostAddresses() []netip.Addr {
	networks, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var found []netip.Addr
	for _, network := range networks {
		if prefix, err := netip.ParsePrefix(network.String()); err == nil {
			found = append(found, prefix.Addr().WithZone(""))
		}
	}
	return found
}
