// Package packs holds what the program knows about one market: the streams'
// tables, views, reference data, statements and session calendar. The core
// knows no exchange; a pack is plain SQL, YAML and CSV. The packs of this
// directory are embedded; Load reads any other from a directory of the user's.
package packs

import (
	"embed"
	"io/fs"
)

//go:embed equities
var embedded embed.FS

// Equities is the embedded pack of US equities. Its fee schedule, members and
// MPIDs are illustrative.
func Equities() fs.FS {
	sub, err := fs.Sub(embedded, "equities")
	if err != nil {
		panic("packs: the embedded directory is missing: " + err.Error())
	}
	return sub
}
