package rpc

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"woodlot.dev/agent/internal/container"
	"woodlot.dev/agent/internal/klog"
	"woodlot.dev/agent/internal/pb"
	"woodlot.dev/agent/internal/stdio"
	"woodlot.dev/agent/internal/trace"
)

// Run keeps one process for the life of the stream.
func (s *server) Run(stream pb.Agent_RunServer) error {
	first, err := stream.Recv()
	if err != nil {
		return toStatus(fmt.Errorf("read the first request: %w", err))
	}
	start := first.GetStart()
	if start == nil {
		return toStatus(invalid("the first request must be start"))
	}
	spec, err := processSpec(start)
	if err != nil {
		return toStatus(err)
	}
	id := start.GetId()
	if err := s.processes.reserve(id); err != nil {
		return toStatus(err)
	}
	defer s.processes.remove(id)
	started := trace.Begin("start the process")
	process, err := s.Container.Start(spec)
	started()
	if err != nil {
		return toStatus(err)
	}
	s.processes.set(id, process)
	defer trace.Begin("process")()
	r := &run{stream: stream, process: process}
	defer process.Close()
	return toStatus(r.serve())
}

// run is one stream and its process.
type run struct {
	stream  pb.Agent_RunServer
	process *container.Process

	sending sync.Mutex
}

func (r *run) send(m *pb.RunResponse) error {
	r.sending.Lock()
	defer r.sending.Unlock()
	return r.stream.Send(m)
}

// serve returns nil once the process has ended and all was sent; an error kills the process first.
func (r *run) serve() error {
	p := r.process
	ctx := r.stream.Context()
	if err := r.send(&pb.RunResponse{Response: &pb.RunResponse_Started_{
		Started: &pb.RunResponse_Started{Pid: uint32(p.PID())},
	}}); err != nil {
		p.Kill()
		<-p.Done()
		return err
	}
	requests := make(chan error, 1)
	go func() { requests <- r.receive() }()
	output := make(chan error, 1)
	go func() { output <- r.pump() }()

	var failure error
	broken := ctx.Done()
	ended := p.Done()
	for ended != nil || output != nil {
		select {
		case <-ended:
			ended = nil
		case err := <-output:
			output = nil
			if err != nil && failure == nil {
				failure = err
				p.Kill()
			}
		case err := <-requests:
			requests = nil
			if err != nil && failure == nil {
				failure = err
				p.Kill()
			}
		case <-broken:
			broken = nil
			if failure == nil {
				failure = ctx.Err()
			}
			p.Kill()
		}
	}
	if failure != nil {
		return failure
	}
	exit := p.Exit()
	return r.send(&pb.RunResponse{Response: &pb.RunResponse_Exited_{
		Exited: &pb.RunResponse_Exited{Code: exit.Code, Signal: exit.Signal, OomKilled: exit.OOMKilled},
	}})
}

// pump sends all output; it returns when both streams are at their end.
func (r *run) pump() error {
	p := r.process
	stdout := func(b []byte) error {
		return r.send(&pb.RunResponse{Response: &pb.RunResponse_Stdout{Stdout: b}})
	}
	stderr := func(b []byte) error {
		return r.send(&pb.RunResponse{Response: &pb.RunResponse_Stderr{Stderr: b}})
	}
	second := make(chan error, 1)
	if p.Stderr == nil {
		second <- nil
	} else {
		go func() { second <- stdio.Pump(p.Stderr, p.Done(), stderr) }()
	}
	err := stdio.Pump(p.Stdout, p.Done(), stdout)
	return errors.Join(err, <-second)
}

// receive carries out the client's requests until it sends no more. An error ends the process.
func (r *run) receive() error {
	in := newInput(r.process.Streams)
	defer in.close()
	for {
		m, err := r.stream.Recv()
		if errors.Is(err, io.EOF) {
			in.finish()
			return nil
		}
		if err != nil {
			return nil // the stream's context tells
		}
		switch q := m.GetRequest().(type) {
		case *pb.RunRequest_Stdin:
			in.write(q.Stdin)
		case *pb.RunRequest_CloseStdin_:
			in.end()
		case *pb.RunRequest_Resize:
			if err := r.process.Resize(clampSize(q.Resize.GetRows()), clampSize(q.Resize.GetColumns())); err != nil {
				klog.Warnf("%v", err)
			}
		case *pb.RunRequest_Signal_:
			if err := r.process.Signal(q.Signal.GetNumber()); err != nil {
				return err
			}
		default:
			return invalid("only the first request may be start, and none may be empty")
		}
	}
}

// maxQueued is how much input waits for a process that does not read before the client is held back. Signals and
// resizes overtake input up to that point.
const maxQueued = 1 << 20

// input writes to a process's standard input without making the requests behind it wait.
type input struct {
	streams *stdio.Streams

	mu     sync.Mutex
	change *sync.Cond
	queue  [][]byte
	queued int
	eof    bool
	// dead: the process does not read any more, or the stream is over; what comes is thrown away.
	dead bool
}

func newInput(streams *stdio.Streams) *input {
	in := &input{streams: streams, dead: streams.Stdin == nil}
	in.change = sync.NewCond(&in.mu)
	go in.run()
	return in
}

func (in *input) write(b []byte) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for in.queued > maxQueued && !in.dead {
		in.change.Wait()
	}
	if in.dead || in.eof || len(b) == 0 {
		return
	}
	in.queue = append(in.queue, b)
	in.queued += len(b)
	in.change.Broadcast()
}

// end closes standard input after what is queued.
func (in *input) end() {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.streams.Stdin == in.streams.Stdout { // a terminal can go on after its end-of-file character
		in.queue = append(in.queue, nil)
	} else {
		in.eof = true
	}
	in.change.Broadcast()
}

// finish is end for a pipe; a terminal stays as it is, and what is queued is still written.
func (in *input) finish() {
	if in.streams.Stdin != in.streams.Stdout {
		in.end()
	}
}

// close lets the writer go once it has written what is queued or cannot.
func (in *input) close() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.eof = true
	in.change.Broadcast()
}

func (in *input) run() {
	for {
		in.mu.Lock()
		for len(in.queue) == 0 && !in.eof && !in.dead {
			in.change.Wait()
		}
		if in.dead || len(in.queue) == 0 {
			over := !in.dead
			in.dead = true
			in.mu.Unlock()
			if over && in.streams.Stdin != in.streams.Stdout {
				_ = in.streams.CloseInput()
			}
			return
		}
		b := in.queue[0]
		in.queue = in.queue[1:]
		in.mu.Unlock()

		var err error
		if b == nil {
			err = in.streams.CloseInput()
		} else {
			_, err = in.streams.Stdin.Write(b)
		}
		if err != nil && !errors.Is(err, unix.EPIPE) && !errors.Is(err, os.ErrClosed) && !errors.Is(err, unix.EIO) {
			klog.Warnf("write to standard input: %v", err)
		}
		in.mu.Lock()
		in.queued -= len(b)
		in.dead = in.dead || err != nil
		in.change.Broadcast()
		in.mu.Unlock()
	}
}
