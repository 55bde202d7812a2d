package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"google.golang.org/grpc"

	"woodlot.dev/agent/internal/pb"
	"woodlot.dev/agent/internal/socket"
)

type connectionStream = grpc.BidiStreamingServer[pb.ConnectionRequest, pb.ConnectionResponse]

// Connect connects to a socket in the container.
func (s *server) Connect(stream pb.Agent_ConnectServer) error {
	return carry(stream, func(_ context.Context, path string) (*net.UnixConn, error) {
		if err := checkPath("socket", path); err != nil {
			return nil, err
		}
		return s.Container.Connect(path)
	})
}

// Accept waits for a connection to a socket that the host has mounted.
func (s *server) Accept(stream pb.Agent_AcceptServer) error {
	return carry(stream, s.Container.Accept)
}

func carry(stream connectionStream, open func(ctx context.Context, socket string) (*net.UnixConn, error)) error {
	first, err := stream.Recv()
	if err != nil {
		return toStatus(fmt.Errorf("read the first request: %w", err))
	}
	name, ok := first.GetRequest().(*pb.ConnectionRequest_Socket)
	if !ok {
		return toStatus(invalid("the first request must be socket"))
	}
	conn, err := open(stream.Context(), name.Socket)
	if err != nil {
		return toStatus(err)
	}
	if err := stream.Send(&pb.ConnectionResponse{Response: &pb.ConnectionResponse_Opened_{
		Opened: &pb.ConnectionResponse_Opened{},
	}}); err != nil {
		_ = conn.Close()
		return toStatus(err)
	}
	return toStatus(socket.Carry(stream.Context(), conn, hostPeer{stream}))
}

// hostPeer is the host's side of a connection's stream.
type hostPeer struct{ stream connectionStream }

var _ socket.Peer = hostPeer{}

func (h hostPeer) Receive() ([]byte, error) {
	m, err := h.stream.Recv()
	if errors.Is(err, io.EOF) {
		return nil, io.EOF
	}
	if err != nil {
		return nil, fmt.Errorf("receive from the host: %w", err)
	}
	data, ok := m.GetRequest().(*pb.ConnectionRequest_Data)
	if !ok {
		return nil, invalid("only the first request may be socket, and none may be empty")
	}
	return data.Data, nil
}

func (h hostPeer) Send(data []byte) error {
	return h.stream.Send(&pb.ConnectionResponse{Response: &pb.ConnectionResponse_Data{Data: data}})
}

func (h hostPeer) End() error {
	return h.stream.Send(&pb.ConnectionResponse{Response: &pb.ConnectionResponse_End_{End: &pb.ConnectionResponse_End{}}})
}
