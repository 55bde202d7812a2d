// Package nettest gives tests a network of their own.
package nettest

import (
	"os"
	"os/exec"
	"testing"
)

const marker = "WOODLOT_TEST_IN_NEW_NETWORK"

// InNew runs a test anew, as root, in a network namespace that has nothing but a loopback card, after some commands of the
// shell. It tells whether this is that run; the first one has nothing left to do.
func InNew(t *testing.T, commands string) bool {
	t.Helper()
	if os.Getenv(marker) == t.Name() {
		return true
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can make a network namespace")
	}
	command := exec.Command("unshare", "--net", "sh", "-euc", commands+`; exec "$@"`, "sh", os.Args[0], "-test.run=^"+t.Name()+"$")
	command.Env = append(os.Environ(), marker+"="+t.Name())
	if said, err := command.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, said)
	}
	return false
}
