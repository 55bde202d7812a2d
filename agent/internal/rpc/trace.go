package rpc

import (
	"context"
	"path"

	"google.golang.org/grpc"

	"woodlot.dev/agent/internal/pb"
	"woodlot.dev/agent/internal/trace"
)

// Trace tells when the last operations began and ended.
func (s *server) Trace(_ context.Context, _ *pb.TraceRequest) (*pb.TraceResponse, error) {
	answer := &pb.TraceResponse{NowNanos: trace.Now()}
	for _, span := range trace.Last() {
		answer.Spans = append(answer.Spans, &pb.TraceResponse_Span{Name: span.Name, StartNanos: span.Start, EndNanos: span.End})
	}
	return answer, nil
}

func traced(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	defer trace.Begin(path.Base(info.FullMethod))()
	return handle(ctx, request)
}
