package netif

import (
	"errors"
	"testing"

	"github.com/vishvananda/netlink"
)

func TestListAsksAgain(t *testing.T) {
	for name, c := range map[string]struct {
		interrupted int
		err         error
		want        int
	}{
		"at once":             {0, nil, 1},
		"changed twice":       {2, nil, 3},
		"another error":       {0, errors.New("no"), 1},
		"changes for ever":    {listAttempts + 1, nil, listAttempts},
		"error after changes": {1, errors.New("no"), 2},
	} {
		t.Run(name, func(t *testing.T) {
			asked := 0
			_, err := list(func() ([]int, error) {
				if asked++; asked <= c.interrupted {
					return []int{1}, netlink.ErrDumpInterrupted
				}
				return []int{1}, c.err
			})
			if asked != c.want {
				t.Errorf("asked %d times, want %d", asked, c.want)
			}
			if ever := c.interrupted > listAttempts; errors.Is(err, netlink.ErrDumpInterrupted) != ever || !ever && !errors.Is(err, c.err) {
				t.Errorf("error %v", err)
			}
		})
	}
}
