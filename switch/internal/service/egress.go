package service

import (
	"fmt"
	"net/netip"

	"woodlot.dev/switch/internal/egress"
	"woodlot.dev/switch/internal/pb"
)

// parseEgress gives the policy that is asked for; nil, which allows everything, if none is.
func parseEgress(asked *pb.Egress) (*egress.Policy, error) {
	if asked == nil {
		return nil, nil
	}
	var rules []egress.Rule
	for _, wanted := range asked.GetRules() {
		if wanted.GetPort() > 65535 {
			return nil, fmt.Errorf("%w: %d is no port", egress.ErrInvalid, wanted.GetPort())
		}
		rule := egress.Rule{Name: wanted.GetName(), Port: uint16(wanted.GetPort())}
		if text := wanted.GetCidr(); text != "" {
			prefix, err := netip.ParsePrefix(text)
			if err != nil {
				return nil, fmt.Errorf("%w: %q are no addresses", egress.ErrInvalid, text)
			}
			rule.Prefix = prefix.Masked()
		}
		rules = append(rules, rule)
	}
	return egress.New(rules, egress.HostAddresses)
}
