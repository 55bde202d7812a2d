// Package disk finds virtio-blk disks by their serial.
package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"woodlot.dev/agent/internal/fail"
	"woodlot.dev/agent/internal/uevent"
)

const waitBound = 10 * time.Second

// Find gives the device node of the disk with a serial, waiting up to 10 s for it to be plugged. What the kernel may
// remember of its contents is dropped: a restored guest can have another file behind the same device.
func Find(ctx context.Context, serial string) (string, error) {
	bounded, cancel := context.WithTimeout(ctx, waitBound)
	defer cancel()
	var node string
	err := uevent.Wait(bounded, func() (bool, error) {
		name, ok := scan("/sys/block", serial)
		if !ok {
			return false, nil
		}
		node = filepath.Join("/dev", name)
		_, err := os.Lstat(node)
		return err == nil, nil
	})
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return "", fail.New(fail.NotFound, fmt.Sprintf("no disk with serial %q appeared within %s", serial, waitBound))
	}
	if err != nil {
		return "", err
	}
	return node, dropCache(node)
}

func scan(sysBlock, serial string) (string, bool) {
	entries, err := os.ReadDir(sysBlock)
	if err != nil {
		return "", false
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(sysBlock, e.Name(), "serial"))
		if err == nil && strings.TrimRight(string(b), "\x00\n") == serial {
			return e.Name(), true
		}
	}
	return "", false
}

func dropCache(node string) error {
	fd, err := unix.Open(node, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", node, err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.IoctlSetInt(fd, unix.BLKFLSBUF, 0); err != nil {
		return fmt.Errorf("drop cached blocks of %s: %w", node, err)
	}
	return nil
}
