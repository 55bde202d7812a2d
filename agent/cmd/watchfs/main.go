// Command watchfs serves a filesystem whose changes on the host can be heard of; the agent starts it. See package
// watchfs.
package main

import (
	"os"

	"woodlot.dev/agent/internal/watchfs"
)

func main() { os.Exit(watchfs.Main()) }
