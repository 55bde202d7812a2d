package share

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

func TestVirtioDevicesAreInPCIOrder(t *testing.T) {
	dir := t.TempDir()
	bus := filepath.Join(dir, "bus")
	if err := os.Mkdir(bus, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, device := range map[string][2]string{
		"virtio10": {"pci/0000:00:08.0", "0x001a\n"},
		"virtio2":  {"pci/0000:00:0a.0", "0x001a\n"},
		"virtio1":  {"pci/0000:00:03.0", "0x0002\n"},
	} {
		real := filepath.Join(dir, device[0], name)
		if err := os.MkdirAll(real, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(real, "device"), []byte(device[1]), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(real, filepath.Join(bus, name)); err != nil {
			t.Fatal(err)
		}
	}
	got, err := virtioDevices(bus, fsDevice)
	want := []string{filepath.Join(dir, "pci/0000:00:08.0/virtio10"), filepath.Join(dir, "pci/0000:00:0a.0/virtio2")}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v", got, err)
	}
}

func TestCheckName(t *testing.T) {
	for _, name := range []string{".", "..", "a/b", "/", "a\x00"} {
		if CheckName(name) == nil {
			t.Errorf("%q went through", name)
		}
	}
	for _, name := range []string{"", "file", "data"} {
		if err := CheckName(name); err != nil {
			t.Error(err)
		}
	}
}
