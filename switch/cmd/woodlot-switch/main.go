// Command woodlot-switch is one network: the containers attached to it reach each other, and through it the world.
//
// It is started by the first container's supervisor, with a listening control socket, and ends by itself when
// the last container has left. The network's lock decides between the two: a supervisor holds it while it looks for a
// switch and attaches, the switch takes it to leave, and unlinks the socket before it lets go.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"woodlot.dev/switch/internal/bridge"
	"woodlot.dev/switch/internal/confine"
	"woodlot.dev/switch/internal/gateway"
	"woodlot.dev/switch/internal/lan"
	"woodlot.dev/switch/internal/names"
	"woodlot.dev/switch/internal/pb"
	"woodlot.dev/switch/internal/ping"
	"woodlot.dev/switch/internal/service"
)

// version is set by the build.
var version = "dev"

const (
	dnsPort = 53
	// firstGrace is how long the one who started the switch has to attach.
	firstGrace = 30 * time.Second
	look       = 200 * time.Millisecond
	maxMessage = 1 << 20

	driverSwitch = "switch"
	driverBridge = "bridge"
)

type options struct {
	listenFd int
	network  string
	subnet   netip.Prefix
	subnet6  netip.Prefix
	internal bool
	driver   string
	socket   string
	lock     string
	grace    time.Duration
	resolv   string
}

func init() {
	// The process's first thread, whose view of the network is the process's for others, stays in the host's.
	runtime.LockOSThread()
}

func main() {
	log.SetFlags(log.LstdFlags | log.LUTC)
	var o options
	showVersion := flag.Bool("version", false, "print the version and exit")
	flag.IntVar(&o.listenFd, "listen-fd", 3, "inherited descriptor of the control socket, which listens")
	flag.StringVar(&o.network, "network", "", "name of the network, for the log")
	flag.TextVar(&o.subnet, "subnet", netip.Prefix{}, "IPv4 subnet, as 10.86.0.0/24")
	flag.TextVar(&o.subnet6, "subnet-v6", netip.Prefix{}, "IPv6 subnet, as fd00:86::/64; no IPv6 without")
	flag.BoolVar(&o.internal, "internal", false, "let nobody out")
	flag.StringVar(&o.driver, "driver", driverSwitch, "what carries frames between containers: switch (this process) or bridge (the kernel; needs root)")
	flag.StringVar(&o.socket, "socket", "", "path of the control socket, unlinked at the end")
	flag.StringVar(&o.lock, "lock", "", "lock file of the network")
	flag.DurationVar(&o.grace, "grace", 3*time.Second, "how long to stay when nobody is attached")
	flag.StringVar(&o.resolv, "resolv-conf", "/etc/resolv.conf", "file that names the host's resolvers")
	flag.Parse()
	if *showVersion {
		fmt.Println(version)
		return
	}
	if err := run(o); err != nil {
		log.Fatalf("error: %v", err)
	}
}

func run(o options) error {
	listener, err := inherit(o.listenFd)
	if err != nil {
		return err
	}
	own, err := os.Lstat(o.socket)
	if err != nil {
		return err
	}
	l, err := lan.New(o.subnet, o.subnet6, o.internal)
	if err != nil {
		return err
	}
	pings, noPings := ping.Open()
	plugs, failed, err := carry(l, o.driver)
	if err != nil {
		return err
	}
	// What this process makes is its user's alone.
	unix.Umask(0o077)
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	g, err := gateway.New(ctx, l, &net.Dialer{})
	if err != nil {
		return err
	}
	if noPings == nil {
		g.CarryPings(pings)
	} else {
		log.Printf("pings beyond the network get no answer (net.ipv4.ping_group_range has no group of this user): %v", noPings)
	}
	packets, streams, err := g.Listen(dnsPort)
	if err != nil {
		return fmt.Errorf("listen for name queries: %w", err)
	}
	resolver := names.New(l, &net.Dialer{}, names.Resolvers(o.resolv), service.Siblings)
	go resolver.ServePackets(packets)
	go resolver.ServeStreams(streams)

	s := service.New(l, g, plugs)
	server := grpc.NewServer(grpc.MaxRecvMsgSize(maxMessage))
	pb.RegisterSwitchServer(server, s)
	go func() { failed <- server.Serve(listener) }()
	log.Printf("network %s, %s, version %s", o.network, o.subnet, version)

	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		select {
		case err := <-failed:
			return err
		case <-ctx.Done():
			log.Print("ended by a signal")
			server.Stop()
			return unlink(o, own)
		case <-tick.C:
		}
		grace := firstGrace
		if s.Used() {
			grace = o.grace
		}
		if s.IdleFor() <= grace {
			continue
		}
		if left, err := leave(o, own, s, grace); err != nil || left {
			server.Stop()
			return err
		}
	}
}

// carry sees to it that frames have a way, and gives up the rights that are not needed for it. The channel tells when the
// kernel's way has ended; it has room for one more error.
func carry(l *lan.Lan, driver string) (service.Plugs, chan error, error) {
	failed := make(chan error, 2)
	switch driver {
	case driverSwitch:
		return nil, failed, confine.Drop(unix.CAP_NET_BIND_SERVICE)
	case driverBridge:
		b, err := bridge.New(l)
		if err != nil {
			return nil, nil, err
		}
		go func() { failed <- b.Serve(l.ReceiveTrunk) }()
		return b, failed, confine.Drop(unix.CAP_NET_BIND_SERVICE, unix.CAP_NET_ADMIN)
	}
	return nil, nil, fmt.Errorf("there is no driver %q", driver)
}

// inherit gives the control socket, and closes every other descriptor but the standard ones.
func inherit(fd int) (net.Listener, error) {
	if err := confine.CloseInherited(fd); err != nil {
		return nil, fmt.Errorf("close inherited descriptors: %w", err)
	}
	file := os.NewFile(uintptr(fd), "control")
	listener, err := net.FileListener(file)
	if err != nil {
		return nil, fmt.Errorf("descriptor %d is no listening socket: %w", fd, err)
	}
	return listener, file.Close()
}

// leave takes the network's lock, if nobody is about to attach, and makes that the switch is no longer found. The lock
// stays held until the process ends.
func leave(o options, own os.FileInfo, s *service.Service, grace time.Duration) (bool, error) {
	fd, err := unix.Open(o.lock, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if errors.Is(err, unix.ENOENT) {
		// The network is deleted: nobody looks for it any more.
		log.Print("the network is gone: leaving")
		return true, unlink(o, own)
	}
	if err != nil {
		return true, fmt.Errorf("open the lock %s: %w", o.lock, err)
	}
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = unix.Close(fd)
		return false, nil
	}
	if s.IdleFor() <= grace {
		_ = unix.Close(fd)
		return false, nil
	}
	log.Printf("nobody is attached for %s: leaving", grace)
	return true, unlink(o, own)
}

// unlink removes the control socket, unless it is another switch's by now.
func unlink(o options, own os.FileInfo) error {
	if there, err := os.Lstat(o.socket); err != nil || !os.SameFile(there, own) {
		return nil
	}
	return os.Remove(o.socket)
}
