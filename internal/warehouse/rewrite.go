package warehouse

import (
	"context"
	"slices"
	"strings"

	"github.com/tapehouse/tapehouse/internal/catalog"
)

// A column of a relation, as the walk knows it.
type relColumn struct {
	name string
	typ  sqlType
}

// relation answers what a name in FROM stands for.
type relation struct {
	schema, name string
	columns      []relColumn
	system       bool // of pg_catalog or information_schema: given to the statement as a CTE
	view         *ViewRead
	external     *externalTable
	// rows are those of a system relation that is made for this statement.
	rows func(ctx context.Context, c *catalogState) ([][]any, error)
}

// environment is what a rewrite needs to know of its session and its tables.
type environment struct {
	// lookup resolves a table by (schema, name); schema "" means the search
	// path. It returns nil if there is none.
	lookup func(ctx context.Context, schema, name string) (*relation, error)
	// describe types an expression that inference does not know, by binding
	// sql, one SELECT of one column.
	describe func(ctx context.Context, r *rewriter, sql string) (sqlType, error)
	parse    func(ctx context.Context, sql string) (node, error)
	print    func(ctx context.Context, root node) (string, error)

	database, user string
	searchPath     []string
	zone           string // session's TimeZone
	now            string // transaction's start, as a UTC timestamp literal
	clock          string // statement's start, same form
	version        string
	started        string // server start, as a UTC timestamp literal
	pid            int
	setting        func(name string) (string, bool)
	schemas        []string // the search path's schemas that exist
}

// rewriter walks one query's syntax tree: it resolves names, gives every
// expression a type, and puts DuckDB expressions with PostgreSQL's and
// Redshift's meaning in the place of those that mean something else to DuckDB.
type rewriter struct {
	ctx context.Context
	env *environment
	src mappedText

	tables  []catalog.Name // managed tables that the query reads, in order of first use
	seen    map[catalog.Name]bool
	system  map[string]*relation // system relations used, by CTE name
	views   []*relation          // materialized views used
	foreign []*relation          // external tables used
	pseudo  bool                 // the statement names a pseudo-column of external tables
	params  []parameter
	ctes    []map[string]*relation // in scope, innermost last
	cteMaps []node                 // cte_map nodes in scope, innermost last, for describe
	depth   int
	mutable bool // the time of the statement went into it
}

// parameter is $n. Its type comes from the client, or from the first place
// that tells.
type parameter struct {
	typ  sqlType
	used bool
}

// scope is what column names mean at one place.
type scope struct {
	parent  *scope
	items   []fromItem
	from    any  // the from_table under construction, for describe
	groups  node // the SELECT_NODE whose groups apply, for describe
	aliases map[string]sqlType
}

type fromItem struct {
	alias   string
	columns []relColumn
	merged  []string    // columns of USING, which an unqualified * shows under an earlier table
	opaque  bool        // its columns are not known
	hidden  []relColumn // those that * does not have
}

// depthMax bounds the walk; DuckDB's own bound on expressions is 1,000.
const depthMax = 2000

// query rewrites a query node in place and answers its columns. A nil answer
// with nil error cannot happen; unknown types stand in the columns.
func (r *rewriter) query(parent *scope, n node) ([]relColumn, error) {
	if r.depth++; r.depth > depthMax {
		return nil, errorf(codeTooComplex, "the query nests too deeply")
	}
	defer func() { r.depth-- }()
	pop, err := r.withCTEs(parent, n)
	if err != nil {
		return nil, err
	}
	defer pop()
	switch str(n, "type") {
	case "SELECT_NODE":
		return r.selectNode(parent, n)
	case "SET_OPERATION_NODE":
		return r.setOperation(parent, n)
	case "RECURSIVE_CTE_NODE":
		return r.recursive(parent, n)
	}
	return nil, unsupported("this form of query ("+strings.ToLower(str(n, "type"))+")", "write it as SELECT, VALUES, or a set operation of them")
}

// withCTEs enters the node's WITH list.
func (r *rewriter) withCTEs(parent *scope, n node) (func(), error) {
	m := child(n, "cte_map")
	entries := list(m, "map")
	if len(entries) == 0 {
		return func() {}, nil
	}
	names := map[string]*relation{}
	r.ctes = append(r.ctes, names)
	done := node{"map": []any{}}
	r.cteMaps = append(r.cteMaps, done)
	pop := func() {
		r.ctes = r.ctes[:len(r.ctes)-1]
		r.cteMaps = r.cteMaps[:len(r.cteMaps)-1]
	}
	for _, e := range entries {
		e, _ := e.(node)
		value := child(e, "value")
		body := child(child(value, "query"), "node")
		if body == nil {
			pop()
			return nil, unsupported("a data-modifying WITH", "run the statements one after the other in a transaction")
		}
		name := str(e, "key")
		if str(body, "type") == "RECURSIVE_CTE_NODE" {
			names[name] = &relation{name: name}
			left, err := r.query(nil, child(body, "left"))
			if err != nil {
				pop()
				return nil, err
			}
			names[name] = &relation{name: name, columns: renamed(left, stringList(value, "aliases"))}
			if _, err := r.query(nil, child(body, "right")); err != nil {
				pop()
				return nil, err
			}
		} else {
			columns, err := r.query(nil, body)
			if err != nil {
				pop()
				return nil, err
			}
			names[name] = &relation{name: name, columns: renamed(columns, stringList(value, "aliases"))}
		}
		done["map"] = append(done["map"].([]any), e)
	}
	return pop, nil
}

func stringList(n node, key string) []string {
	var out []string
	for _, v := range list(n, key) {
		s, _ := v.(string)
		out = append(out, s)
	}
	return out
}

// renamed gives the first columns the names of an alias list.
func renamed(columns []relColumn, names []string) []relColumn {
	out := append([]relColumn(nil), columns...)
	for i := range out {
		if i < len(names) {
			out[i].name = names[i]
		}
	}
	return out
}

func (r *rewriter) recursive(parent *scope, n node) ([]relColumn, error) {
	columns, err := r.query(parent, child(n, "left"))
	if err != nil {
		return nil, err
	}
	_, err = r.query(parent, child(n, "right"))
	return columns, err
}

// setOperation unifies the types of the branches: DuckDB would give up digits
// behind the point where a wide decimal meets a finer one.
func (r *rewriter) setOperation(parent *scope, n node) ([]relColumn, error) {
	branches := list(n, "children")
	if len(branches) == 0 {
		branches = []any{n["left"], n["right"]}
	}
	var out []relColumn
	all := make([][]relColumn, len(branches))
	for i, b := range branches {
		b, _ := b.(node)
		columns, err := r.query(parent, b)
		if err != nil {
			return nil, err
		}
		all[i] = columns
		if i == 0 {
			out = append(out, columns...)
			continue
		}
		if len(columns) != len(out) {
			return nil, errorf(codeSyntax, "each %s query must have the same number of columns", str(n, "setop_type"))
		}
		for j := range out {
			t, _, _ := common(out[j].typ, columns[j].typ)
			out[j].typ = t
		}
	}
	for i, b := range branches {
		r.castOutputs(b.(node), all[i], out)
	}
	s := &scope{parent: parent, aliases: map[string]sqlType{}}
	for _, c := range out {
		s.aliases[c.name] = c.typ
	}
	return out, r.modifiers(s, n)
}

// castOutputs casts the select list of a branch to the common decimal types.
func (r *rewriter) castOutputs(n node, have, want []relColumn) {
	if str(n, "type") == "SET_OPERATION_NODE" {
		branches := list(n, "children")
		if len(branches) == 0 {
			branches = []any{n["left"], n["right"]}
		}
		for _, b := range branches {
			r.castOutputs(b.(node), have, want)
		}
		return
	}
	items := list(n, "select_list")
	if len(items) != len(want) {
		return // a star: its columns are cast by DuckDB
	}
	for i := range items {
		e, _ := items[i].(node)
		if class(e) == "STAR" {
			return
		}
		if want[i].typ.kind == kindDecimal && have[i].typ.exact() && !have[i].typ.equal(want[i].typ) {
			alias := str(e, "alias")
			c := castTo(e, want[i].typ)
			c["alias"] = alias
			items[i] = c
		}
	}
}

func (r *rewriter) selectNode(parent *scope, n node) ([]relColumn, error) {
	if n["sample"] != nil {
		return nil, unsupported("TABLESAMPLE", "filter by a hash of a key, for instance WHERE md5(id) < '1'")
	}
	s := &scope{parent: parent, aliases: map[string]sqlType{}, groups: n}
	from, err := r.tableRef(s, child(n, "from_table"))
	if err != nil {
		return nil, err
	}
	n["from_table"], s.from = from, from

	// The places of positional GROUP BY and ORDER BY must still mean the same
	// items, so the select list keeps its length and order.
	if err := r.field(s, n, "where_clause"); err != nil {
		return nil, err
	}
	items := list(n, "select_list")
	var out []relColumn
	for i := range items {
		e, _ := items[i].(node)
		if class(e) == "STAR" {
			columns, err := r.star(s, e)
			if err != nil {
				return nil, err
			}
			out = append(out, columns...)
			continue
		}
		name := outputName(e)
		x, t, err := r.expr(s, e)
		if err != nil {
			return nil, err
		}
		if str(x, "alias") == "" {
			x["alias"] = name
		}
		items[i] = x
		s.aliases[name] = t
		out = append(out, relColumn{name: name, typ: t})
	}
	for _, key := range []string{"group_expressions"} {
		if err := r.expressions(s, n, key); err != nil {
			return nil, err
		}
	}
	if err := r.field(s, n, "having"); err != nil {
		return nil, err
	}
	if err := r.field(s, n, "qualify"); err != nil {
		return nil, err
	}
	return out, r.modifiers(s, n)
}

// modifiers rewrites ORDER BY, LIMIT and DISTINCT ON. PostgreSQL sorts nulls as
// greater than everything, DuckDB always last.
func (r *rewriter) modifiers(s *scope, n node) error {
	for _, m := range list(n, "modifiers") {
		m, _ := m.(node)
		switch str(m, "type") {
		case "ORDER_MODIFIER":
			if err := r.orders(s, list(m, "orders"), true); err != nil {
				return err
			}
		case "DISTINCT_MODIFIER":
			if err := r.expressions(s, m, "distinct_on_targets"); err != nil {
				return err
			}
		case "LIMIT_MODIFIER":
			for _, key := range []string{"limit", "offset"} {
				e := child(m, key)
				if e == nil {
					continue
				}
				x, t, err := r.expr(s, e)
				if err != nil {
					return err
				}
				m[key] = r.assign(x, t, sqlType{kind: kindBigint})
			}
		default:
			return unsupported("LIMIT … PERCENT", "count first, then give LIMIT the number")
		}
	}
	return nil
}

func (r *rewriter) orders(s *scope, orders []any, aliases bool) error {
	for _, o := range orders {
		o, _ := o.(node)
		if str(o, "null_order") == "ORDER_DEFAULT" {
			if str(o, "type") == "DESCENDING" {
				o["null_order"] = "NULLS FIRST"
			} else {
				o["null_order"] = "NULLS LAST"
			}
		}
		e := child(o, "expression")
		if names := stringList(e, "column_names"); aliases && class(e) == "COLUMN_REF" && len(names) == 1 {
			if _, ok := s.aliases[names[0]]; ok {
				continue // an output column; it stays as it is
			}
		}
		x, _, err := r.expr(s, e)
		if err != nil {
			return err
		}
		o["expression"] = x
	}
	return nil
}

// field rewrites the expression at n[key], if there is one.
func (r *rewriter) field(s *scope, n node, key string) error {
	e := child(n, key)
	if e == nil {
		return nil
	}
	x, _, err := r.expr(s, e)
	if err != nil {
		return err
	}
	n[key] = x
	return nil
}

func (r *rewriter) expressions(s *scope, n node, key string) error {
	l := list(n, key)
	for i := range l {
		e, ok := l[i].(node)
		if !ok {
			continue
		}
		x, _, err := r.expr(s, e)
		if err != nil {
			return err
		}
		l[i] = bare(x)
	}
	return nil
}

// star answers the columns that * or t.* stands for, and rewrites nothing.
func (r *rewriter) star(s *scope, e node) ([]relColumn, error) {
	if flag(e, "columns") || e["expr"] != nil || len(list(e, "replace_list")) > 0 || len(list(e, "rename_list")) > 0 ||
		len(list(e, "exclude_list")) > 0 || len(list(e, "qualified_exclude_list")) > 0 {
		return nil, unsupported("a modified *", "list the columns").at(r.src.position(location(e)))
	}
	name := str(e, "relation_name")
	if len(s.items) == 0 {
		return nil, errorf(codeSyntax, "SELECT * with no tables specified is not valid").at(r.src.position(location(e)))
	}
	var out []relColumn
	for _, item := range s.items {
		if name == "" || strings.EqualFold(name, item.alias) {
			for _, c := range item.columns {
				if name != "" || !slices.ContainsFunc(item.merged, func(m string) bool { return strings.EqualFold(m, c.name) }) {
					out = append(out, c)
				}
			}
			if item.opaque {
				out = append(out, relColumn{})
			}
			if name != "" {
				if len(item.hidden) > 0 {
					excludePseudo(e)
				}
				return out, nil
			}
		}
	}
	if name == "" && slices.ContainsFunc(s.items, func(item fromItem) bool { return len(item.hidden) > 0 }) {
		excludePseudo(e)
	}
	if name != "" {
		return nil, errorf(codeUndefinedTable, "missing FROM-clause entry for table %q", name).at(r.src.position(location(e)))
	}
	return out, nil
}
