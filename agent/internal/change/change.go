// Package change is what the agent and a filesystem that raises events tell each other: JSON, one value after the other.
package change

// Kind is what happened on the host.
type Kind string

// Kinds of changes. MovedOut and MovedIn are renames of which the other end is not in the tree.
const (
	Created  Kind = "created"
	Deleted  Kind = "deleted"
	Moved    Kind = "moved"
	MovedOut Kind = "moved-out"
	MovedIn  Kind = "moved-in"
	Modified Kind = "modified"
	Closed   Kind = "closed" // and had been open to be written
	Attrib   Kind = "attrib"
)

// Change is what happened to a name on the host. Directories are paths below the root, "" for the root itself; names
// may be any bytes.
type Change struct {
	Kind          Kind
	Dir, Name     []byte
	IsDir         bool   `json:",omitempty"`
	ToDir, ToName []byte `json:",omitempty"`
}

// Batch is one message to the filesystem, which answers each with an Answer.
type Batch struct{ Changes []Change }

// Answer tells how it went; the first one, that the filesystem is mounted.
type Answer struct {
	Error string `json:",omitempty"`
}
