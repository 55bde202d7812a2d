// Package uevent listens to the kernel's device events.
package uevent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Wait calls found now and after every device event until it says true or fails, or ctx ends.
// It subscribes before the first call, so nothing that appears between is missed.
func Wait(ctx context.Context, found func() (bool, error)) error {
	if ok, err := found(); ok || err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return fmt.Errorf("uevent socket: %w", err)
	}
	f := os.NewFile(uintptr(fd), "uevent")
	defer f.Close()
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		return fmt.Errorf("bind uevent socket: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	buf := make([]byte, 16<<10)
	for {
		if ok, err := found(); ok || err != nil {
			return err
		}
		_, err := f.Read(buf)
		switch {
		case err == nil, errors.Is(err, unix.ENOBUFS): // events were lost: look again
		case ctx.Err() != nil:
			return ctx.Err()
		default:
			return fmt.Errorf("read uevents: %w", err)
		}
	}
}
