package rpc

import (
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"woodlot.dev/agent/internal/fail"
	"woodlot.dev/agent/internal/pb"
)

type fakeProcess struct {
	done          chan struct{}
	signal        uint32
	rows, columns uint16
}

func (f *fakeProcess) Done() <-chan struct{} { return f.done }
func (f *fakeProcess) Signal(n uint32) error {
	f.signal = n
	return nil
}

func (f *fakeProcess) Resize(rows, columns uint16) error {
	f.rows, f.columns = rows, columns
	return nil
}

func TestProcessesAreNamedByTheHost(t *testing.T) {
	s := &server{}
	signal := func(id string) codes.Code {
		_, err := s.Signal(t.Context(), &pb.SignalRequest{Id: id, Number: 15})
		return status.Code(err)
	}
	if signal("a") != codes.NotFound || signal("") != codes.NotFound {
		t.Error("a process was found before there was any")
	}
	if err := s.processes.reserve("a"); err != nil {
		t.Fatal(err)
	}
	if signal("a") != codes.NotFound {
		t.Error("a process that does not run yet was found")
	}
	if err := s.processes.reserve("a"); fail.KindOf(err) != fail.AlreadyExists {
		t.Errorf("the same id twice: %v", err)
	}
	f := &fakeProcess{done: make(chan struct{})}
	s.processes.set("a", f)
	if signal("a") != codes.OK || f.signal != 15 {
		t.Error("not signalled")
	}
	_, err := s.Resize(t.Context(), &pb.ResizeRequest{Id: "a", Window: &pb.WindowSize{Rows: 1 << 20, Columns: 80}})
	if err != nil || f.rows != 0xffff || f.columns != 80 {
		t.Errorf("%+v, %v", f, err)
	}
	close(f.done)
	if signal("a") != codes.NotFound {
		t.Error("a process that has ended was found")
	}
	s.processes.remove("a")
	if err := s.processes.reserve("a"); err != nil {
		t.Errorf("an id is free again after the end: %v", err)
	}
	for range 2 { // processes without an id are possible, and not to be named
		if err := s.processes.reserve(""); err != nil {
			t.Error(err)
		}
		s.processes.set("", f)
	}
}
