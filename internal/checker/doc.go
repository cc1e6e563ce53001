// Package checker counts what the lake lost, doubled or altered, with as little
// of the program as possible: it reads the generator's own manifest of keys and
// hashes (docs/formats/manifest.md), finds the tables' newest Iceberg metadata
// on disk, reads the rows of the live Parquet files, hashes each anew and
// compares. It knows nothing of the catalog, the log, the ledger or the decoder,
// so that none of their mistakes can hide behind it.
//
// Every record of the manifest is held in nine bytes, in pages of a feed:
//
//	feed (stream, source, session, epoch) ─▶ page of 1,024 sequence numbers
//	                                          ├ hash  [1024]uint64
//	                                          ├ want  [1024]bit   the manifest has it
//	                                          └ seen  [1024]bit   the lake has it
//
// A record with sequence number 0 is a control record: sources do not number
// it, so that no one can tell a repetition from a second one. Repetitions of the
// same content are counted apart and are no fault.
//
// Invariants:
//
//   - A row is counted under exactly one of: right, altered, duplicate,
//     repeated, unexpected. A record of the manifest is lost if no row has its key.
//   - Nothing is written, and memory is bounded by Options.PagesMax.
//   - A file that cannot be read as it must be is an error, never a row less.
package checker
