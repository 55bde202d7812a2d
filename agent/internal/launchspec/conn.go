package launchspec

import (
	"encoding/binary"
	"io"

	"golang.org/x/sys/unix"

	"woodlot.dev/agent/internal/fail"
)

// Kind is the first byte of a message.
type Kind byte

// Messages. The agent's: Prepare (of a launch in new namespaces, the first thing: what needs no container), Setup, Join (descriptor: pidfd of the container's first process), Init (fork: the parent
// stays as init, the child goes on), Exec (descriptors: stdin, stdout, stderr). Launch's: Ready (after
// Prepare; after Setup, with descriptors of / and /dev/pts), Failed. A successful exec closes the socket.
const (
	MsgPrepare Kind = 'p'
	MsgSetup   Kind = 's'
	MsgJoin    Kind = 'j'
	MsgInit    Kind = 'i'
	MsgExec    Kind = 'x'
	MsgReady   Kind = 'r'
	MsgFailed  Kind = 'f'
)

const (
	headerLen = 5
	maxBody   = 8 << 20
	maxFds    = 4
)

// Send writes one message to the blocking stream socket fd; fds are duplicated to the peer.
func Send(fd int, kind Kind, body []byte, fds ...int) error {
	header := [headerLen]byte{byte(kind)}
	binary.LittleEndian.PutUint32(header[1:], uint32(len(body)))
	msg := append(header[:], body...)
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	for len(msg) > 0 {
		n, err := unix.SendmsgN(fd, msg, rights, nil, unix.MSG_NOSIGNAL)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fail.Wrap(fail.Internal, "write to the launch socket", err)
		}
		msg, rights = msg[n:], nil
	}
	return nil
}

// Receive reads one message; io.EOF when the peer is gone. The descriptors are the caller's, close-on-exec.
func Receive(fd int) (Kind, []byte, []int, error) {
	var header [headerLen]byte
	oob := make([]byte, unix.CmsgSpace(maxFds*4))
	fds, err := readFull(fd, header[:], oob)
	if err != nil {
		return 0, nil, nil, err
	}
	n := binary.LittleEndian.Uint32(header[1:])
	if n > maxBody {
		closeAll(fds)
		return 0, nil, nil, fail.New(fail.Internal, "oversized message on the launch socket")
	}
	body := make([]byte, n)
	if _, err := readFull(fd, body, nil); err != nil {
		closeAll(fds)
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, nil, err
	}
	return Kind(header[0]), body, fds, nil
}

func readFull(fd int, b, oob []byte) ([]int, error) {
	var fds []int
	for len(b) > 0 {
		n, oobn, _, _, err := unix.Recvmsg(fd, b, oob, unix.MSG_CMSG_CLOEXEC)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			closeAll(fds)
			if err == nil || err == unix.ECONNRESET {
				return nil, io.EOF
			}
			return nil, fail.Wrap(fail.Internal, "read from the launch socket", err)
		}
		if oobn > 0 {
			fds = append(fds, parseRights(oob[:oobn])...)
		}
		b = b[n:]
	}
	return fds, nil
}

func parseRights(oob []byte) []int {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	var fds []int
	for i := range messages {
		if got, err := unix.ParseUnixRights(&messages[i]); err == nil {
			fds = append(fds, got...)
		}
	}
	return fds
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}

// EncodeError gives the body of MsgFailed.
func EncodeError(err error) []byte {
	return append([]byte{byte(fail.KindOf(err))}, err.Error()...)
}

// DecodeError reads the body of MsgFailed.
func DecodeError(body []byte) error {
	if len(body) == 0 {
		return fail.New(fail.Internal, "launch failed without a reason")
	}
	return fail.New(fail.Kind(body[0]), string(body[1:]))
}
