package console

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/tapehouse/tapehouse/internal/terminal"
)

// TraceRequest asks where a record is.
type TraceRequest struct {
	RecordID string `json:"record_id"` // as the put was answered
}

// Trace says where a record is.
type Trace struct {
	RecordID  string     `json:"record_id"`
	Stream    string     `json:"stream"`
	Offset    int64      `json:"offset"`
	State     string     `json:"state"` // one sentence
	ArrivedAt *time.Time `json:"arrived_at,omitempty"`
	// Record is the document, as it was put or as its values decode, while the
	// log has it. It is no JSON where the record was none.
	Record string       `json:"record,omitempty"`
	InLog  bool         `json:"in_log"`
	Places []TracePlace `json:"places"`
}

// TracePlace is where a record is, or is not, on one of the stream's ways.
type TracePlace struct {
	Destination string `json:"destination"` // "table namespace.table", "objects", "error output", "backup"
	Outcome     string `json:"outcome"`
	State       string `json:"state"` // one sentence
	Code        string `json:"code,omitempty"`
	Message     string `json:"message,omitempty"`
	File        string `json:"file,omitempty"` // data file with the row
	Snapshot    int64  `json:"snapshot,omitempty"`
	// Objects are the names among which it stands, of ObjectCount.
	Objects     []string `json:"objects,omitempty"`
	ObjectCount int64    `json:"object_count,omitempty"`
	Remedy      string   `json:"remedy,omitempty"`
}

// WriteText writes the trace for people.
func (t Trace) WriteText(w io.Writer) error {
	fmt.Fprintf(w, "Record %s\n  stream       %s, offset %s\n", t.RecordID, t.Stream, terminal.Count(t.Offset))
	if t.ArrivedAt != nil {
		fmt.Fprintf(w, "  arrived      %s\n", t.ArrivedAt.UTC().Format("2006-01-02 15:04:05.000000Z"))
	}
	fmt.Fprintf(w, "  state        %s\n", t.State)
	for _, p := range t.Places {
		fmt.Fprintf(w, "\n%s: %s\n", p.Destination, p.State)
		if p.Code != "" {
			fmt.Fprintf(w, "  why          %s: %s\n", p.Code, p.Message)
		}
		if p.File != "" {
			fmt.Fprintf(w, "  file         %s\n", p.File)
		}
		if p.Snapshot != 0 {
			fmt.Fprintf(w, "  snapshot     %d\n", p.Snapshot)
		}
		for _, name := range p.Objects {
			fmt.Fprintf(w, "  object       %s\n", name)
		}
		if more := p.ObjectCount - int64(len(p.Objects)); more > 0 {
			fmt.Fprintf(w, "               and %s more\n", terminal.Count(more))
		}
		if p.Remedy != "" {
			fmt.Fprintf(w, "  → %s\n", p.Remedy)
		}
	}
	if t.Record == "" {
		return nil
	}
	_, err := fmt.Fprintf(w, "\n%s\n", strings.TrimRight(t.Record, "\n"))
	return err
}

// ReplayRequest puts records again: lines of the error output, corrected or as
// they are; what an object of the error output holds; or a range of a stream's
// log. Exactly one of Lines, Object and From is given.
type ReplayRequest struct {
	Stream string            `json:"stream"` // through which they go
	Lines  []json.RawMessage `json:"lines,omitempty"`
	Object string            `json:"object,omitempty"` // name in the error output's bucket
	From   *ReplayRange      `json:"from,omitempty"`
}

// ReplayRange is [First, Last] of a stream's offsets.
type ReplayRange struct {
	Stream string `json:"stream"`
	First  int64  `json:"first"`
	Last   int64  `json:"last"`
}

// ReplayLinesMax and ReplayBytesMax bound the lines of one request.
const (
	ReplayLinesMax = 500
	ReplayBytesMax = 6 << 20
)

// Replay counts what a replay did.
type Replay struct {
	Stream string `json:"stream"`
	Put    int64  `json:"put"`   // records that are on disk now
	Known  int64  `json:"known"` // records that were replayed, or had come, before
	// Refused are lines that cannot be replayed; the first of them.
	Refused      []ReplayRefusal `json:"refused,omitempty"`
	RefusedCount int64           `json:"refused_count,omitempty"`
}

// ReplayRefusal is a line that cannot be replayed.
type ReplayRefusal struct {
	Line   int64  `json:"line"` // from 1
	Reason string `json:"reason"`
}

// RefusedMax bounds Replay.Refused.
const RefusedMax = 20

// Refuse counts a line, and keeps it while there is room.
func (r *Replay) Refuse(line int64, reason string) {
	r.RefusedCount++
	if len(r.Refused) < RefusedMax {
		r.Refused = append(r.Refused, ReplayRefusal{line, reason})
	}
}

// WriteText writes the counts for people.
func (r Replay) WriteText(w io.Writer) error {
	fmt.Fprintf(w, "Replayed through %s\n  put          %s records, on disk now\n  known        %s, replayed or received before: not put again\n", r.Stream, terminal.Count(r.Put), terminal.Count(r.Known))
	if r.RefusedCount == 0 {
		return nil
	}
	fmt.Fprintf(w, "  refused      %s\n", terminal.Count(r.RefusedCount))
	for _, x := range r.Refused {
		fmt.Fprintf(w, "  ✗ line %d: %s\n", x.Line, x.Reason)
	}
	if more := r.RefusedCount - int64(len(r.Refused)); more > 0 {
		fmt.Fprintf(w, "    and %s more\n", terminal.Count(more))
	}
	return nil
}
