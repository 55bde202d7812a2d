// Package settle brings the guest to rest before it is saved: what it holds then, all that start from it hold.
package settle

import (
	"fmt"
	"os"
	"runtime/debug"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// Messages prepares every message of the protocol, as is otherwise done when one is first met: then it is done once for
// all that start from here, and the first calls need not run, and where the processor is emulated translate, that code.
func Messages() error {
	var failed error
	protoregistry.GlobalTypes.RangeMessages(func(kind protoreflect.MessageType) bool {
		_, failed = proto.Marshal(kind.New().Interface())
		return failed == nil
	})
	if failed != nil {
		return fmt.Errorf("prepare messages: %w", failed)
	}
	return nil
}

// Memory gives back what is not needed, and gathers what is, so that the rest is free in large pieces.
func Memory() error {
	debug.FreeOSMemory()
	unix.Sync()
	for path, value := range map[string]string{
		// Page cache, directory entries and inodes.
		"/proc/sys/vm/drop_caches":    "3",
		"/proc/sys/vm/compact_memory": "1",
	} {
		if err := os.WriteFile(path, []byte(value), 0); err != nil && !os.IsNotExist(err) {
			return fmt.Errorf("give back memory: %w", err)
		}
	}
	return nil
}
