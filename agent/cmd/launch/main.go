// Command launch becomes a container's process; the agent starts it. See package launch.
package main

import (
	"os"
	"runtime"

	"woodlot.dev/agent/internal/launch"
)

// Namespaces and credentials belong to threads: the main goroutine keeps the main one.
func init() { runtime.LockOSThread() }

func main() { os.Exit(launch.Main()) }
