// Package fail holds the kinds of error the agent reports; the rpc package maps each to one gRPC status.
// It imports nothing heavy: the launch binary uses it too.
package fail

import "errors"

// Kind says what the caller can do about an error.
type Kind uint8

// The kinds. Their numbers cross the pipe between launch and agent, both built from one tree.
const (
	Internal Kind = iota
	InvalidArgument
	NotFound
	PermissionDenied
	FailedPrecondition
	AlreadyExists
	ResourceExhausted
	Unsupported
	Timeout
)

// Error is a message with a kind and, where there is one, the cause.
type Error struct {
	Kind Kind
	Msg  string
	Err  error
}

// Error gives "message: cause".
func (e *Error) Error() string {
	if e.Err == nil {
		return e.Msg
	}
	return e.Msg + ": " + e.Err.Error()
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// New makes an error of a kind.
func New(kind Kind, msg string) error { return &Error{Kind: kind, Msg: msg} }

// Wrap adds a message to err and gives it a kind; nil stays nil.
func Wrap(kind Kind, msg string, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Kind: kind, Msg: msg, Err: err}
}

// Context adds a message to err and keeps its kind; nil stays nil.
func Context(msg string, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Kind: KindOf(err), Msg: msg, Err: err}
}

// KindOf is the kind of the outermost Error in err's chain, Internal without one.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return Internal
}
