// Package firehose is the front door of the Amazon Data Firehose API: AWS JSON
// 1.1 with X-Amz-Target Firehose_20150804.<operation>. Authentication and
// transport are awsapi's; what a delivery stream does with its records is the
// business of whoever implements Streams.
//
// Shapes, limits and patterns are those of AWS's service model (version
// 2015-08-04); messages are AWS's own where they are known.
//
// What describes a stream (create, update, describe) goes the plain way:
//
//	body ── decode ──▶ constraints of the model ──▶ (update: merge) ──▶ AWS's own checks ──▶ defaults ──▶ Streams
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
//   - Nothing is accepted that would have no effect: a setting that is not
//     carried out is refused by name, here or by Streams, with what to use
//     instead. What is stored and shown only is listed in docs/firehose.md.
//   - An update is checked as the whole that it leaves, as at create.
//   - "Encrypted": true is never answered, because nothing here encrypts.
package firehose
