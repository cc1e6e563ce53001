// Package console is the front door for operators: health, readiness, metrics,
// a status page, and the JSON API behind the commands status, seal, waive,
// verify, statements and explain-charge. It also has the client of that API and
// the file by which a client finds the server of a data directory.
//
// The protocol is described in docs/protocols/console.md.
//
// Invariants:
//
//   - Only /healthz, /readyz and /metrics answer without credentials, and they
//     tell nothing about a record, a member or an amount.
//   - What changes something is a POST of application/json, so that no page in
//     an operator's browser can send it with the browser's credentials.
//   - A request's body and an answer's errors are bounded.
//   - Money is a decimal in a JSON string; no float touches it.
//   - Every error is one of the codes in errors.go; what is none of them is
//     "internal", and its text is for the log and for authenticated operators.
package console
