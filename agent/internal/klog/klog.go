// Package klog writes the agent's few words to the kernel's log, which the host keeps as the console log.
package klog

import (
	"fmt"
	"os"
	"strings"
	"sync"
)

const prefix = "woodlot-agent: "

var (
	mu   sync.Mutex
	sink *os.File
)

// Open sends later messages to /dev/kmsg; before it, and where it fails, they go to stderr, the console.
func Open() {
	f, err := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0)
	if err != nil {
		return
	}
	mu.Lock()
	defer mu.Unlock()
	sink = f
}

func write(level int, text string) {
	text = strings.ReplaceAll(text, "\n", " | ")
	if len(text) > 800 { // the kernel cuts a record near 1000
		text = text[:800] + "…"
	}
	mu.Lock()
	defer mu.Unlock()
	if sink == nil {
		fmt.Fprintln(os.Stderr, prefix+text)
		return
	}
	fmt.Fprintf(sink, "<%d>%s%s\n", level, prefix, text)
}

// Infof logs what a quiet console does not show.
func Infof(format string, args ...any) { write(6, fmt.Sprintf(format, args...)) }

// Warnf logs what went wrong and was survived.
func Warnf(format string, args ...any) { write(4, fmt.Sprintf(format, args...)) }

// Fatalf logs and ends the agent; the kernel then panics and the VM ends.
func Fatalf(format string, args ...any) {
	write(0, "fatal: "+fmt.Sprintf(format, args...))
	os.Exit(1)
}
