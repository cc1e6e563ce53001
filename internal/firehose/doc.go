// Package firehose is the front door of the Amazon Data Firehose API: AWS JSON
// 1.1 with X-Amz-Target Firehose_20150804.<operation>. Authentication and
// transport are awsapi's; what a delivery stream does with its records is the
// business of whoever implements Streams.
//
// Shapes, limits and patterns are those of AWS's service model (version
// 2015-08-04); messages are AWS's own where they are known.
//
// The hot path is PutRecordBatch:
//
//	body (pooled) ── scan ──▶ arena of decoded documents (pooled) ── Streams.Put ──▶ answer (pooled)
//
// Invariants:
//
//   - A put is answered with RecordIds only after Streams.Put has returned,
//     which is after the records are durable.
//   - Body, arena and answer stay untouched by others until then.
//   - Nothing is allocated per record.
//   - Nothing is accepted that would have no effect: a setting that this
//     version does not carry out is refused at create, by name.
//   - "Encrypted": true is never answered, because nothing here encrypts.
package firehose
