package warehouse

import "testing"

// BenchmarkQuery is the whole way of a small query: prepare, describe, pin,
// execute, one row.
func BenchmarkQuery(b *testing.B) {
	h := newHouse(b)
	s := h.session(b)
	mustRun(b, s, inferenceTable)
	mustRun(b, s, "INSERT INTO t (i, p) VALUES (1, 2.5)")
	for name, sql := range map[string]string{
		"constant": "SELECT 1",
		"table":    "SELECT i, sum(p) FROM t WHERE i = 1 GROUP BY i",
		"division": "SELECT i, sum(p)/count(*), avg(p) FROM t GROUP BY i",
		"catalog":  "SELECT c.relname FROM pg_catalog.pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace",
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				mustRun(b, s, sql)
			}
		})
	}
}
