// Package share mounts what the host gives a container beside its root filesystem: virtiofs shares and disks. They
// are mounted in the agent's own tree, from which the container's mounts are cloned: so a filesystem whose server is
// gone is never unmounted by a process that ends, where it would wait for ever.
package share

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"woodlot.dev/agent/internal/change"
	"woodlot.dev/agent/internal/copyup"
	"woodlot.dev/agent/internal/disk"
	"woodlot.dev/agent/internal/fail"
	"woodlot.dev/agent/internal/klog"
	"woodlot.dev/agent/internal/reap"
	"woodlot.dev/agent/internal/uevent"
	"woodlot.dev/agent/internal/watch"
)

const (
	// unmountBound is how long a server on the host may take to take the last writes.
	unmountBound = 5 * time.Second
	abortBound   = 2 * time.Second
	plugBound    = 10 * time.Second
	// fsDevice is VIRTIO_ID_FS of linux/virtio_ids.h, as sysfs writes it.
	fsDevice      = "0x001a"
	watchedSuffix = "-watched"
)

// Spec is one mount of a container that comes from the host.
type Spec struct {
	// Type is virtiofs or ext4; Source the device's tag or the disk's serial.
	Type, Source string
	// Name is what is mounted in place of the filesystem's root.
	Name        string
	Destination string
	ReadOnly    bool
	CopyUp      bool
	// CutShort tells that an earlier copy has left a part.
	CutShort bool
	// Watch: what changes on the host is told; of virtiofs.
	Watch bool
	// Index of the mount in the container's list.
	Index int
}

type filesystem struct {
	fsType, source, path string
	// watched lies above it, if the host tells of changes.
	watched *watch.Filesystem
}

// below is where the filesystem itself is mounted.
func (f *filesystem) below() string { return strings.TrimSuffix(f.path, watchedSuffix) }

// Mounted are shares in place.
type Mounted struct {
	// Paths in the agent's tree, by Spec.Index.
	Paths map[int]string
	dir   string
	// reaper starts the filesystems that watch.
	reaper *reap.Reaper
	// readOnly tells of each disk whether nobody writes to it.
	readOnly map[string]bool
	systems  []*filesystem
}

// Mount mounts every share below dir and copies up from the root filesystem what is wanted. After a failure nothing
// stays mounted.
func Mount(ctx context.Context, dir, rootfs string, reaper *reap.Reaper, list []Spec) (_ *Mounted, err error) {
	m := &Mounted{
		Paths: make(map[int]string), dir: filepath.Join(dir, "shares"), readOnly: make(map[string]bool), reaper: reaper,
	}
	for _, s := range list {
		known, ok := m.readOnly[s.Source]
		m.readOnly[s.Source] = s.ReadOnly && !s.CopyUp && (known || !ok)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.Unmount())
		}
	}()
	filled := make(map[string]bool)
	for _, s := range list {
		f, err := m.filesystem(ctx, s)
		if err != nil {
			return nil, fail.Context("mount for "+s.Destination, err)
		}
		path := f.path
		if s.Name != "" {
			path = filepath.Join(f.path, s.Name)
			if err := os.Mkdir(path, 0o755); err != nil && !errors.Is(err, os.ErrExist) && !s.ReadOnly {
				return nil, fail.Wrap(fail.FailedPrecondition, "make the volume's directory for "+s.Destination, err)
			}
		}
		if s.CopyUp && !filled[path] {
			// Of several mounts of a volume, the first with something below it fills it.
			if filled[path], err = copyup.Fill(ctx, rootfs, s.Destination, path, s.CutShort); err != nil {
				return nil, fail.Context("fill the volume at "+s.Destination+" with the image's files", err)
			}
		}
		m.Paths[s.Index] = path
	}
	return m, nil
}

// filesystem gives the one of the spec's source, mounted once.
func (m *Mounted) filesystem(ctx context.Context, s Spec) (*filesystem, error) {
	for _, f := range m.systems {
		if f.fsType == s.Type && f.source == s.Source {
			return f, nil
		}
	}
	f := &filesystem{fsType: s.Type, source: s.Source, path: filepath.Join(m.dir, strconv.Itoa(len(m.systems)))}
	if err := os.MkdirAll(f.path, 0o700); err != nil {
		return nil, fmt.Errorf("make mount point: %w", err)
	}
	device, data, flags := s.Source, "", uintptr(unix.MS_NODEV)
	if s.Type == "ext4" {
		var err error
		if device, err = disk.Find(ctx, s.Source); err != nil {
			return nil, err
		}
		data = "discard,noinit_itable"
		if m.readOnly[s.Source] {
			flags |= unix.MS_RDONLY
		}
	}
	mount := func() error { return unix.Mount(device, f.path, s.Type, flags, data) }
	if s.Type == "virtiofs" {
		mount = func() error { return whenPlugged(ctx, device, f.path, flags) }
	}
	if err := mount(); err != nil {
		return nil, fail.Wrap(fail.FailedPrecondition, fmt.Sprintf("mount %s %q", s.Type, s.Source), explain(s, err))
	}
	m.systems = append(m.systems, f)
	if s.Watch {
		below := f.path
		f.path += watchedSuffix
		if err := os.Mkdir(f.path, 0o700); err != nil {
			return nil, fmt.Errorf("make mount point: %w", err)
		}
		var err error
		if f.watched, err = watch.Start(m.reaper, below, f.path); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// whenPlugged mounts a virtiofs share once its device is there: in a restored guest it is plugged in while we run.
func whenPlugged(ctx context.Context, tag, path string, flags uintptr) error {
	bounded, cancel := context.WithTimeout(ctx, plugBound)
	defer cancel()
	err := uevent.Wait(bounded, func() (bool, error) {
		// A tag that no device has is an invalid argument.
		if err := unix.Mount(tag, path, "virtiofs", flags, ""); !errors.Is(err, unix.EINVAL) {
			return err == nil, err
		}
		return false, nil
	})
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return unix.EINVAL
	}
	return err
}

// Play raises the events of what changed on the host.
func (m *Mounted) Play(source string, changes []change.Change) error {
	for _, f := range m.systems {
		if f.source == source && f.watched != nil {
			return f.watched.Play(changes)
		}
	}
	return fail.New(fail.NotFound, fmt.Sprintf("the share %q is not watched", source))
}

func explain(s Spec, err error) error {
	switch {
	case errors.Is(err, unix.ENODEV):
		return fmt.Errorf("the guest kernel has no such filesystem: %w", err)
	case errors.Is(err, unix.EINVAL) && s.Type == "virtiofs":
		return fmt.Errorf("there is no such device: %w", err)
	case errors.Is(err, unix.EROFS) && s.ReadOnly:
		return fmt.Errorf("it was not closed in order; mount it writable once: %w", err)
	}
	return err
}

// Abort takes the driver off the virtio-fs device at a position among them, in PCI order: its server is gone. Who uses it
// from now on gets an error. Requests that the server had taken can be ended by nobody, and the driver waits for them:
// then that fails, and only the end of the machine helps.
func Abort(index uint32) error {
	devices, err := virtioDevices("/sys/bus/virtio/devices", fsDevice)
	if err != nil {
		return err
	}
	if index >= uint32(len(devices)) {
		return fail.New(fail.NotFound, fmt.Sprintf("there are %d virtio-fs devices, asked for %d", len(devices), index))
	}
	device := devices[index]
	err = Within(abortBound, func() error {
		return os.WriteFile(filepath.Join(device, "driver/unbind"), []byte(filepath.Base(device)), 0)
	})
	return fail.Context("take the driver off "+filepath.Base(device), err)
}

// virtioDevices gives the directories of devices of a kind, sorted by where they are: 0000:00:09.0/virtio7.
func virtioDevices(bus, kind string) ([]string, error) {
	entries, err := os.ReadDir(bus)
	if err != nil {
		return nil, fmt.Errorf("list the virtio devices: %w", err)
	}
	var found []string
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(bus, e.Name(), "device"))
		if err != nil || strings.TrimSpace(string(b)) != kind {
			continue
		}
		path, err := filepath.EvalSymlinks(filepath.Join(bus, e.Name()))
		if err != nil {
			return nil, fmt.Errorf("resolve %s: %w", e.Name(), err)
		}
		found = append(found, path)
	}
	slices.Sort(found)
	return found, nil
}

// Unmount takes everything off again, disks first, so that all data is where it belongs; it goes on after an error and
// does not wait for a server that does not answer.
func (m *Mounted) Unmount() error {
	var errs []error
	for _, kind := range []string{"ext4", "virtiofs"} {
		for i := len(m.systems) - 1; i >= 0; i-- {
			f := m.systems[i]
			if f.fsType != kind {
				continue
			}
			if f.watched != nil {
				if err := f.watched.Close(); err != nil {
					errs = append(errs, err)
				}
			}
			if err := Within(unmountBound, func() error { return unix.Unmount(f.below(), 0) }); err != nil {
				errs = append(errs, fmt.Errorf("unmount %s %q: %w", f.fsType, f.source, err))
			}
		}
	}
	m.systems = nil
	return errors.Join(errs...)
}

// Within runs f, which may be beyond interruption, and stops waiting for it after a time.
func Within(bound time.Duration, f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-time.After(bound):
		klog.Warnf("a filesystem's server does not answer")
		return fail.New(fail.FailedPrecondition, "its server on the host does not answer")
	}
}

// CheckName sees that name is empty or a plain file name.
func CheckName(name string) error {
	if name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return fail.New(fail.InvalidArgument, fmt.Sprintf("%q is not a file name", name))
	}
	return nil
}
