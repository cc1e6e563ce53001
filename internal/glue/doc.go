// Package glue is the front door of the AWS Glue Data Catalog: AWS JSON 1.1 with
// X-Amz-Target AWSGlue.<operation>. Authentication and transport are awsapi's,
// what a catalog holds is package catalog's.
//
//	body ── constraints of the model ──▶ refused members ──▶ the operation ──▶ catalog
//
// What operations take is in model.txt, which is made from AWS's service model
// (version 2017-03-31): shapes, required members, bounds, patterns. Messages are
// AWS's own where they are known.
//
// A database is a namespace of the catalog. A table is either an external one,
// whose files others write, or a managed one, which is an Iceberg table: it shows
// as Glue shows those, and its clients commit by UpdateTable.
//
// Invariants:
//
//   - Nothing is accepted that would have no effect: a member that is not carried
//     out is refused by name, and so is each operation that is not here, with what
//     to use instead (docs/catalog.md).
//   - Names are folded to lower case, as Glue does.
//   - No table that a delivery stream feeds, or a materialized view reads, is
//     dropped: Guard decides.
//   - What hangs on a table (tags, statistics, indexes) hangs on its identity: a
//     table that is made anew under the name has none of it.
//   - An answer is bounded; what is left comes with the next page.
package glue
