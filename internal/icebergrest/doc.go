// Package icebergrest serves the catalog by the Iceberg REST protocol (Apache
// Iceberg's REST Catalog API, version 1), by which Spark, Trino, PyIceberg,
// DuckDB and others create, read and change the lake's tables.
//
// A request goes
//
//	route → authenticate (Signature Version 4 by the name "glue", or a bearer token)
//	→ reserve bytes → read body → check signature → authorize → run → answer
//
// Invariants:
//
//   - No state is looked at before the principal is known and allowed the
//     operation; grants are those of the service "glue".
//   - Requirements are judged and changes made by the catalog alone, in its one
//     fenced transaction: this package knows nothing of Iceberg's metadata.
//   - An answer that says "not done" (409, 400, 503) is true; where the outcome
//     is not known the answer is CommitStateUnknownException.
//   - Requests are bounded in number, size and time; pages are bounded.
//   - What is not supported is refused by name, and says what to do instead.
package icebergrest
