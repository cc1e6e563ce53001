package engine

import (
	"fmt"
	"strings"
)

// The columns that a scan adds to find out which removals concern a row. No
// column of a table can have these names.
const (
	orderColumn = "__tapehouse order"
	lastColumn  = "__tapehouse last"
)

// The columns that Relation.Positions adds.
const (
	PositionFile = "__tapehouse file" // File.URI
	PositionRow  = "__tapehouse row"  // from 0, a BIGINT
)

// removedSQL is viewSQL of a relation with removals: a row is there unless the
// last removal of its key stands behind its file. The removals are few, so that
// the join's hash table is small however large the table is.
func (r *Relation) removedSQL() (string, error) {
	last, err := r.lastRemovals()
	if err != nil {
		return "", err
	}
	behind := 0 // the last removal
	for i := range r.Removals {
		behind = max(behind, r.Removals[i].Order)
	}
	plain := *r
	plain.Keys, plain.Removals = nil, nil
	var untouched, data, tail []File
	for _, f := range r.Files {
		switch {
		case f.Order >= behind:
			untouched = append(untouched, f)
		case f.Order == 0:
			data = append(data, f)
		default:
			tail = append(tail, f)
		}
	}
	var parts, older []string
	if plain.Files = untouched; len(untouched) > 0 {
		sql, err := plain.viewSQL()
		if err != nil {
			return "", err
		}
		parts = append(parts, sql)
	}
	if plain.Files = data; len(data) > 0 {
		sql, err := plain.viewSQL()
		if err != nil {
			return "", err
		}
		older = append(older, "SELECT *, 0 AS "+QuoteIdentifier(orderColumn)+" FROM ("+sql+")")
	}
	if len(tail) > 0 {
		orders := make([]string, len(tail))
		for i, f := range tail {
			orders[i] = fmt.Sprintf("(%s,%d)", QuoteLiteral(f.Path), f.Order)
		}
		older = append(older, "SELECT "+plain.projection("t.")+", u.n AS "+QuoteIdentifier(orderColumn)+" FROM "+plain.scan(tail, true)+" AS t JOIN (VALUES "+
			strings.Join(orders, ",")+") AS u(path, n) ON t."+scanFile+" = u.path")
	}
	if len(older) > 0 {
		parts = append(parts, "SELECT "+r.projection("d.")+" FROM ("+strings.Join(older, " UNION ALL ")+") AS d LEFT JOIN ("+last+") AS x ON "+r.sameKey("d", "x")+
			" WHERE coalesce(x."+QuoteIdentifier(lastColumn)+" <= d."+QuoteIdentifier(orderColumn)+", true)")
	}
	return strings.Join(parts, " UNION ALL "), nil
}

// sameKey is the condition that two relations have the same key in a row.
func (r *Relation) sameKey(a, b string) string {
	var on []string
	for _, k := range r.Keys {
		q := QuoteIdentifier(k)
		on = append(on, a+"."+q+" = "+b+"."+q)
	}
	return strings.Join(on, " AND ")
}

// lastRemovals gives, for each key, the order of its last removal.
func (r *Relation) lastRemovals() (string, error) {
	if len(r.Keys) == 0 {
		return "", &Error{Kind: Internal, Message: "removals without a key"}
	}
	file := Relation{}
	keys := make([]string, len(r.Keys))
	for i, k := range r.Keys {
		at := r.Schema.Index(k)
		if at < 0 {
			return "", &Error{Kind: Catalog, Message: "the key column " + QuoteIdentifier(k) + " does not exist"}
		}
		file.Schema.Fields = append(file.Schema.Fields, r.Schema.Fields[at])
		file.Types = append(file.Types, r.columnType(at))
		keys[i] = "k." + QuoteIdentifier(k)
	}
	files := make([]File, len(r.Removals))
	orders := make([]string, len(r.Removals))
	for i, x := range r.Removals {
		files[i] = File{Path: x.Path, Rows: x.Rows}
		orders[i] = fmt.Sprintf("(%s,%d)", QuoteLiteral(x.Path), x.Order)
	}
	return "SELECT " + strings.Join(keys, ", ") + ", max(u.n) AS " + QuoteIdentifier(lastColumn) + " FROM " + file.scan(files, true) + " AS k JOIN (VALUES " +
		strings.Join(orders, ",") + ") AS u(path, n) ON k." + scanFile + " = u.path GROUP BY " + strings.Join(keys, ", "), nil
}

// positionsSQL is viewSQL with the columns by which position deletes call a row.
func (r *Relation) positionsSQL() string {
	seen := map[string]bool{}
	var deletes, uris []string
	for _, f := range r.Files {
		for _, d := range f.Deletes {
			if !seen[d] {
				seen[d] = true
				deletes = append(deletes, QuoteLiteral(d))
			}
		}
		uri := f.URI
		if uri == "" {
			uri = f.Path
		}
		uris = append(uris, "("+QuoteLiteral(f.Path)+","+QuoteLiteral(uri)+")")
	}
	sql := "SELECT " + r.projection("d.") + ", u.uri AS " + QuoteIdentifier(PositionFile) + ", d." + scanRow + " AS " + QuoteIdentifier(PositionRow) + " FROM " + r.scan(r.Files, true) + " AS d JOIN (VALUES " +
		strings.Join(uris, ",") + ") AS u(path, uri) ON d." + scanFile + " = u.path"
	if len(deletes) > 0 {
		sql += " ANTI JOIN read_parquet([" + strings.Join(deletes, ",") + "], hive_partitioning=false) AS p ON u.uri = p.file_path AND d." + scanRow + " = p.pos"
	}
	return sql
}
