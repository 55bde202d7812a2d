package boot

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"woodlot.dev/agent/internal/klog"
)

const modulesDir = "/modules"

// Modules are the kernel modules of the initramfs, being loaded.
type Modules struct{ done chan struct{} }

// LoadModules starts to load what /modules/load lists, in order; without the file there is nothing to do. Loaded
// modules are removed from root: they are memory.
func LoadModules(root *Root) (*Modules, error) {
	m := &Modules{done: make(chan struct{})}
	list, err := os.Open(filepath.Join(modulesDir, "load"))
	if errors.Is(err, fs.ErrNotExist) {
		close(m.done)
		return m, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open the list of modules: %w", err)
	}
	names, err := parseList(list)
	_ = list.Close()
	if err != nil {
		return nil, err
	}
	go func() {
		defer close(m.done)
		for _, name := range names {
			if err := load(filepath.Join(modulesDir, name)); err != nil {
				klog.Warnf("module %s: %v", name, err)
			}
		}
		for _, name := range names {
			_ = unix.Unlinkat(root.fd, filepath.Join("modules", name), 0)
		}
	}()
	return m, nil
}

func parseList(f *os.File) ([]string, error) {
	var names []string
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		name := strings.TrimSpace(lines.Text())
		if name == "" || name[0] == '#' {
			continue
		}
		if name != filepath.Base(name) {
			return nil, fmt.Errorf("list of modules: %q is not a file name", name)
		}
		names = append(names, name)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read the list of modules: %w", err)
	}
	return names, nil
}

func load(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.FinitModule(fd, "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}

// Done is closed once all modules are loaded, or have failed to.
func (m *Modules) Done() <-chan struct{} { return m.done }

// Wait returns once all modules are loaded.
func (m *Modules) Wait(ctx context.Context) error {
	select {
	case <-m.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
