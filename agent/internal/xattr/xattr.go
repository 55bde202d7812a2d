// Package xattr reads the extended attributes of files.
package xattr

import (
	"iter"
	"strings"

	"golang.org/x/sys/unix"
)

// maxBytes is XATTR_LIST_MAX and XATTR_SIZE_MAX of linux/limits.h.
const maxBytes = 64 << 10

// IsFiles tells attributes of a file from overlayfs's notes on its own directories.
func IsFiles(name string) bool { return !strings.HasPrefix(name, "trusted.overlay.") }

// Select gives names and values of the attributes of what a path leads to, of those that are wanted; none where the
// filesystem knows none. One that is taken away meanwhile is left out.
func Select(path string, wanted func(name string) bool) iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		// Of most files that is all: no room is needed to hear that there is nothing.
		if n, err := unix.Listxattr(path, nil); err != nil || n == 0 {
			return
		}
		list, value := make([]byte, maxBytes), make([]byte, maxBytes)
		n, err := unix.Listxattr(path, list)
		if err != nil {
			return
		}
		for name := range strings.SplitSeq(strings.TrimSuffix(string(list[:n]), "\x00"), "\x00") {
			if !wanted(name) {
				continue
			}
			n, err := unix.Getxattr(path, name, value)
			if err == nil && !yield(name, string(value[:n])) {
				return
			}
		}
	}
}
