// Package netif configures the guest's network interfaces.
package netif

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"woodlot.dev/agent/internal/fail"
)

const waitBound = 10 * time.Second

// Route is one route through an interface.
type Route struct {
	Destination *net.IPNet
	// Gateway is nil for an on-link route.
	Gateway net.IP
	// Prohibit refuses packets instead.
	Prohibit bool
}

// Interface is the wanted state of one interface.
type Interface struct {
	MAC net.HardwareAddr
	// DeviceMAC is what the device has still; nil if it is MAC.
	DeviceMAC net.HardwareAddr
	Name      string
	Addresses []*net.IPNet
	MTU       int
	Routes    []Route
}

// ParseInterface checks what the host asks for.
func ParseInterface(mac, deviceMAC, name string, addresses []string, mtu uint32) (Interface, error) {
	i := Interface{Name: name}
	var err error
	if i.MAC, err = net.ParseMAC(mac); err != nil {
		return i, fail.Wrap(fail.InvalidArgument, "interface", err)
	}
	if deviceMAC != "" {
		if i.DeviceMAC, err = net.ParseMAC(deviceMAC); err != nil {
			return i, fail.Wrap(fail.InvalidArgument, "interface", err)
		}
	}
	if len(name) >= unix.IFNAMSIZ || bytes.ContainsAny([]byte(name), "/ :\x00\n") {
		return i, fail.New(fail.InvalidArgument, fmt.Sprintf("%q is no interface name", name))
	}
	for _, a := range addresses {
		ip, ipnet, err := net.ParseCIDR(a)
		if err != nil {
			return i, fail.Wrap(fail.InvalidArgument, "address of "+name, err)
		}
		i.Addresses = append(i.Addresses, &net.IPNet{IP: ip, Mask: ipnet.Mask})
	}
	if mtu > 65535 {
		return i, fail.New(fail.InvalidArgument, fmt.Sprintf("mtu %d is above 65535", mtu))
	}
	i.MTU = int(mtu)
	return i, nil
}

// ParseRoute checks one route.
func ParseRoute(destination, gateway string, prohibit bool) (Route, error) {
	_, dst, err := net.ParseCIDR(destination)
	if err != nil {
		return Route{}, fail.Wrap(fail.InvalidArgument, "route", err)
	}
	r := Route{Destination: dst, Prohibit: prohibit}
	if gateway != "" {
		if r.Gateway = net.ParseIP(gateway); r.Gateway == nil {
			return Route{}, fail.New(fail.InvalidArgument, fmt.Sprintf("gateway %q is no address", gateway))
		}
	}
	return r, nil
}

// LoopbackUp brings lo up.
func LoopbackUp() error {
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		return fmt.Errorf("bring up lo: %w", err)
	}
	return nil
}

// Configure brings one interface to the wanted state; addresses and routes it had before and should not have are taken
// away. The device is waited for up to 10 s.
func Configure(ctx context.Context, want Interface) error {
	device := want.MAC
	if want.DeviceMAC != nil {
		device = want.DeviceMAC
	}
	link, err := waitForMAC(ctx, device)
	if err != nil {
		return err
	}
	name := want.Name
	if name == "" {
		name = link.Attrs().Name
	}
	if !hasIPv6() {
		want = withoutIPv6(want)
	}
	if err := configure(link, name, want); err != nil {
		return fmt.Errorf("interface %s: %w", name, err)
	}
	return nil
}

// hasIPv6 is false with a kernel of the user's that is built without it, or told ipv6.disable=1.
func hasIPv6() bool {
	_, err := os.Stat("/proc/net/if_inet6")
	return err == nil
}

func withoutIPv6(want Interface) Interface {
	want.Addresses = slices.DeleteFunc(slices.Clone(want.Addresses), func(a *net.IPNet) bool { return a.IP.To4() == nil })
	want.Routes = slices.DeleteFunc(slices.Clone(want.Routes), func(r Route) bool { return r.Destination.IP.To4() == nil })
	return want
}

// Reset takes every interface but lo down, without the addresses and routes that Configure gave it.
func Reset() error {
	links, err := list(netlink.LinkList)
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	for _, link := range links {
		if link.Attrs().Flags&net.FlagLoopback != 0 || link.Attrs().Flags&net.FlagUp == 0 {
			continue
		}
		if err := clearAddresses(link, nil); err != nil {
			return err
		}
		for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
			if err := clearRoutes(link, family); err != nil {
				return err
			}
		}
		if err := netlink.LinkSetDown(link); err != nil {
			return fmt.Errorf("take down %s: %w", link.Attrs().Name, err)
		}
	}
	return nil
}

func configure(link netlink.Link, name string, want Interface) error {
	if link.Attrs().Name != name {
		if err := netlink.LinkSetDown(link); err != nil {
			return fmt.Errorf("take down: %w", err)
		}
		if err := netlink.LinkSetName(link, name); err != nil {
			return fail.Wrap(fail.InvalidArgument, "rename from "+link.Attrs().Name, err)
		}
	}
	if want.DeviceMAC != nil {
		if err := netlink.LinkSetHardwareAddr(link, want.MAC); err != nil {
			return fail.Wrap(fail.InvalidArgument, fmt.Sprintf("set address %s", want.MAC), err)
		}
	}
	// One that was never up has nothing of an earlier Configure.
	fresh := link.Attrs().Flags&net.FlagUp == 0
	if want.MTU > 0 && want.MTU != link.Attrs().MTU {
		if err := netlink.LinkSetMTU(link, want.MTU); err != nil {
			return fail.Wrap(fail.InvalidArgument, fmt.Sprintf("set mtu %d", want.MTU), err)
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("bring up: %w", err)
	}
	if !fresh {
		if err := clearAddresses(link, want.Addresses); err != nil {
			return err
		}
		for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
			if err := clearRoutes(link, family); err != nil {
				return err
			}
		}
	}
	if err := addAddresses(link, want.Addresses); err != nil {
		return err
	}
	return addRoutes(link, want.Routes)
}

// clearAddresses removes what an earlier Configure left and is not wanted.
func clearAddresses(link netlink.Link, want []*net.IPNet) error {
	have, err := list(func() ([]netlink.Addr, error) { return netlink.AddrList(link, netlink.FAMILY_ALL) })
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	for _, old := range have {
		keep := old.IP.IsLinkLocalUnicast() && old.IP.To4() == nil
		for _, w := range want {
			keep = keep || old.IPNet.String() == w.String()
		}
		if !keep {
			if err := netlink.AddrDel(link, &old); err != nil {
				return fmt.Errorf("remove address %s: %w", old.IPNet, err)
			}
		}
	}
	return nil
}

func addAddresses(link netlink.Link, want []*net.IPNet) error {
	for _, w := range want {
		a := &netlink.Addr{IPNet: w}
		if w.IP.To4() == nil {
			a.Flags = unix.IFA_F_NODAD // usable at once: nobody else is on the link
		}
		if err := netlink.AddrReplace(link, a); err != nil {
			return fail.Wrap(fail.InvalidArgument, "add address "+w.String(), err)
		}
	}
	return nil
}

func addRoutes(link netlink.Link, want []Route) error {
	for _, w := range want {
		r := &netlink.Route{Dst: w.Destination, Protocol: unix.RTPROT_STATIC}
		switch {
		case w.Prohibit:
			r.Type = unix.RTN_PROHIBIT
			r.Priority = prohibitPriority
			if w.Destination.IP.To4() == nil {
				r.LinkIndex = 0
			}
		case w.Gateway != nil:
			// Onlink: the gateway needs no route of its own, and may even be prohibited as a destination.
			r.LinkIndex, r.Gw, r.Flags = link.Attrs().Index, w.Gateway, int(netlink.FLAG_ONLINK)
		default:
			r.LinkIndex, r.Scope = link.Attrs().Index, netlink.SCOPE_LINK
		}
		if err := netlink.RouteReplace(r); err != nil {
			return fail.Wrap(fail.InvalidArgument, "add route to "+w.Destination.String(), err)
		}
	}
	return nil
}

// prohibitPriority marks prohibit routes as ours: they belong to no interface.
const prohibitPriority = 1

// clearRoutes removes what an earlier Configure left.
func clearRoutes(link netlink.Link, family int) error {
	routes, err := list(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(family, &netlink.Route{Protocol: unix.RTPROT_STATIC}, netlink.RT_FILTER_PROTOCOL)
	})
	if err != nil {
		return fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		ours := r.LinkIndex == link.Attrs().Index || r.Type == unix.RTN_PROHIBIT
		if !ours {
			continue
		}
		if err := netlink.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("remove route to %s: %w", r.Dst, err)
		}
	}
	return nil
}

// listAttempts bounds how often a listing is begun anew.
const listAttempts = 100

// list asks again when the kernel says that what it lists changed meanwhile, as addresses do while an interface comes up.
func list[T any](ask func() ([]T, error)) ([]T, error) {
	for range listAttempts - 1 {
		if all, err := ask(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return all, err
		}
	}
	return ask()
}

func findMAC(mac net.HardwareAddr) (netlink.Link, error) {
	links, err := list(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	for _, l := range links {
		if bytes.Equal(l.Attrs().HardwareAddr, mac) {
			return l, nil
		}
	}
	return nil, nil
}

func waitForMAC(ctx context.Context, mac net.HardwareAddr) (netlink.Link, error) {
	if l, err := findMAC(mac); l != nil || err != nil {
		return l, err
	}
	updates := make(chan netlink.LinkUpdate, 64)
	done := make(chan struct{})
	defer close(done)
	if err := netlink.LinkSubscribe(updates, done); err != nil {
		return nil, fmt.Errorf("listen to interface events: %w", err)
	}
	bound := time.NewTimer(waitBound)
	defer bound.Stop()
	for {
		// Looked for again after subscribing, and at every event.
		if l, err := findMAC(mac); l != nil || err != nil {
			return l, err
		}
		select {
		case _, ok := <-updates:
			if !ok {
				return nil, errors.New("the kernel closed the stream of interface events")
			}
		case <-bound.C:
			return nil, fail.New(fail.NotFound, fmt.Sprintf("no network device with address %s appeared within %s", mac, waitBound))
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
