// Package ping sends ICMP echo requests from the host, and takes the replies.
//
// An ordinary user has "ping sockets" for that, if the host's administrator lets them (net.ipv4.ping_group_range); root has
// raw sockets in any case. They are made once, before the process gives up its rights.
package ping

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

const (
	// head is that of an echo: type, code, checksum, identifier and sequence number (RFC 792, RFC 4443).
	head      = 8
	maxPacket = 64 << 10
	// icmpFilter is the option of raw sockets that says which messages they do not take (linux/icmp.h).
	icmpFilter = 1
)

// Reply is an answer to an echo request.
type Reply struct {
	From netip.Addr
	Seq  uint16
	// TTL is how many hops were left when it came.
	TTL  byte
	Data []byte
}

// Sockets are one for each family of addresses, or none where the host has or allows none.
type Sockets struct{ v4, v6 *socket }

// Open makes the sockets that the host allows; the error says why there is not even one.
func Open() (*Sockets, error) {
	v4, err := open(unix.AF_INET, unix.IPPROTO_ICMP)
	v6, _ := open(unix.AF_INET6, unix.IPPROTO_ICMPV6)
	if v4 == nil && v6 == nil {
		return nil, err
	}
	return &Sockets{v4, v6}, nil
}

// Send asks an address for an echo. What the host has no room for is lost, as on any wire.
func (s *Sockets) Send(to netip.Addr, seq uint16, ttl byte, data []byte) error {
	own := s.v4
	if to.Is6() {
		own = s.v6
	}
	if own == nil {
		return fmt.Errorf("ping %s: the host allows no socket for it", to)
	}
	return own.send(to, seq, ttl, data)
}

// Serve hands over the replies, for whose data there is no place after the call, until the sockets are closed.
func (s *Sockets) Serve(take func(Reply)) {
	for _, one := range []*socket{s.v4, s.v6} {
		if one != nil {
			go one.serve(take)
		}
	}
}

// Close closes them.
func (s *Sockets) Close() {
	for _, one := range []*socket{s.v4, s.v6} {
		if one != nil {
			_ = one.file.Close()
		}
	}
}

type socket struct {
	file *os.File
	conn syscall.RawConn
	// raw sockets take everybody's replies, with the packet's header in IPv4; ours bear this identifier.
	raw    bool
	id     uint16
	family int
}

func open(family, protocol int) (*socket, error) {
	const flags = unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK
	s := &socket{family: family, id: uint16(rand.Uint32())}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|flags, protocol)
	if errors.Is(err, unix.EACCES) {
		s.raw = true
		fd, err = unix.Socket(family, unix.SOCK_RAW|flags, protocol)
	}
	if err != nil {
		return nil, fmt.Errorf("make a socket for pings: %w", err)
	}
	s.file = os.NewFile(uintptr(fd), "icmp")
	if err := s.configure(fd); err != nil {
		_ = s.file.Close()
		return nil, fmt.Errorf("set up a socket for pings: %w", err)
	}
	if s.conn, err = s.file.SyscallConn(); err != nil {
		_ = s.file.Close()
		return nil, err
	}
	return s, nil
}

func (s *socket) configure(fd int) error {
	if s.family == unix.AF_INET6 {
		if s.raw {
			filter := unix.ICMPv6Filter{}
			for i := range filter.Data {
				filter.Data[i] = ^uint32(0)
			}
			filter.Data[header.ICMPv6EchoReply/32] &^= 1 << (header.ICMPv6EchoReply % 32)
			if err := unix.SetsockoptICMPv6Filter(fd, unix.IPPROTO_ICMPV6, unix.ICMPV6_FILTER, &filter); err != nil {
				return err
			}
		}
		return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT, 1)
	}
	if s.raw {
		if err := unix.SetsockoptInt(fd, unix.SOL_RAW, icmpFilter, ^(1 << header.ICMPv4EchoReply)); err != nil {
			return err
		}
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_RECVTTL, 1)
}

func (s *socket) send(to netip.Addr, seq uint16, ttl byte, data []byte) error {
	message := append(make([]byte, head, head+len(data)), data...)
	binary.BigEndian.PutUint16(message[4:], s.id)
	binary.BigEndian.PutUint16(message[6:], seq)
	var address unix.Sockaddr
	var level, option int
	if s.family == unix.AF_INET6 {
		// The kernel fills the checksum in.
		message[0] = byte(header.ICMPv6EchoRequest)
		address, level, option = &unix.SockaddrInet6{Addr: to.As16()}, unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS
	} else {
		message[0] = byte(header.ICMPv4Echo)
		header.ICMPv4(message).SetChecksum(header.ICMPv4Checksum(message, 0))
		address, level, option = &unix.SockaddrInet4{Addr: to.As4()}, unix.IPPROTO_IP, unix.IP_TTL
	}
	var failure error
	err := s.conn.Write(func(fd uintptr) bool {
		// One at a time: the option is this message's.
		if failure = unix.SetsockoptInt(int(fd), level, option, int(ttl)); failure == nil {
			failure = unix.Sendto(int(fd), message, unix.MSG_DONTWAIT, address)
		}
		return true
	})
	if errors.Is(failure, unix.EAGAIN) || errors.Is(failure, unix.ENOBUFS) {
		failure = nil
	}
	return errors.Join(err, failure)
}

func (s *socket) serve(take func(Reply)) {
	buf, oob := make([]byte, maxPacket), make([]byte, 128)
	for {
		var n, oobn int
		var from unix.Sockaddr
		var failure error
		err := s.conn.Read(func(fd uintptr) bool {
			n, oobn, _, from, failure = unix.Recvmsg(int(fd), buf, oob, 0)
			return !errors.Is(failure, unix.EAGAIN)
		})
		if err != nil {
			return
		}
		if failure != nil {
			continue
		}
		if reply, ok := s.parse(buf[:n], oob[:oobn], from); ok {
			take(reply)
		}
	}
}

func (s *socket) parse(message, oob []byte, from unix.Sockaddr) (Reply, bool) {
	var reply Reply
	kind := byte(header.ICMPv4EchoReply)
	switch address := from.(type) {
	case *unix.SockaddrInet4:
		reply.From = netip.AddrFrom4(address.Addr)
		if s.raw {
			if len(message) < header.IPv4MinimumSize || len(message) < int(header.IPv4(message).HeaderLength()) {
				return reply, false
			}
			message = message[header.IPv4(message).HeaderLength():]
		}
	case *unix.SockaddrInet6:
		reply.From = netip.AddrFrom16(address.Addr)
		kind = byte(header.ICMPv6EchoReply)
	default:
		return reply, false
	}
	if len(message) < head || message[0] != kind || s.raw && binary.BigEndian.Uint16(message[4:]) != s.id {
		return reply, false
	}
	reply.Seq = binary.BigEndian.Uint16(message[6:])
	reply.Data = message[head:]
	reply.TTL = hopsLeft(oob)
	return reply, true
}

// hopsLeft reads what the kernel says beside a message.
func hopsLeft(oob []byte) byte {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0
	}
	for _, m := range messages {
		ttl := m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_TTL
		hops := m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_HOPLIMIT
		if (ttl || hops) && len(m.Data) >= 4 {
			return byte(binary.NativeEndian.Uint32(m.Data))
		}
	}
	return 0
}
