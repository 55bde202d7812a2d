// Command agent is PID 1 of a woodlot guest.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime/debug"
	"time"

	"woodlot.dev/agent/internal/boot"
	"woodlot.dev/agent/internal/cgroup"
	"woodlot.dev/agent/internal/container"
	"woodlot.dev/agent/internal/klog"
	"woodlot.dev/agent/internal/listen"
	"woodlot.dev/agent/internal/reap"
	"woodlot.dev/agent/internal/rpc"
)

// version is set by the build.
var version = "dev"

const (
	stateDir     = "/run/woodlot"
	launcher     = "/launch"
	powerOffWait = 2 * time.Second
)

func main() {
	if os.Getpid() != 1 {
		fmt.Println("woodlot-agent", version)
		fmt.Fprintln(os.Stderr, "woodlot-agent: runs as PID 1 of a micro-VM only")
		os.Exit(2)
	}
	// The heap is a few megabytes: collecting less often costs little memory and saves emulated cycles.
	debug.SetGCPercent(400)
	if err := run(); err != nil {
		klog.Fatalf("%v", err)
	}
}

func run() error {
	root, err := boot.Mounts()
	if err != nil {
		return err
	}
	klog.Open()
	modules, err := boot.LoadModules(root)
	if err != nil {
		return err
	}
	if err := cgroup.SetupAgent(); err != nil {
		return err
	}
	reaper := reap.New()
	manager, err := container.NewManager(stateDir, launcher, reaper)
	if err != nil {
		return err
	}
	server := rpc.New(rpc.Options{
		Version:   version,
		Container: manager,
		Ready:     modules.Wait,
		ShutDown: func() {
			time.AfterFunc(powerOffWait, boot.PowerOff)
		},
	})
	listener, err := control(modules)
	if err != nil {
		return err
	}
	klog.Infof("%s serves on %s", version, listener.Addr())
	return server.Serve(listener)
}

// control opens the channel that the kernel's command line names; without a name, the serial port if there is one by
// the time all modules are loaded, else vsock.
func control(modules *boot.Modules) (net.Listener, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	kind := boot.Option("woodlot.control")
	switch kind {
	case "serial":
	case "vsock":
		<-modules.Done()
		return listen.Vsock()
	case "":
		go func() {
			<-modules.Done()
			cancel()
		}()
	default:
		return nil, fmt.Errorf("woodlot.control=%s: not serial or vsock", kind)
	}
	node, err := listen.FindPort(ctx, listen.PortName)
	if errors.Is(err, context.Canceled) {
		if l, err := listen.Vsock(); err == nil {
			return l, nil
		}
		node, err = listen.FindPort(context.Background(), listen.PortName)
	}
	if err != nil {
		return nil, fmt.Errorf("find the control port: %w", err)
	}
	return listen.Serial(node)
}
