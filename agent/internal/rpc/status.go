package rpc

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"woodlot.dev/agent/internal/fail"
)

var statusCodes = map[fail.Kind]codes.Code{
	fail.Internal:           codes.Internal,
	fail.InvalidArgument:    codes.InvalidArgument,
	fail.NotFound:           codes.NotFound,
	fail.PermissionDenied:   codes.PermissionDenied,
	fail.FailedPrecondition: codes.FailedPrecondition,
	fail.AlreadyExists:      codes.AlreadyExists,
	fail.ResourceExhausted:  codes.ResourceExhausted,
	fail.Unsupported:        codes.Unimplemented,
	fail.Timeout:            codes.DeadlineExceeded,
}

// toStatus is the one place where the agent's errors become gRPC's.
func toStatus(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled):
		return status.Error(codes.Canceled, err.Error())
	case errors.Is(err, context.DeadlineExceeded):
		return status.Error(codes.DeadlineExceeded, err.Error())
	}
	code, ok := statusCodes[fail.KindOf(err)]
	if !ok {
		code = codes.Internal
	}
	return status.Error(code, err.Error())
}
