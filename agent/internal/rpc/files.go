package rpc

import (
	"bufio"
	"context"
	"errors"
	"io"

	"google.golang.org/grpc/status"

	"woodlot.dev/agent/internal/changes"
	"woodlot.dev/agent/internal/container"
	"woodlot.dev/agent/internal/pb"
)

const (
	pieceBytes   = 256 << 10
	batchChanges = 512
)

// access runs f with the container's files.
func (s *server) access(ctx context.Context, f func(a *container.Access) error) error {
	a, err := s.Container.Access(ctx)
	if err != nil {
		return toStatus(err)
	}
	defer a.Close()
	return toStatus(f(a))
}

// StatPath tells what is at a path.
func (s *server) StatPath(ctx context.Context, r *pb.StatPathRequest) (*pb.StatPathResponse, error) {
	if err := checkPath("path", string(r.GetPath())); err != nil {
		return nil, toStatus(err)
	}
	answer := &pb.StatPathResponse{}
	err := s.access(ctx, func(a *container.Access) error {
		path, st, err := a.Stat(string(r.GetPath()), r.GetFollow())
		if err != nil {
			return err
		}
		answer.Path, answer.Exists = []byte(path), st != nil
		if st != nil {
			answer.Mode, answer.Size = st.Mode, st.Size
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return answer, nil
}

// pieces sends what is written to it.
type pieces struct {
	send func(*pb.ArchivePiece) error
}

func (p pieces) Write(b []byte) (int, error) {
	for rest := b; len(rest) > 0; {
		n := min(len(rest), pieceBytes)
		if err := p.send(&pb.ArchivePiece{Data: rest[:n]}); err != nil {
			return 0, err
		}
		rest = rest[n:]
	}
	return len(b), nil
}

// ReadArchive sends a tar of what is at a path.
func (s *server) ReadArchive(r *pb.ReadArchiveRequest, stream pb.Files_ReadArchiveServer) error {
	if err := checkPath("path", string(r.GetPath())); err != nil {
		return toStatus(err)
	}
	return s.sendArchive(stream, func(a *container.Access, w io.Writer) error {
		return a.Read(string(r.GetPath()), string(r.GetName()), w)
	})
}

// Export sends a tar of the root filesystem.
func (s *server) Export(_ *pb.ExportRequest, stream pb.Files_ExportServer) error {
	return s.sendArchive(stream, (*container.Access).Export)
}

// ExportLayer sends a tar of what differs from the image.
func (s *server) ExportLayer(r *pb.ExportLayerRequest, stream pb.Files_ExportLayerServer) error {
	return s.sendArchive(stream, func(a *container.Access, w io.Writer) error {
		return a.ExportLayer(w, r.GetGoing())
	})
}

func (s *server) sendArchive(
	stream interface {
		Context() context.Context
		Send(*pb.ArchivePiece) error
	},
	write func(a *container.Access, w io.Writer) error,
) error {
	return s.access(stream.Context(), func(a *container.Access) error {
		buffered := bufio.NewWriterSize(pieces{stream.Send}, pieceBytes)
		if err := write(a, buffered); err != nil {
			return err
		}
		return buffered.Flush()
	})
}

// received reads what is sent to it.
type received struct {
	stream pb.Files_WriteArchiveServer
	rest   []byte
}

func (r *received) Read(b []byte) (int, error) {
	for len(r.rest) == 0 {
		m, err := r.stream.Recv()
		if err != nil {
			return 0, err // io.EOF is the end of the tar
		}
		r.rest = m.GetData()
	}
	n := copy(b, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// WriteArchive unpacks a tar into a directory.
func (s *server) WriteArchive(stream pb.Files_WriteArchiveServer) error {
	result := status.Convert(s.unpack(stream))
	answer := &pb.WriteArchiveResponse{Code: uint32(result.Code()), Message: result.Message()}
	if err := stream.Send(answer); err != nil {
		return err
	}
	for {
		if _, err := stream.Recv(); err != nil {
			return nil // the client has its answer and closes or cancels
		}
	}
}

func (s *server) unpack(stream pb.Files_WriteArchiveServer) error {
	first, err := stream.Recv()
	if err != nil {
		return toStatus(err)
	}
	if first.GetOpen() == nil {
		return toStatus(invalid("the first request must be open"))
	}
	dir := string(first.GetOpen().GetPath())
	if err := checkPath("open.path", dir); err != nil {
		return toStatus(err)
	}
	return s.access(stream.Context(), func(a *container.Access) error {
		content := &received{stream: stream}
		if err := a.Write(dir, content); err != nil {
			return err
		}
		// What follows the end of a tar is padding.
		if _, err := io.Copy(io.Discard, content); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		return nil
	})
}

// Diff tells how the root filesystem differs from the image.
func (s *server) Diff(_ *pb.DiffRequest, stream pb.Files_DiffServer) error {
	return s.access(stream.Context(), func(a *container.Access) error {
		batch := &pb.DiffResponse{}
		err := a.Changes(func(c changes.Change) error {
			batch.Changes = append(batch.Changes, &pb.DiffResponse_Change{
				Kind: changeKinds[c.Kind], Path: []byte(c.Path),
			})
			if len(batch.Changes) < batchChanges {
				return nil
			}
			err := stream.Send(batch)
			batch = &pb.DiffResponse{}
			return err
		})
		if err != nil {
			return err
		}
		return stream.Send(batch)
	})
}

var changeKinds = map[changes.Kind]pb.DiffResponse_Change_Kind{
	changes.Modified: pb.DiffResponse_Change_MODIFIED,
	changes.Added:    pb.DiffResponse_Change_ADDED,
	changes.Deleted:  pb.DiffResponse_Change_DELETED,
}
