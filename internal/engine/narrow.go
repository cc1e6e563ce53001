package engine

import (
	"context"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tapehouse/tapehouse/internal/record"
)

// Files of a lake elsewhere cost a fetch each. DuckDB prunes by what stands in
// them, and so has to have them all; therefore the conditions that a statement
// puts on a table's partition column choose the files that are brought here.
// DuckDB evaluates the conditions all the same: a file too many costs time, and
// a file too few would cost rows. So whatever is not plainly understood chooses
// every file.

// days is a range of dates, days since 1970-01-01, both ends included.
type days struct{ from, to int32 }

var allDays = days{math.MinInt32, math.MaxInt32}

func (d days) and(o days) days { return days{max(d.from, o.from), min(d.to, o.to)} }
func (d days) or(o days) days  { return days{min(d.from, o.from), max(d.to, o.to)} }

// narrowed is q's pin without the files that q's conditions exclude, or nil if
// that would be the same. The caller must Release it, before q's own pin.
func (e *Engine) narrowed(ctx context.Context, c *conn, q Query) (*Pin, error) {
	if e.options.Files == nil || q.Pin == nil {
		return nil, nil
	}
	columns := map[Name]string{} // partition columns of the tables that can be narrowed
	for _, n := range q.Pin.Names() {
		r, _ := q.Pin.Relation(n)
		if i := r.Schema.Index(r.PartitionBy); i >= 0 && r.Schema.Fields[i].Type.Kind == record.Date && e.hasRemote(r) {
			columns[n] = r.PartitionBy
		}
	}
	if len(columns) == 0 {
		return nil, nil
	}
	tree, err := c.parse(ctx, q.SQL)
	if err != nil {
		return nil, err
	}
	wanted := partitionsOf(tree, q.Pin, columns, q.Args)
	changed := map[Name]Relation{}
	for n, d := range wanted {
		r, _ := q.Pin.Relation(n)
		files := make([]File, 0, len(r.Files))
		for _, f := range r.Files {
			if p := f.PartitionTradeDate; p == nil || d.from <= *p && *p <= d.to {
				files = append(files, f)
			}
		}
		if len(files) < len(r.Files) {
			r.Files = files
			changed[n] = r
		}
	}
	return q.Pin.with(changed), nil
}

// described is a pin with the columns of p's tables and none of their remote
// files: describing a statement fetches nothing. nil: p has none.
func (e *Engine) described(p *Pin) *Pin {
	if e.options.Files == nil || p == nil {
		return nil
	}
	changed := map[Name]Relation{}
	for _, n := range p.Names() {
		if r, _ := p.Relation(n); e.hasRemote(r) {
			r.Files = nil
			changed[n] = r
		}
	}
	return p.with(changed)
}

func (e *Engine) hasRemote(r Relation) bool {
	return slices.ContainsFunc(r.Files, func(f File) bool {
		_, remote := e.options.Files.Local(f.Path)
		return remote
	})
}

// with is p with some of its relations replaced, nil if there are none. What it
// does not hold itself, tails above all, p must hold meanwhile.
func (p *Pin) with(changed map[Name]Relation) *Pin {
	if len(changed) == 0 {
		return nil
	}
	out := NewPin(changed)
	p.mu.Lock()
	defer p.mu.Unlock()
	for n, t := range p.tables {
		if out.tables[n] == nil {
			out.tables[n] = &pinned{relation: t.relation, version: t.version}
		}
	}
	return out
}

// partitionsOf gives, for each table that the statement names and that has a
// partition column, the dates outside of which no row of it matters.
func partitionsOf(tree object, p *Pin, columns map[Name]string, args []any) map[Name]days {
	chosen := map[uintptr]days{} // by the node of the table reference
	walkSorted(tree, func(n object) {
		if str(n, "type") != "SELECT_NODE" || n["sample"] != nil {
			return
		}
		from, _ := n["from_table"].(object)
		tables := plainTables(from)
		exposed := map[string]int{}
		for _, t := range tables {
			exposed[exposedName(t)]++
		}
		for _, t := range tables {
			name, ok := p.find(str(t, "schema_name"), str(t, "table_name"))
			column := columns[name]
			aliases, _ := t["column_name_alias"].([]any)
			if !ok || column == "" || len(aliases) > 0 || t["sample"] != nil || t["at_clause"] != nil || exposed[exposedName(t)] != 1 {
				continue
			}
			c := condition{column: column, table: exposedName(t), alone: str(from, "type") == "BASE_TABLE", args: args}
			chosen[reflect.ValueOf(t).Pointer()] = c.days(n["where_clause"])
		}
	})
	out := map[Name]days{}
	walkSorted(tree, func(n object) {
		if str(n, "type") != "BASE_TABLE" {
			return
		}
		name, ok := p.find(str(n, "schema_name"), str(n, "table_name"))
		if !ok || columns[name] == "" {
			return
		}
		d, understood := chosen[reflect.ValueOf(n).Pointer()]
		if !understood {
			d = allDays
		}
		if former, again := out[name]; again {
			d = d.or(former)
		}
		out[name] = d
	})
	return out
}

// plainTables lists the tables of a FROM, below joins for which a condition in
// WHERE on one side, which no NULL meets, may be applied before the join: it
// would drop the same rows after it.
func plainTables(from object) []object {
	switch str(from, "type") {
	case "BASE_TABLE":
		return []object{from}
	case "JOIN":
		switch str(from, "ref_type") {
		case "REGULAR", "CROSS":
		default:
			return nil
		}
		switch str(from, "join_type") {
		case "INNER", "LEFT", "RIGHT", "OUTER", "FULL":
		default:
			return nil
		}
		left, _ := from["left"].(object)
		right, _ := from["right"].(object)
		return append(plainTables(left), plainTables(right)...)
	}
	return nil
}

// exposedName is the name by which columns call a table, in lower case.
func exposedName(t object) string {
	if a := str(t, "alias"); a != "" {
		return strings.ToLower(a)
	}
	return strings.ToLower(str(t, "table_name"))
}

// condition reads what a WHERE says of one column of one table.
type condition struct {
	column, table string
	alone         bool // no other table is there: the column needs no qualifier
	args          []any
}

// days is the range outside of which the expression is false or NULL.
func (c condition) days(v any) days {
	n, ok := v.(object)
	if !ok {
		return allDays
	}
	switch str(n, "type") {
	case "CONJUNCTION_AND":
		out := allDays
		for _, x := range children(n) {
			out = out.and(c.days(x))
		}
		return out
	case "CONJUNCTION_OR":
		parts := children(n)
		if len(parts) == 0 {
			return allDays
		}
		out := c.days(parts[0])
		for _, x := range parts[1:] {
			out = out.or(c.days(x))
		}
		return out
	case "COMPARE_EQUAL", "COMPARE_LESSTHAN", "COMPARE_LESSTHANOREQUALTO", "COMPARE_GREATERTHAN", "COMPARE_GREATERTHANOREQUALTO":
		return c.comparison(str(n, "type"), n["left"], n["right"])
	case "COMPARE_BETWEEN":
		if !c.isColumn(n["input"]) {
			return allDays
		}
		out := allDays
		if d, ok := c.constant(n["lower"]); ok {
			out.from = d
		}
		if d, ok := c.constant(n["upper"]); ok {
			out.to = d
		}
		return out
	case "COMPARE_IN":
		parts := children(n)
		if len(parts) < 2 || !c.isColumn(parts[0]) {
			return allDays
		}
		out := days{math.MaxInt32, math.MinInt32}
		for _, x := range parts[1:] {
			d, ok := c.constant(x)
			if !ok {
				return allDays
			}
			out = out.or(days{d, d})
		}
		return out
	}
	return allDays
}

func (c condition) comparison(kind string, left, right any) days {
	less, greater := strings.HasPrefix(kind, "COMPARE_LESSTHAN"), strings.HasPrefix(kind, "COMPARE_GREATERTHAN")
	if c.isColumn(right) {
		left, right, less, greater = right, left, greater, less
	}
	d, ok := c.constant(right)
	switch {
	case !ok || !c.isColumn(left):
		return allDays
	case less:
		return days{math.MinInt32, d}
	case greater:
		return days{d, math.MaxInt32}
	}
	return days{d, d}
}

func children(n object) []any {
	list, _ := n["children"].([]any)
	return list
}

func (c condition) isColumn(v any) bool {
	n, _ := v.(object)
	if str(n, "type") != "COLUMN_REF" {
		return false
	}
	names, _ := n["column_names"].([]any)
	name := func(i int) string { s, _ := names[i].(string); return s }
	switch len(names) {
	case 1:
		return c.alone && strings.EqualFold(name(0), c.column)
	case 2:
		return strings.EqualFold(name(0), c.table) && strings.EqualFold(name(1), c.column)
	}
	return false
}

// constant is a date written in the statement, or given as its parameter.
func (c condition) constant(v any) (int32, bool) {
	n, _ := v.(object)
	switch str(n, "type") {
	case "VALUE_CONSTANT":
		value, _ := n["value"].(object)
		typ, _ := value["type"].(object)
		text, ok := value["value"].(string)
		if !ok || str(typ, "id") != "VARCHAR" {
			return 0, false
		}
		at, err := time.Parse(time.DateOnly, text)
		return int32(at.Unix() / 86_400), err == nil
	case "OPERATOR_CAST":
		typ, _ := n["cast_type"].(object)
		if try, _ := n["try_cast"].(bool); try || str(typ, "id") != "DATE" {
			return 0, false
		}
		return c.constant(n["child"])
	case "VALUE_PARAMETER":
		i, err := strconv.Atoi(str(n, "identifier"))
		if err != nil || i < 1 || i > len(c.args) {
			return 0, false
		}
		d, ok := c.args[i-1].(Date)
		return int32(d), ok
	}
	return 0, false
}
