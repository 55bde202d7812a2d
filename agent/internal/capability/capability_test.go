package capability

import "testing"

func TestParse(t *testing.T) {
	set, err := Parse([]string{"CAP_CHOWN", "CAP_KILL", "CAP_CHECKPOINT_RESTORE"})
	if err != nil || set != 1|Kill|1<<40 {
		t.Errorf("%#x, %v", set, err)
	}
	for _, bad := range []string{"", "CHOWN", "cap_chown", "CAP_NOPE"} {
		if _, err := Parse([]string{bad}); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
