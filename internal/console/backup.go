package console

import (
	"fmt"
	"io"
	"time"

	"github.com/tapehouse/tapehouse/internal/terminal"
)

// BackupRequest asks for a backup.
type BackupRequest struct {
	To                 string `json:"to"`                            // an absolute path on the server's machine, or s3://bucket/prefix
	WithLake           bool   `json:"with_lake,omitempty"`           // copy a lake on S3 too
	WithoutCredentials bool   `json:"without_credentials,omitempty"` // leave keys and passwords out
}

// Backup is a backup that was made.
type Backup struct {
	To          string    `json:"to"`
	ID          string    `json:"id"`
	TakenAt     time.Time `json:"taken_at"` // what was acknowledged before is in it
	Files       int       `json:"files"`
	Bytes       int64     `json:"bytes"`
	Copied      int       `json:"files_copied"` // that no earlier backup had
	CopiedBytes int64     `json:"bytes_copied"`
	Elsewhere   int       `json:"files_left_on_s3"`
	Seconds     float64   `json:"seconds"`
}

// WriteText writes it for people.
func (b Backup) WriteText(w io.Writer) error {
	fmt.Fprintf(w, `Backup %s in %s
  point        %s: what was acknowledged before is in it
  files        %s, %s
  copied       %s, %s, in %s
`, b.ID, b.To, b.TakenAt.UTC().Format("2006-01-02 15:04:05.000Z"), terminal.Count(int64(b.Files)), terminal.Bytes(b.Bytes),
		terminal.Count(int64(b.Copied)), terminal.Bytes(b.CopiedBytes), terminal.Took(time.Duration(b.Seconds*float64(time.Second))))
	if b.Elsewhere > 0 {
		fmt.Fprintf(w, "  left on S3   %s of the lake's; --with-lake copies them too\n", terminal.Plural(int64(b.Elsewhere), "file"))
	}
	return nil
}

// BackupStatus is how far the backup is that is being made.
type BackupStatus struct {
	Running  bool  `json:"running"`
	Files    int   `json:"files"`
	FilesAll int   `json:"files_all"` // known so far
	Bytes    int64 `json:"bytes_copied"`
}
