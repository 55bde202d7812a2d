package launchspec

import (
	"errors"
	"io"
	"os"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"woodlot.dev/agent/internal/fail"
)

func TestSetupRoundTrip(t *testing.T) {
	want := &Setup{
		Rootfs: "/r", ReadOnly: true, Hostname: "h", ShmBytes: 1 << 40,
		Mounts: []Mount{{"tmpfs", "s", "/d", 6, "size=1", ""}, {Type: Socket, Owner: "www:web"}}, Masked: []string{"/a", ""}, Readonly: []string{"/b"},
		EtcDir: "/e", EtcFiles: []string{"hosts"}, Sysctls: []KV{{"k", "v"}},
	}
	got, err := DecodeSetup(want.Encode())
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestProcessRoundTrip(t *testing.T) {
	want := &Process{
		Args: []string{"a", ""}, Env: []string{"X=1"}, Cwd: "/", User: "u:g", First: true, Tty: true, PtyIndex: 9,
		Caps: 1<<40 | 1, NoNewPriv: true, Seccomp: true, Rlimits: []Rlimit{{7, 1, 1<<64 - 1}},
	}
	got, err := DecodeProcess(want.Encode())
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestDecodeNeverPanics(t *testing.T) {
	whole := (&Process{Args: []string{"abc"}, Env: []string{"d"}, Rlimits: []Rlimit{{1, 2, 3}}}).Encode()
	for cut := range whole {
		if _, err := DecodeProcess(whole[:cut]); err == nil {
			t.Errorf("%d of %d bytes were taken for a whole message", cut, len(whole))
		}
		bent := append([]byte(nil), whole...)
		bent[cut] = 0xff
		_, _ = DecodeProcess(bent)
		_, _ = DecodeSetup(bent)
	}
	if _, err := DecodeProcess(append(whole, 0)); err == nil {
		t.Error("a byte too many was ignored")
	}
}

func socketpair(t *testing.T) (a, b int) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeAll(pair[:]) })
	return pair[0], pair[1]
}

func TestMessagesCarryDescriptors(t *testing.T) {
	a, b := socketpair(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	body := []byte(strings.Repeat("x", 1<<20))
	sent := make(chan error, 1)
	go func() { sent <- Send(a, MsgExec, body, int(w.Fd())) }()
	kind, got, fds, err := Receive(b)
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	if err != nil || kind != MsgExec || len(got) != len(body) || len(fds) != 1 {
		t.Fatalf("%c, %d bytes, %v, %v", kind, len(got), fds, err)
	}
	_ = w.Close()
	if _, err := unix.Write(fds[0], []byte("hi")); err != nil {
		t.Fatal(err)
	}
	_ = unix.Close(fds[0])
	if b, err := io.ReadAll(r); string(b) != "hi" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
}

func TestReceiveAtTheEnd(t *testing.T) {
	a, b := socketpair(t)
	if _, err := unix.Write(a, []byte{'x', 9, 0, 0, 0, 'p'}); err != nil {
		t.Fatal(err)
	}
	_ = unix.Shutdown(a, unix.SHUT_WR)
	if _, _, _, err := Receive(b); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("half a message: %v", err)
	}
	if _, _, _, err := Receive(b); !errors.Is(err, io.EOF) {
		t.Errorf("no message: %v", err)
	}
}

func TestErrorRoundTrip(t *testing.T) {
	err := DecodeError(EncodeError(fail.Wrap(fail.NotFound, "exec x", unix.ENOENT)))
	if fail.KindOf(err) != fail.NotFound || err.Error() != "exec x: no such file or directory" {
		t.Error(err)
	}
	if DecodeError(nil) == nil {
		t.Error("no body, no error")
	}
}
