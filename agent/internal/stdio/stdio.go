// Package stdio joins a process's standard streams to the agent: pipes, or a pseudo-terminal of the container.
package stdio

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// chunkBytes is the most that one message carries.
	chunkBytes = 128 << 10
	pipeBytes  = 256 << 10
	// drainBound is how long output may go on after the process has ended: descendants that live on may hold its
	// streams open for ever (Docker waits as long).
	drainBound = 2 * time.Second
)

// Streams are both ends of a process's standard streams.
type Streams struct {
	// Stdin is nil where the process reads end of file.
	Stdin *os.File
	// Stdout is a pipe, or the terminal.
	Stdout *os.File
	// Stderr is nil for a terminal.
	Stderr *os.File
	// PtyIndex is N of the container's /dev/pts/N.
	PtyIndex uint32

	tty   bool
	child [3]*os.File
}

// NewPipes gives separate pipes; stdin is /dev/null unless wanted.
func NewPipes(stdin bool) (_ *Streams, err error) {
	s := &Streams{}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if stdin {
		if s.child[0], s.Stdin, err = pipe(true); err != nil {
			return nil, err
		}
	} else if s.child[0], err = os.OpenFile(os.DevNull, os.O_RDONLY, 0); err != nil {
		return nil, fmt.Errorf("open %s: %w", os.DevNull, err)
	}
	if s.Stdout, s.child[1], err = pipe(false); err != nil {
		return nil, err
	}
	if s.Stderr, s.child[2], err = pipe(false); err != nil {
		return nil, err
	}
	return s, nil
}

// pipe gives both ends of a pipe; ours, the writing one if weWrite, does not block.
func pipe(weWrite bool) (r, w *os.File, err error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, fmt.Errorf("pipe: %w", err)
	}
	// A bigger pipe means fewer wake-ups; the kernel may refuse, then it stays at 64 KiB.
	_, _ = unix.FcntlInt(uintptr(p[1]), unix.F_SETPIPE_SZ, pipeBytes)
	ours := p[0]
	if weWrite {
		ours = p[1]
	}
	if err := unix.SetNonblock(ours, true); err != nil {
		_, _ = unix.Close(p[0]), unix.Close(p[1])
		return nil, nil, fmt.Errorf("set a pipe non-blocking: %w", err)
	}
	return os.NewFile(uintptr(p[0]), "pipe"), os.NewFile(uintptr(p[1]), "pipe"), nil
}

// NewTerminal allocates a pseudo-terminal in the devpts that the descriptor pts is the root of.
func NewTerminal(pts int, rows, columns uint16) (_ *Streams, err error) {
	fd, err := unix.Openat(pts, "ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("allocate a terminal: %w", err)
	}
	s := &Streams{tty: true, Stdout: os.NewFile(uintptr(fd), "ptmx")}
	s.Stdin = s.Stdout
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return nil, fmt.Errorf("unlock the terminal: %w", err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		return nil, fmt.Errorf("number of the terminal: %w", err)
	}
	s.PtyIndex = uint32(n)
	slave, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return nil, fmt.Errorf("open the terminal's other side: %w", errno)
	}
	file := os.NewFile(slave, "pts")
	s.child = [3]*os.File{file, file, file}
	if rows > 0 || columns > 0 {
		if err := s.Resize(rows, columns); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// ChildFds are the process's ends, in order 0, 1, 2; valid until CloseChild.
func (s *Streams) ChildFds() []int {
	return []int{int(s.child[0].Fd()), int(s.child[1].Fd()), int(s.child[2].Fd())}
}

// CloseChild closes the process's ends, once it has them.
func (s *Streams) CloseChild() {
	for i, f := range s.child {
		if f != nil && (i == 0 || f != s.child[0]) {
			_ = f.Close()
		}
	}
	s.child = [3]*os.File{}
}

// Close closes all that is still open.
func (s *Streams) Close() {
	s.CloseChild()
	for _, f := range []*os.File{s.Stdin, s.Stdout, s.Stderr} {
		if f != nil {
			_ = f.Close()
		}
	}
}

// CloseInput gives the process end of file: the pipe's, or the terminal's end-of-file character.
func (s *Streams) CloseInput() error {
	if s.Stdin == nil {
		return nil
	}
	if !s.tty {
		if err := s.Stdin.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			return fmt.Errorf("close stdin: %w", err)
		}
		return nil
	}
	eof := byte(4)
	if err := control(s.Stdin, func(fd int) error {
		t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		if err == nil {
			eof = t.Cc[unix.VEOF]
		}
		return err
	}); err != nil {
		return fmt.Errorf("read the terminal's settings: %w", err)
	}
	if _, err := s.Stdin.Write([]byte{eof}); err != nil {
		return fmt.Errorf("write end of file to the terminal: %w", err)
	}
	return nil
}

// Resize sets the terminal's size; without a terminal it does nothing.
func (s *Streams) Resize(rows, columns uint16) error {
	if !s.tty {
		return nil
	}
	err := control(s.Stdout, func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns})
	})
	if err != nil {
		return fmt.Errorf("resize the terminal: %w", err)
	}
	return nil
}

// control calls f with the descriptor, which stays non-blocking (Fd would change that).
func control(file *os.File, f func(fd int) error) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = f(int(fd)) }); err != nil {
		return err
	}
	return inner
}

// Pump passes what comes out of r to send until end of file. From the moment ended is closed it goes on for 2 s at
// most, and then gives what lies ready. send must not keep its argument. The error is send's, or the read's.
func Pump(r *os.File, ended <-chan struct{}, send func([]byte) error) error {
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		select {
		case <-ended:
			_ = r.SetReadDeadline(time.Now().Add(drainBound))
		case <-stop:
		}
	}()
	buf := make([]byte, chunkBytes)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if err := send(buf[:n]); err != nil {
				return err
			}
		}
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded):
			return drain(r, buf, send)
		case errors.Is(err, io.EOF), errors.Is(err, unix.EIO), errors.Is(err, os.ErrClosed): // EIO: a terminal's end
			return nil
		default:
			return fmt.Errorf("read output: %w", err)
		}
	}
}

// drain gives what is in the pipe now, though writers may add to it for ever.
func drain(r *os.File, buf []byte, send func([]byte) error) error {
	for left := pipeBytes; left > 0; {
		n := 0
		err := control(r, func(fd int) error {
			var err error
			n, err = unix.Read(fd, buf)
			return err
		})
		if err != nil || n <= 0 {
			return nil
		}
		if err := send(buf[:n]); err != nil {
			return err
		}
		left -= n
	}
	return nil
}
