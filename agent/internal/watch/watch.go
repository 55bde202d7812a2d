// Package watch runs the filesystem of package watchfs, a process for each directory: one that fails or hangs is the
// end of its mount, and not that of PID 1.
package watch

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"woodlot.dev/agent/internal/change"
	"woodlot.dev/agent/internal/fail"
	"woodlot.dev/agent/internal/klog"
	"woodlot.dev/agent/internal/reap"
)

const (
	program = "/watchfs"
	// startBound includes the start of a program on an emulated processor.
	startBound = 20 * time.Second
	playBound  = 30 * time.Second
	endBound   = 2 * time.Second
)

// Filesystem is a directory served anew.
type Filesystem struct {
	path  string
	child *reap.Child

	// mu is held while a batch is under way.
	mu      sync.Mutex
	conn    net.Conn
	encoder *json.Encoder
	decoder *json.Decoder
}

// Start serves the directory lower at path.
func Start(reaper *reap.Reaper, lower, path string) (*Filesystem, error) {
	conn, theirs, err := connection()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	// What it says, it says to the console log.
	output, err := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0)
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("open the kernel's log: %w", err)
	}
	defer output.Close()
	child, err := reaper.Start([]string{program, lower, path}, &syscall.ProcAttr{
		Dir:   "/",
		Files: []uintptr{output.Fd(), output.Fd(), output.Fd(), theirs.Fd()},
	})
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	f := &Filesystem{path: path, child: child, conn: conn, encoder: json.NewEncoder(conn), decoder: json.NewDecoder(conn)}
	if err := f.answered(startBound); err != nil {
		return nil, errors.Join(fail.Context("watch changes", err), f.Close())
	}
	return f, nil
}

func connection() (net.Conn, *os.File, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "watch"), os.NewFile(uintptr(pair[1]), "watch")
	defer ours.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		_ = theirs.Close()
		return nil, nil, fmt.Errorf("make a connection: %w", err)
	}
	return conn, theirs, nil
}

func (f *Filesystem) answered(bound time.Duration) error {
	_ = f.conn.SetReadDeadline(time.Now().Add(bound))
	var answer change.Answer
	if err := f.decoder.Decode(&answer); err != nil {
		return fmt.Errorf("the filesystem for changes does not answer: %w", err)
	}
	if answer.Error != "" {
		return errors.New(answer.Error)
	}
	return nil
}

// Play raises the events of changes on the host; they have been raised when it returns.
func (f *Filesystem) Play(changes []change.Change) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.encoder.Encode(change.Batch{Changes: changes}); err != nil {
		return fmt.Errorf("pass changes on: %w", err)
	}
	return f.answered(playBound)
}

// Close unmounts and ends it; nobody uses it any more.
func (f *Filesystem) Close() error {
	err := f.conn.Close()
	select {
	case <-f.child.Done():
	case <-time.After(endBound):
		klog.Warnf("the filesystem at %s does not end", f.path)
		err = errors.Join(err, f.child.Signal(syscall.SIGKILL))
	}
	// It unmounts itself, unless it was killed.
	if gone := unix.Unmount(f.path, unix.MNT_DETACH); !errors.Is(gone, unix.EINVAL) {
		err = errors.Join(err, gone)
	}
	return err
}
