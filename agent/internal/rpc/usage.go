package rpc

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"woodlot.dev/agent/internal/netif"
	"woodlot.dev/agent/internal/pb"
)

// Stats tells what the container has used, and uses.
func (s *server) Stats(context.Context, *pb.StatsRequest) (*pb.StatsResponse, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return nil, toStatus(fmt.Errorf("clock_gettime: %w", err))
	}
	used, err := s.Container.Usage()
	if err != nil {
		return nil, toStatus(err)
	}
	received, sent, err := netif.Bytes()
	if err != nil {
		return nil, toStatus(err)
	}
	return &pb.StatsResponse{
		TimeNanos:    uint64(now.Nano()),
		CpuUsageUsec: used.CPUUsec, MemoryUsageBytes: used.MemoryBytes, MemoryLimitBytes: used.MemoryLimit,
		NetworkRxBytes: received, NetworkTxBytes: sent,
		BlockReadBytes: used.ReadBytes, BlockWriteBytes: used.WrittenBytes, Processes: used.Pids,
	}, nil
}

// ListProcesses tells what runs in the container.
func (s *server) ListProcesses(ctx context.Context, _ *pb.ListProcessesRequest) (*pb.ListProcessesResponse, error) {
	list, more, users, err := s.Container.Processes(ctx)
	if err != nil {
		return nil, toStatus(err)
	}
	answer := &pb.ListProcessesResponse{LeftOut: uint32(more)}
	for _, p := range list {
		answer.Processes = append(answer.Processes, &pb.ListProcessesResponse_Process{
			Pid: p.PID, ParentPid: p.Parent, GroupId: p.Group, SessionId: p.Session, Uid: p.UID, User: users[p.UID],
			CpuMillis: p.CPUMillis, AgeMillis: p.AgeMillis, Terminal: p.Terminal, State: p.State, Nice: p.Nice,
			Threads: p.Threads, VirtualBytes: p.VirtualBytes, ResidentBytes: p.ResidentBytes,
			Name: p.Name, Command: p.Command,
		})
	}
	return answer, nil
}

// Pause lets the container's processes stand still.
func (s *server) Pause(ctx context.Context, _ *pb.PauseRequest) (*pb.PauseResponse, error) {
	if err := s.Container.Pause(ctx); err != nil {
		return nil, toStatus(err)
	}
	return &pb.PauseResponse{}, nil
}

// Unpause lets them go on.
func (s *server) Unpause(context.Context, *pb.UnpauseRequest) (*pb.UnpauseResponse, error) {
	s.Container.Unpause()
	return &pb.UnpauseResponse{}, nil
}

// Update changes the container's limits.
func (s *server) Update(_ context.Context, r *pb.UpdateRequest) (*pb.UpdateResponse, error) {
	wanted := limits(r.GetResources())
	err := checkLimits(wanted)
	if err == nil {
		err = s.Container.Update(wanted)
	}
	if err != nil {
		return nil, toStatus(err)
	}
	return &pb.UpdateResponse{}, nil
}
