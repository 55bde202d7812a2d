package cgroup

import "testing"

func TestMemoryIsCountedAsDockerDoes(t *testing.T) {
	stat := []byte("anon 100\nfile 900\nactive_file 300\ninactive_file 600\n")
	for _, c := range []struct {
		current string
		stat    []byte
		want    uint64
	}{
		{"1000\n", stat, 400},
		{"500\n", stat, 0},
		{"1000\n", nil, 1000},
		{"", stat, 0},
	} {
		if got := memory([]byte(c.current), c.stat); got != c.want {
			t.Errorf("%q: %d", c.current, got)
		}
	}
	if number([]byte("max\n")) != 0 || number([]byte("42\n")) != 42 {
		t.Error("number")
	}
}

func TestDevicesAreAddedUp(t *testing.T) {
	read, written := ioBytes([]byte("254:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0\n254:16 rbytes=1 wbytes=8192 rios=1 wios=2\n7:0 \n"))
	if read != 4097 || written != 8192 {
		t.Error(read, written)
	}
}
