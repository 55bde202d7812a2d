package rpc

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"woodlot.dev/agent/internal/fail"
	"woodlot.dev/agent/internal/pb"
)

// echo is a socket whose server gives back in capitals what it has read, once that has ended.
func echo(t *testing.T) func(string) (*net.UnixConn, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: t.TempDir() + "/s"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				return
			}
			b, _ := io.ReadAll(c)
			_, _ = c.Write([]byte(strings.ToUpper(string(b))))
			_ = c.Close()
		}
	}()
	return func(path string) (*net.UnixConn, error) {
		if path != "/run/s" && path != "s0" {
			return nil, fail.New(fail.NotFound, "no socket "+path)
		}
		return net.DialUnix("unix", nil, l.Addr().(*net.UnixAddr))
	}
}

func TestConnectionCarriesBothWays(t *testing.T) {
	c := client(t, &fakeContainer{accept: echo(t)}, nil)
	for name, open := range map[string]func() (pb.Agent_ConnectClient, error){
		"/run/s": func() (pb.Agent_ConnectClient, error) { return c.Connect(t.Context()) },
		"s0":     func() (pb.Agent_ConnectClient, error) { return c.Accept(t.Context()) },
	} {
		stream, err := open()
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range []*pb.ConnectionRequest{
			{Request: &pb.ConnectionRequest_Socket{Socket: name}},
			{Request: &pb.ConnectionRequest_Data{Data: []byte("hel")}},
			{Request: &pb.ConnectionRequest_Data{Data: []byte("lo")}},
		} {
			if err := stream.Send(r); err != nil {
				t.Fatal(err)
			}
		}
		if r, err := stream.Recv(); err != nil || r.GetOpened() == nil {
			t.Fatal(r, err)
		}
		_ = stream.CloseSend()
		if r, err := stream.Recv(); err != nil || string(r.GetData()) != "HELLO" {
			t.Error(r, err)
		}
		if r, err := stream.Recv(); err != nil || r.GetEnd() == nil {
			t.Error(r, err)
		}
		if _, err := stream.Recv(); err != io.EOF {
			t.Error(err)
		}
	}
}

func TestConnectionRefuses(t *testing.T) {
	c := client(t, &fakeContainer{accept: echo(t)}, nil)
	name := func(s string) *pb.ConnectionRequest {
		return &pb.ConnectionRequest{Request: &pb.ConnectionRequest_Socket{Socket: s}}
	}
	for _, one := range []struct {
		requests []*pb.ConnectionRequest
		code     codes.Code
	}{
		{[]*pb.ConnectionRequest{{}}, codes.InvalidArgument},
		{[]*pb.ConnectionRequest{{Request: &pb.ConnectionRequest_Data{}}}, codes.InvalidArgument},
		{[]*pb.ConnectionRequest{name("run/s")}, codes.InvalidArgument},
		{[]*pb.ConnectionRequest{name("/run/\x00")}, codes.InvalidArgument},
		{[]*pb.ConnectionRequest{name("/run/x")}, codes.NotFound},
		{[]*pb.ConnectionRequest{name("/run/s"), name("/run/s")}, codes.InvalidArgument},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		stream, err := c.Connect(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range one.requests {
			_ = stream.Send(r)
		}
		for err == nil {
			_, err = stream.Recv()
		}
		if status.Code(err) != one.code {
			t.Errorf("%v: %v", one.requests, err)
		}
		cancel()
	}
}
