// Package names is the network's DNS server: the names of its members, and for all others the host's resolvers.
//
// A name of the network that is asked for what it does not have has no data, rather than no existence: a program that asks
// for AAAA first would take the latter for the end of it.
package names

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"woodlot.dev/switch/internal/lan"
)

const (
	// ttl of names of the network is short, for containers come and go.
	ttl          = 5
	maxUDP       = 4096
	maxTCP       = 64 << 10
	queryTimeout = 4 * time.Second
	// The others are on this machine.
	siblingTimeout = time.Second
	tcpIdle        = 20 * time.Second
)

// Dialer makes sockets of the host.
type Dialer interface {
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}

// Server answers the members of one network.
type Server struct {
	lan      *lan.Lan
	dialer   Dialer
	upstream func() []netip.Addr
	siblings Siblings
}

// Siblings gives the addresses of a name in the other networks of a member.
type Siblings func(ctx context.Context, from *lan.Member, name string) []netip.Addr

// New makes a server; upstream gives the host's resolvers, best first.
func New(l *lan.Lan, dialer Dialer, upstream func() []netip.Addr, siblings Siblings) *Server {
	return &Server{lan: l, dialer: dialer, upstream: upstream, siblings: siblings}
}

// ServePackets answers datagrams until the socket is closed.
func (s *Server) ServePackets(conn net.PacketConn) {
	buf := make([]byte, maxUDP)
	for {
		n, peer, err := conn.ReadFrom(buf)
		if err != nil {
			return
		}
		from := s.member(peer)
		if from == nil || !from.Queries.Take() {
			continue
		}
		query := append([]byte(nil), buf[:n]...)
		go func() {
			defer from.Queries.Release()
			if reply := s.Answer(from, query, "udp"); reply != nil {
				_, _ = conn.WriteTo(reply, peer)
			}
		}()
	}
}

// ServeStreams answers connections until the listener is closed.
func (s *Server) ServeStreams(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		from := s.member(conn.RemoteAddr())
		if from == nil || !from.Queries.Take() {
			_ = conn.Close()
			continue
		}
		go func() {
			defer from.Queries.Release()
			defer func() { _ = conn.Close() }()
			s.serveStream(from, conn)
		}()
	}
}

func (s *Server) serveStream(from *lan.Member, conn net.Conn) {
	stop := context.AfterFunc(from.Context(), func() { _ = conn.Close() })
	defer stop()
	for {
		_ = conn.SetDeadline(time.Now().Add(tcpIdle))
		query, err := readMessage(conn)
		if err != nil {
			return
		}
		reply := s.Answer(from, query, "tcp")
		if reply == nil || writeMessage(conn, reply) != nil {
			return
		}
	}
}

func (s *Server) member(peer net.Addr) *lan.Member {
	address, err := netip.ParseAddrPort(peer.String())
	if err != nil {
		return nil
	}
	return s.lan.MemberAt(address.Addr())
}

// Answer gives the reply to a query, or nil if it deserves none.
func (s *Server) Answer(from *lan.Member, query []byte, network string) []byte {
	var parser dnsmessage.Parser
	head, err := parser.Start(query)
	if err != nil || head.Response {
		return nil
	}
	question, err := parser.Question()
	if err != nil {
		return reply(head, nil, dnsmessage.RCodeFormatError)
	}
	if _, err := parser.Question(); err != dnsmessage.ErrSectionDone || head.OpCode != 0 || question.Class != dnsmessage.ClassINET {
		return reply(head, &question, dnsmessage.RCodeNotImplemented)
	}
	name := strings.ToLower(strings.TrimSuffix(question.Name.String(), "."))
	if ip, ok := reverse(name); ok && s.lan.Contains(ip) {
		return s.answerReverse(head, &question, ip)
	}
	found := s.lan.Lookup(name)
	if len(found) == 0 && len(from.Siblings) > 0 {
		ctx, cancel := context.WithTimeout(from.Context(), siblingTimeout)
		found = s.siblings(ctx, from, name)
		cancel()
	}
	if len(found) > 0 {
		found = slices.DeleteFunc(found, func(ip netip.Addr) bool { return !answersType(ip, question.Type) })
		return reply(head, &question, dnsmessage.RCodeSuccess, addresses(&question, found, ttl)...)
	}
	// A name without a dot is somebody's of the network who is not here, and no business of the world's.
	if s.lan.Internal || !strings.Contains(name, ".") && (question.Type == dnsmessage.TypeA || question.Type == dnsmessage.TypeAAAA) {
		return reply(head, &question, dnsmessage.RCodeNameError)
	}
	if from.Egress != nil {
		return s.answerAllowed(from, head, &question, name)
	}
	answer, err := s.forward(from, query, network)
	if err != nil {
		return reply(head, &question, dnsmessage.RCodeServerFailure)
	}
	return answer
}

func answersType(ip netip.Addr, kind dnsmessage.Type) bool {
	switch kind {
	case dnsmessage.TypeALL:
		return true
	case dnsmessage.TypeA:
		return ip.Is4()
	case dnsmessage.TypeAAAA:
		return ip.Is6()
	}
	return false
}

func (s *Server) answerReverse(head dnsmessage.Header, question *dnsmessage.Question, ip netip.Addr) []byte {
	name, err := dnsmessage.NewName(s.lan.NameOf(ip) + ".")
	if err != nil || len(name.String()) < 2 {
		return reply(head, question, dnsmessage.RCodeNameError)
	}
	if question.Type != dnsmessage.TypePTR {
		return reply(head, question, dnsmessage.RCodeSuccess)
	}
	return reply(head, question, dnsmessage.RCodeSuccess, record(question, ttl, &dnsmessage.PTRResource{PTR: name}))
}

func addresses(question *dnsmessage.Question, found []netip.Addr, ttl uint32) []dnsmessage.Resource {
	var records []dnsmessage.Resource
	for _, ip := range found {
		if ip.Is4() {
			records = append(records, record(question, ttl, &dnsmessage.AResource{A: ip.As4()}))
		} else {
			records = append(records, record(question, ttl, &dnsmessage.AAAAResource{AAAA: ip.As16()}))
		}
	}
	// Several containers with one name share its load.
	rand.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
	return records[:min(len(records), maxAddresses)]
}

func record(question *dnsmessage.Question, ttl uint32, body dnsmessage.ResourceBody) dnsmessage.Resource {
	return dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: question.Name, Class: question.Class, TTL: ttl}, Body: body}
}

func reply(head dnsmessage.Header, question *dnsmessage.Question, code dnsmessage.RCode, answers ...dnsmessage.Resource) []byte {
	message := dnsmessage.Message{Header: dnsmessage.Header{
		ID: head.ID, Response: true, OpCode: head.OpCode, Authoritative: true,
		RecursionDesired: head.RecursionDesired, RecursionAvailable: true, RCode: code,
	}, Answers: answers}
	if question != nil {
		message.Questions = []dnsmessage.Question{*question}
	}
	packed, err := message.Pack()
	if err != nil {
		return nil
	}
	return packed
}

// reverse gives the address that a name below in-addr.arpa or ip6.arpa stands for.
func reverse(name string) (netip.Addr, bool) {
	text := ""
	if rest, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		labels := strings.Split(rest, ".")
		slices.Reverse(labels)
		text = strings.Join(labels, ".")
	} else if rest, ok := strings.CutSuffix(name, ".ip6.arpa"); ok {
		// One label for each digit, the last one first.
		digits := strings.Split(rest, ".")
		slices.Reverse(digits)
		for group := range slices.Chunk(digits, 4) {
			text += ":" + strings.Join(group, "")
		}
		text = strings.TrimPrefix(text, ":")
	}
	ip, err := netip.ParseAddr(text)
	return ip, err == nil
}

// forward asks one resolver after the other, under an id of our own: what comes back must be for this question.
func (s *Server) forward(from *lan.Member, query []byte, network string) ([]byte, error) {
	servers := from.Nameservers
	if len(servers) == 0 {
		servers = s.upstream()
	}
	failure := errors.New("the host has no resolver")
	for _, server := range servers {
		answer, err := s.ask(from, netip.AddrPortFrom(server, 53).String(), query, network)
		if err == nil {
			return answer, nil
		}
		failure = err
	}
	return nil, failure
}

func (s *Server) ask(from *lan.Member, server string, query []byte, network string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(from.Context(), queryTimeout)
	defer cancel()
	conn, err := s.dialer.DialContext(ctx, network, server)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	asked := append([]byte(nil), query...)
	id := uint16(rand.Uint32())
	binary.BigEndian.PutUint16(asked, id)
	answer, err := exchange(conn, asked, network)
	if err != nil {
		return nil, err
	}
	copy(answer[:2], query[:2])
	return answer, nil
}

func exchange(conn net.Conn, asked []byte, network string) ([]byte, error) {
	if network == "tcp" {
		if err := writeMessage(conn, asked); err != nil {
			return nil, err
		}
		answer, err := readMessage(conn)
		if err == nil && !answers(answer, asked) {
			err = errors.New("the resolver answered something else")
		}
		return answer, err
	}
	if _, err := conn.Write(asked); err != nil {
		return nil, err
	}
	buf := make([]byte, maxUDP)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return nil, err
		}
		if answers(buf[:n], asked) {
			return buf[:n], nil
		}
	}
}

func answers(answer, asked []byte) bool {
	return len(answer) >= 12 && answer[0] == asked[0] && answer[1] == asked[1] && answer[2]&0x80 != 0
}

// Over a stream a message is led by its length (RFC 1035, 4.2.2).
func readMessage(r io.Reader) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	message := make([]byte, binary.BigEndian.Uint16(size[:]))
	_, err := io.ReadFull(r, message)
	return message, err
}

func writeMessage(w io.Writer, message []byte) error {
	if len(message) >= maxTCP {
		return errors.New("a message too long for DNS")
	}
	_, err := w.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(message))), message...))
	return err
}
