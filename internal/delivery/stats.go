package delivery

import (
	"slices"
	"strings"

	"github.com/tapehouse/tapehouse/internal/record"
)

// Stats are a stream's figures.
type Stats struct {
	Stream       record.StreamName `json:"stream"`
	Table        string            `json:"table"`        // or several, parted by commas
	Acknowledged uint64            `json:"acknowledged"` // records on disk
	Visible      uint64            `json:"visible"`      // of those, visible to SQL without waiting
	Through      uint64            `json:"through"`      // of those, in the table
	TailEntries  int               `json:"tail_entries"`
	TailRows     int64             `json:"tail_rows"`
	TailBytes    int64             `json:"tail_bytes"`
	Err          string            `json:"error,omitempty"`
	// Lanes are the ways to the stream's destinations, each with its progress.
	Lanes []LaneStats `json:"lanes"`
}

// LaneStats is how far one destination is.
type LaneStats struct {
	// Name is the table's, or the role of an object destination: objects, backup,
	// errors (the error output of a stream into tables).
	Name    string `json:"name"`
	Role    string `json:"role"`    // table, or the same as Name
	Through uint64 `json:"through"` // records that the destination has
}

// The roles of lanes in Stats.
const (
	RoleTable   = "table"
	RoleObjects = roleObjects
	RoleBackup  = roleBackup
	RoleErrors  = roleErrors
)

// Stats returns the stream's present figures.
func (s *Stream) Stats() Stats {
	cfg := s.Config()
	st := Stats{Stream: cfg.Name, Acknowledged: uint64(s.m.o.Log.Synced(s.key)), Through: uint64(s.Through())}
	st.Visible = st.Acknowledged
	var names []string
	for _, t := range s.tables() {
		if name := t.table.String(); !slices.Contains(names, name) { // one that ends and one that begins
			names = append(names, name)
		}
		entries, rows, size, end := t.tail.stats()
		st.TailEntries, st.TailRows, st.TailBytes = st.TailEntries+entries, st.TailRows+rows, st.TailBytes+size
		if end < t.span.last() {
			st.Visible = min(st.Visible, uint64(end))
		}
	}
	st.Table = strings.Join(names, ", ")
	s.each(func(l lane) {
		switch l := l.(type) {
		case *tableLane:
			st.Lanes = append(st.Lanes, LaneStats{l.table.String(), RoleTable, uint64(l.Through())})
		case *objectLane:
			st.Lanes = append(st.Lanes, LaneStats{l.role, l.role, uint64(l.Through())})
		}
	})
	if err := s.failure(); err != nil {
		st.Err = err.Error()
	}
	return st
}

// busyRows is the backlog of a pump from which on other work should wait.
const busyRows = 128 << 10

// Busy reports whether a stream's visibility lags behind its log: background
// work that nobody waits for should be put off.
func (m *Manager) Busy() bool {
	for _, s := range m.Streams() {
		if s.lag() > busyRows {
			return true
		}
	}
	return false
}
