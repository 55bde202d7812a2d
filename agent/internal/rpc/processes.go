package rpc

import (
	"context"
	"fmt"
	"sync"

	"woodlot.dev/agent/internal/fail"
	"woodlot.dev/agent/internal/pb"
)

// controlled is what Signal and Resize need of a process.
type controlled interface {
	Done() <-chan struct{}
	Signal(number uint32) error
	Resize(rows, columns uint16) error
}

// processes are the running processes by the ids that the host gave them.
type processes struct {
	mu sync.Mutex
	// byID holds nil for an id whose process is still being started.
	byID map[string]controlled
}

const maxIDBytes = 256

// reserve takes an id before its process exists; an empty one names nothing.
func (p *processes) reserve(id string) error {
	if len(id) > maxIDBytes {
		return invalid("start.id is longer than %d bytes", maxIDBytes)
	}
	if id == "" {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, taken := p.byID[id]; taken {
		return fail.New(fail.AlreadyExists, fmt.Sprintf("a process with id %q runs already", id))
	}
	if p.byID == nil {
		p.byID = map[string]controlled{}
	}
	p.byID[id] = nil
	return nil
}

func (p *processes) set(id string, c controlled) {
	if id == "" {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.byID[id] = c
}

func (p *processes) remove(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.byID, id)
}

// find gives a process that has not ended.
func (p *processes) find(id string) (controlled, error) {
	p.mu.Lock()
	c := p.byID[id]
	p.mu.Unlock()
	if c != nil {
		select {
		case <-c.Done():
		default:
			return c, nil
		}
	}
	return nil, fail.New(fail.NotFound, fmt.Sprintf("no process with id %q is running", id))
}

// Signal sends a signal to a running process.
func (s *server) Signal(_ context.Context, r *pb.SignalRequest) (*pb.SignalResponse, error) {
	p, err := s.processes.find(r.GetId())
	if err == nil {
		err = p.Signal(r.GetNumber())
	}
	if err != nil {
		return nil, toStatus(err)
	}
	return &pb.SignalResponse{}, nil
}

// Resize sets the size of a running process's terminal; without a terminal it does nothing.
func (s *server) Resize(_ context.Context, r *pb.ResizeRequest) (*pb.ResizeResponse, error) {
	p, err := s.processes.find(r.GetId())
	if err == nil {
		err = p.Resize(clampSize(r.GetWindow().GetRows()), clampSize(r.GetWindow().GetColumns()))
	}
	if err != nil {
		return nil, toStatus(err)
	}
	return &pb.ResizeResponse{}, nil
}
