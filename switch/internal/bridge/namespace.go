package bridge

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// namespace is a thread that lives in a network namespace of its own, and does there what it is told.
type namespace struct {
	jobs chan func()
	// path is where to find it while the process runs.
	path string
}

func enterNamespace() (*namespace, error) {
	n := &namespace{jobs: make(chan func())}
	entered := make(chan error)
	go func() {
		// Never unlocked: nothing else runs on this thread, and it ends with the loop.
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNET)
		n.path = fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid())
		entered <- err
		if err != nil {
			return
		}
		for job := range n.jobs {
			job()
		}
	}()
	return n, <-entered
}

func (n *namespace) do(job func() error) error {
	done := make(chan error)
	n.jobs <- func() { done <- job() }
	return <-done
}

// quieten keeps the namespace's own IP stack out of it: it is to carry frames, not to read them. What the kernel does not
// have needs no switching off.
func quieten() {
	for path, value := range map[string]string{
		"/proc/sys/net/ipv6/conf/all/disable_ipv6":      "1",
		"/proc/sys/net/ipv6/conf/default/disable_ipv6":  "1",
		"/proc/sys/net/bridge/bridge-nf-call-iptables":  "0",
		"/proc/sys/net/bridge/bridge-nf-call-ip6tables": "0",
		"/proc/sys/net/bridge/bridge-nf-call-arptables": "0",
	} {
		_ = os.WriteFile(path, []byte(value), 0)
	}
}
