// Package exchange is a simulated equities exchange: a seeded generator of one
// trade date, and players of real captures (Nasdaq ITCH 5.0, LOBSTER CSV). All
// yield the same thing, JSON records of the equities pack's streams, so that
// whatever takes one takes the others.
//
// Invariants:
//   - the same configuration (and capture) gives the same bytes, on every
//     platform: random numbers are integers of a generator of our own, nothing
//     depends on the order of a map, and floats only fill tables that are then
//     rounded to integers;
//   - each (source, session, epoch) numbers its records from 1 without a gap;
//     only sabotage, when asked for, loses a number;
//   - an end-of-trade-date marker per (source, session, epoch) tells the
//     source's own count and totals, taken before any sabotage;
//   - the generator numbers exactly Config.Records records, markers apart;
//   - prices are integers of $0.0001; no float touches one;
//   - memory is bounded by the number of live orders, never by the number of
//     records.
//
// A record's JSON has its members in the order of the table's columns; a null
// column is left out. Times are UTC with nine digits of a second.
package exchange

import (
	"errors"
)

// The streams of the equities pack that an exchange feeds.
const (
	StreamOrders      = "order-events"
	StreamExecutions  = "executions"
	StreamCorrections = "corrections"
	StreamMarkers     = "markers"
)

var (
	// ErrConfig is the root of every error about a configuration.
	ErrConfig = errors.New("invalid exchange configuration")
	// ErrTotals says that a source's notional exceeds decimal(18,4).
	ErrTotals = errors.New("control total exceeds 18 digits")
)

// Key is the identity of a record at its source.
type Key struct {
	Source  string
	Session string
	Epoch   int64
	Seq     int64 // from 1; 0 for a marker, which is not numbered
}

// Record describes the document that Next appended.
type Record struct {
	Stream string
	Key    Key
	// Marker says that the document is an end-of-trade-date marker.
	Marker bool
	// Malformed says that sabotage spoiled the document: the lake must reject it.
	Malformed bool
}

// Player yields the records of one trade date in the order of time. Exchange,
// ITCH and LOBSTER are the players. A Player is not safe for concurrent use.
type Player interface {
	// Next appends the next record's JSON document to dst, without a line end,
	// and returns the extended buffer, which belongs to the caller. At the end
	// the error is io.EOF, on and on.
	Next(dst []byte) ([]byte, Record, error)
	// Hash is the content hash of the record that Next returned last, as
	// docs/formats/manifest.md defines it.
	Hash() uint64
}

var (
	_ Player = (*Exchange)(nil)
	_ Player = (*ITCH)(nil)
	_ Player = (*LOBSTER)(nil)
)

// DefaultMPIDs are the MPIDs of the equities pack, in the order of their market
// share. They are invented.
var DefaultMPIDs = []string{
	"ALDR", "BRKW", "CNYN", "DLTA", "EMBR", "FRST", "GLCR", "HRBR",
	"ISLE", "JNPR", "KSTL", "LRCH", "MNTN", "NRTH", "ORCH", "PINE",
	"QRRY", "RVER", "STNE", "TIDE", "UPLD", "VALE", "WLLW", "YEWT",
}
