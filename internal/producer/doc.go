// Package producer puts records through the Firehose API, ours or AWS's: a raw
// signed client without an SDK, fast enough to be measured on the machine that
// it loads, and free of cgo, so that the agent can use it beside other
// people's databases.
//
// Delivery is at least once: an outcome that is not known (a time-out, a
// connection reset, a 5xx) is sent again, with a new signature, and of a batch
// that was stored in part only the failed records. Who needs exactly once
// numbers the records; the server recognises (source, session, epoch,
// sequence).
//
// Invariants:
//
//   - A record counts as acknowledged only when an answer with status 200 that
//     was read to its end says so.
//   - Documents are encoded straight into the request's body, once: a retry
//     moves bytes and encodes nothing again.
//   - Memory is bounded: a pipeline holds Workers × (QueueDepth + streams + 1)
//     bodies of at most 5.6 MB, and Put blocks beyond that.
//   - One worker has one request in flight, and a source always goes to the
//     same worker, so that the records of a source arrive in order. Only a
//     record that the server failed alone comes behind its batch.
package producer
