package names

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"woodlot.dev/switch/internal/egress"
	"woodlot.dev/switch/internal/lan"
)

const (
	// maxAddresses of a name are what fits a datagram of 512 bytes.
	maxAddresses = 8
	// maxAnswer is what a resolver may send as a datagram, and passes everywhere (dnsflagday.net/2020).
	maxAnswer = 1232
)

// answerAllowed answers a member whose policy says which names it may ask for: with addresses, which are allowed from here
// on, and with nothing else. The question that goes out and the answer that comes in are made here, so that neither
// carries more than the name and its addresses.
//
// Another name does not exist. REFUSED would say it better, but the C library of musl ignores that and waits until its
// time is up, and the one of glibc takes it for a failure that passes.
func (s *Server) answerAllowed(from *lan.Member, head dnsmessage.Header, question *dnsmessage.Question, name string) []byte {
	if !from.Egress.AllowsName(name) {
		s.lan.Refused(from, "the name "+strconv.Quote(name))
		return reply(head, question, dnsmessage.RCodeNameError)
	}
	if question.Type != dnsmessage.TypeA && question.Type != dnsmessage.TypeAAAA {
		return reply(head, question, dnsmessage.RCodeSuccess)
	}
	found, err := s.resolve(from, name, question.Type)
	if err != nil {
		return reply(head, question, dnsmessage.RCodeServerFailure)
	}
	from.Egress.Permit(name, found.addresses, found.ttl)
	return reply(head, question, found.code, addresses(question, found.addresses, uint32(found.ttl/time.Second))...)
}

// resolution is what the resolvers say of a name: its addresses, or with which code there are none.
type resolution struct {
	code      dnsmessage.RCode
	addresses []netip.Addr
	ttl       time.Duration
}

// resolve asks for the addresses of a name, over a stream if a datagram does not hold them.
func (s *Server) resolve(from *lan.Member, name string, kind dnsmessage.Type) (resolution, error) {
	query, err := buildQuery(name, kind)
	if err != nil {
		return resolution{}, err
	}
	answer, err := s.forward(from, query, "udp")
	if err == nil && answer[2]&truncated != 0 {
		answer, err = s.forward(from, query, "tcp")
	}
	if err != nil {
		return resolution{}, err
	}
	return parseAnswer(answer, name, kind)
}

// truncated is a bit of the third byte of a message (RFC 1035, 4.1.1).
const truncated = 0x02

func buildQuery(name string, kind dnsmessage.Type) ([]byte, error) {
	full, err := dnsmessage.NewName(name + ".")
	if err != nil {
		return nil, err
	}
	extension := dnsmessage.Resource{Body: &dnsmessage.OPTResource{}}
	if err := extension.Header.SetEDNS0(maxAnswer, dnsmessage.RCodeSuccess, false); err != nil {
		return nil, err
	}
	message := dnsmessage.Message{
		Header:      dnsmessage.Header{RecursionDesired: true},
		Questions:   []dnsmessage.Question{{Name: full, Type: kind, Class: dnsmessage.ClassINET}},
		Additionals: []dnsmessage.Resource{extension},
	}
	return message.Pack()
}

// parseAnswer follows the aliases from the name to its addresses; records of anything else are passed over.
func parseAnswer(answer []byte, name string, kind dnsmessage.Type) (resolution, error) {
	var m dnsmessage.Message
	if err := m.Unpack(answer); err != nil {
		return resolution{}, err
	}
	if len(m.Questions) != 1 || canonical(m.Questions[0].Name) != name || m.Questions[0].Type != kind {
		return resolution{}, errors.New("the resolver answered another question")
	}
	found := resolution{code: m.RCode, ttl: egress.MaxTTL}
	for _, record := range m.Answers {
		// Aliases come before what they lead to (RFC 1034, 4.3.2).
		head := record.Header
		wanted := head.Type == kind || head.Type == dnsmessage.TypeCNAME
		if canonical(head.Name) != name || head.Class != dnsmessage.ClassINET || !wanted {
			continue
		}
		found.ttl = min(found.ttl, time.Duration(head.TTL)*time.Second)
		switch body := record.Body.(type) {
		case *dnsmessage.CNAMEResource:
			name = canonical(body.CNAME)
		case *dnsmessage.AResource:
			found.addresses = append(found.addresses, netip.AddrFrom4(body.A))
		case *dnsmessage.AAAAResource:
			found.addresses = append(found.addresses, netip.AddrFrom16(body.AAAA))
		}
	}
	found.addresses = found.addresses[:min(len(found.addresses), maxAddresses)]
	return found, nil
}

func canonical(name dnsmessage.Name) string {
	return strings.ToLower(strings.TrimSuffix(name.String(), "."))
}
