package watchfs

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"runtime"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"woodlot.dev/agent/internal/change"
)

const (
	maxRequestBytes = 256 << 10
	maxFiles        = 1 << 20
)

// Main serves the directory os.Args[1] at os.Args[2] until its end of the socket on descriptor 3 is closed; it is told of
// changes there.
func Main() int {
	log.SetFlags(0)
	log.SetPrefix("woodlot-watchfs: ")
	if len(os.Args) != 3 {
		log.Print("is started by the agent of a micro-VM")
		return 2
	}
	if err := serve(os.Args[1], os.Args[2], os.NewFile(3, "control")); err != nil {
		log.Print(err)
		return 1
	}
	return 0
}

func serve(lower, mount string, control io.ReadWriter) error {
	answers := json.NewEncoder(control)
	err := prepare()
	var f *filesystem
	if err == nil {
		f, err = mounted(lower, mount)
	}
	if err != nil {
		return errors.Join(err, answers.Encode(change.Answer{Error: err.Error()}))
	}
	if err := answers.Encode(change.Answer{}); err != nil {
		return errors.Join(err, f.close())
	}
	changes := json.NewDecoder(control)
	for {
		var batch change.Batch
		if err := changes.Decode(&batch); err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return errors.Join(err, f.close())
		}
		var answer change.Answer
		if err := f.tree.player.play(batch.Changes); err != nil {
			answer.Error = err.Error()
		}
		if err := answers.Encode(answer); err != nil {
			return errors.Join(err, f.close())
		}
	}
}

// filesystem is a tree that is being served.
type filesystem struct {
	tree   *tree
	server *fuse.Server
	mount  string
}

// mounted serves lower at mount. The calling goroutine, which stays on its thread, is the one to raise events.
func mounted(lower, mount string) (*filesystem, error) {
	fd, err := unix.Open(lower, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", lower, err)
	}
	t, err := newTree(fd)
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("look at %s: %w", lower, err)
	}
	server, err := fuse.NewServer(t, mount, &fuse.MountOptions{
		FsName: "watched", Name: "woodlot",
		AllowOther: true, Options: []string{"default_permissions"},
		DirectMountStrict: true, DirectMountFlags: unix.MS_NODEV,
		MaxWrite: maxRequestBytes, MaxBackground: 64,
	})
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("mount on %s: %w", mount, err)
	}
	t.player.notify = server
	go server.Serve()
	f := &filesystem{t, server, mount}
	if err := t.player.start(mount); err != nil {
		return nil, errors.Join(err, f.close())
	}
	return f, nil
}

// prepare makes this process one that can act for any user, and keep a descriptor for each file that the kernel knows.
func prepare() error {
	unix.Umask(0)
	limit := unix.Rlimit{Cur: maxFiles, Max: maxFiles}
	err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	if errors.Is(err, unix.EPERM) { // outside a guest, root may be short of capabilities
		if err = unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err == nil {
			limit.Cur = limit.Max
			err = unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
		}
	}
	if err != nil {
		return fmt.Errorf("raise the limit of open files: %w", err)
	}
	return nil
}

// close unmounts; what is still open goes on until it is closed, or until the process ends.
func (f *filesystem) close() error {
	f.tree.player.stop()
	runtime.UnlockOSThread()
	if err := unix.Unmount(f.mount, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %s: %w", f.mount, err)
	}
	return nil
}
