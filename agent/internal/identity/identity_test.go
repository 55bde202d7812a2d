package identity

import "testing"

func TestSysctlPath(t *testing.T) {
	for name, want := range map[string]string{
		"net.ipv4.ip_forward":            "net/ipv4/ip_forward",
		"net/ipv4/ip_forward":            "net/ipv4/ip_forward",
		"net.ipv4.conf.eth0/1.rp_filter": "net/ipv4/conf/eth0.1/rp_filter",
		"net/ipv4/conf/eth0.1/rp_filter": "net/ipv4/conf/eth0.1/rp_filter",
	} {
		if got, err := sysctlPath(name); err != nil || got != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	for _, name := range []string{"", "..", "/etc/passwd", "../../etc/passwd", "net/../../x", "net..x", "a/./b", "a/", "a\x00b", "....etc", "net.//.x"} {
		if got, err := sysctlPath(name); err == nil {
			t.Errorf("%q was taken, as %q", name, got)
		}
	}
}

func TestOfIPC(t *testing.T) {
	for p, want := range map[string]bool{"kernel/shmmax": true, "kernel/sem": true, "fs/mqueue/msg_max": true, "kernel/panic": false, "vm/swappiness": false} {
		if ofIPC(p) != want {
			t.Error(p)
		}
	}
}
