package socket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
)

const chunkBytes = 64 << 10

// Peer is the host's side of a connection.
type Peer interface {
	// Receive gives io.EOF when no more will come.
	Receive() ([]byte, error)
	// Send does not keep its argument.
	Send(data []byte) error
	// End tells that no more will be sent.
	End() error
}

// Carry passes data both ways until both are at their end, or until the connection, the peer or ctx fails. It closes
// the connection. A Receive may still be under way when it returns.
func Carry(ctx context.Context, conn *net.UnixConn, peer Peer) error {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	inward := make(chan error, 1)
	go func() {
		err := receive(conn, peer)
		if err != nil {
			_ = conn.Close() // ends the other direction
		}
		inward <- err
	}()
	if err := send(conn, peer); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return <-inward
}

func receive(conn *net.UnixConn, peer Peer) error {
	for {
		data, err := peer.Receive()
		if errors.Is(err, io.EOF) {
			if err := conn.CloseWrite(); err != nil {
				return fmt.Errorf("end the connection's input: %w", err)
			}
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := conn.Write(data); err != nil {
			return fmt.Errorf("write to the connection: %w", err)
		}
	}
}

func send(conn *net.UnixConn, peer Peer) error {
	buf := make([]byte, chunkBytes)
	for {
		n, err := conn.Read(buf)
		if n > 0 {
			if err := peer.Send(buf[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return peer.End()
		}
		if err != nil {
			return fmt.Errorf("read from the connection: %w", err)
		}
	}
}
