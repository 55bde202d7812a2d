// Package rootfs mounts a container's root: an EROFS image below, an ext4 disk above, joined by overlayfs.
package rootfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"woodlot.dev/agent/internal/disk"
	"woodlot.dev/agent/internal/fail"
	"woodlot.dev/agent/internal/trace"
)

const freeBound = 2 * time.Second

// Mounted is a root filesystem in place.
type Mounted struct {
	// Path is where it is mounted; Image and Upper are the directories it is made of, below and above.
	Path, Image, Upper string
	// undo holds mount points, the last mounted last.
	undo []string
	// disks are the block devices below.
	disks []string
}

// Mount builds the root filesystem below dir. Without an upper serial the writes go to memory. After a failure nothing
// stays mounted.
func Mount(ctx context.Context, dir, imageSerial, upperSerial string) (_ *Mounted, err error) {
	m := &Mounted{Path: filepath.Join(dir, "rootfs")}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.Unmount())
		}
	}()
	image, upper := filepath.Join(dir, "image"), filepath.Join(dir, "upper")
	m.Image, m.Upper = image, filepath.Join(upper, "upper")
	if imageSerial == "" {
		return nil, fail.New(fail.InvalidArgument, "rootfs.image_serial is empty")
	}
	if err := m.mountDisk(ctx, imageSerial, image, "erofs", unix.MS_RDONLY|unix.MS_NODEV|unix.MS_NOATIME, ""); err != nil {
		return nil, err
	}
	if upperSerial == "" {
		err = m.mount("tmpfs", upper, "tmpfs", unix.MS_NODEV, "mode=0755")
	} else {
		err = m.mountDisk(ctx, upperSerial, upper, "ext4", unix.MS_NOATIME|unix.MS_NODEV, "discard,noinit_itable")
	}
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"upper", "work"} {
		if err := os.Mkdir(filepath.Join(upper, name), 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, fmt.Errorf("make the overlay's directory: %w", err)
		}
	}
	// The upper directory's attributes are those of the container's "/": they start as the image's.
	if err := copyAttributes(image, m.Upper); err != nil {
		return nil, err
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work,index=off,metacopy=off,redirect_dir=off,xino=off",
		image, upper, upper)
	if err := m.mount("overlay", m.Path, "overlay", 0, options); err != nil {
		return nil, err
	}
	return m, nil
}

func copyAttributes(from, to string) error {
	var st unix.Stat_t
	if err := unix.Stat(from, &st); err != nil {
		return fmt.Errorf("stat the image's root: %w", err)
	}
	if err := unix.Chown(to, int(st.Uid), int(st.Gid)); err != nil {
		return fmt.Errorf("chown the overlay's directory: %w", err)
	}
	if err := unix.Chmod(to, st.Mode&0o7777); err != nil {
		return fmt.Errorf("chmod the overlay's directory: %w", err)
	}
	return nil
}

func (m *Mounted) mountDisk(ctx context.Context, serial, target, fsType string, flags uintptr, data string) error {
	found := trace.Begin("find disk " + serial)
	node, err := disk.Find(ctx, serial)
	found()
	if err != nil {
		return err
	}
	if err := m.mount(node, target, fsType, flags, data); err != nil {
		return fail.Context(fmt.Sprintf("disk %q", serial), err)
	}
	m.disks = append(m.disks, node)
	return nil
}

func (m *Mounted) mount(source, target, fsType string, flags uintptr, data string) error {
	defer trace.Begin("mount " + fsType)()
	if err := os.MkdirAll(target, 0o755); err != nil {
		return fmt.Errorf("make mount point: %w", err)
	}
	if err := unix.Mount(source, target, fsType, flags, data); err != nil {
		return fail.Wrap(fail.FailedPrecondition, fmt.Sprintf("mount %s on %s as %s", source, target, fsType), explain(err))
	}
	m.undo = append(m.undo, target)
	return nil
}

func explain(err error) error {
	switch {
	case errors.Is(err, unix.ENODEV):
		return fmt.Errorf("the guest kernel has no such filesystem: %w", err)
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("the disk holds no filesystem of that type, or one the kernel cannot read: %w", err)
	case errors.Is(err, unix.EUCLEAN):
		return fmt.Errorf("the filesystem is damaged: %w", err)
	}
	return err
}

// Unmount takes everything off again, last first, so that all data is on the disks; it goes on after an error.
func (m *Mounted) Unmount() error {
	var errs []error
	for len(m.undo) > 0 {
		target := m.undo[len(m.undo)-1]
		if err := unix.Unmount(target, 0); err != nil {
			errs = append(errs, fmt.Errorf("unmount %s: %w", target, err))
			if err := unix.Unmount(target, unix.MNT_DETACH); err != nil {
				errs = append(errs, fmt.Errorf("detach %s: %w", target, err))
			}
		}
		m.undo = m.undo[:len(m.undo)-1]
	}
	for _, node := range m.disks {
		if err := awaitFree(node); err != nil {
			errs = append(errs, err)
		}
	}
	m.disks = nil
	return errors.Join(errs...)
}

// awaitFree returns once no filesystem uses the disk: the last references to a mount go with the processes that had
// it, a moment after them. The kernel has no event for it.
func awaitFree(node string) error {
	var err error
	for end := time.Now().Add(freeBound); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		var fd int
		if fd, err = unix.Open(node, unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0); err == nil {
			return unix.Close(fd)
		}
		if !errors.Is(err, unix.EBUSY) {
			break
		}
	}
	return fmt.Errorf("%s is still in use: %w", node, err)
}
