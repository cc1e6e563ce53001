// Package pgwire speaks the PostgreSQL frontend/backend protocol, version 3
// (PostgreSQL 15 manual, chapter 55), to psql, drivers and BI tools. It knows
// messages, authentication, formats and limits; what a statement means is the
// business of the [Session] behind it.
//
// # Invariants
//
//   - A connection is one goroutine that owns the session, the statements, the
//     portals and the send buffer, and one that only reads the socket ahead
//     into a bounded buffer (so that a client that has gone away cancels its
//     statement). Only cancel and shutdown reach in from outside, through
//     contexts.
//   - Every message is bounded before it is stored: MaxMessageBytes in general,
//     10,000 bytes before authentication. Memory for a body grows as its bytes
//     arrive, never on the word of its length field.
//   - Rows are encoded into one send buffer of SendBufferBytes, written out
//     when full: a client that does not read stops its own query and nobody
//     else's; one that reads nothing for SendTimeout is disconnected.
//   - No byte that came before a TLS handshake is read as if it came after.
//   - Every message that changed something is answered before ReadyForQuery;
//     after an error in the extended protocol everything up to Sync is skipped.
//   - The CommandComplete of a simple query's last statement is sent after the
//     implicit transaction has been committed, never before.
//   - A panic in a session ends that connection with XX000 and is logged with
//     its stack; the server goes on.
//
// # Frames
//
//	┌──────┬─────────────┬───────────────────────┐
//	│ kind │ length (BE) │ body, length-4 bytes  │   all but the first packet
//	│  1   │      4      │                       │
//	└──────┴─────────────┴───────────────────────┘
//	┌─────────────┬────────────┬─────────────────┐
//	│ length (BE) │ code (BE)  │ body            │   first packet: startup,
//	│      4      │     4      │                 │   SSL, GSS, cancel
//	└─────────────┴────────────┴─────────────────┘
//
// Message bodies are decoded by pgproto3; rows are encoded here, straight into
// the send buffer. docs/protocols/pgwire.md lists what is spoken and what not.
package pgwire
