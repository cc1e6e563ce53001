// Package demo plays one simulated trade date against the real program: it
// starts the server as a process of its own, puts every record through the
// Firehose API with Signature Version 4, asks SQL while they stream in, closes
// the trade date, and has internal/checker count what the lake holds against
// the generator's manifest. With a sabotage it shows what the product is for.
//
// Invariants:
//
//   - Nothing is measured in the server's own process or by its own counters:
//     acknowledged is what the producer was answered, visible is what a SQL
//     query returned, lost and duplicate is what the checker counted.
//   - The result is good only if nothing was lost, doubled or altered, the
//     certificate verifies, and the sabotage, if any, ended as it should.
//   - A directory is emptied only if it carries the demo's own marker file and no
//     server runs on it.
//   - The server ends with the demo, however the demo ends.
package demo
