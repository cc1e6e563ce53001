package engine

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"math"
	"math/big"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tapehouse/tapehouse/internal/record"
)

// A table's files cost each statement time: DuckDB prunes by what stands in
// them, and so has to open them all (about 80 µs a file, several times that
// where the lake is elsewhere and they are fetched first). Therefore the
// conditions that a statement puts on a table's columns choose the files that
// DuckDB gets to know, by the bounds that the catalog and the tail keep of each.
// DuckDB evaluates the conditions all the same: a file too many costs time, and
// a file too few would cost rows. So whatever is not plainly understood chooses
// every file.

// narrowFilesMin is how many local files a narrowing must spare: the statement
// pays it with a view of its own, where that of the whole table is often made
// already.
const narrowFilesMin = 12

// Ranges knows a file's columns.
type Ranges interface {
	// Range gives bounds of a column's values, nulls apart, in Iceberg's
	// single-value binary form; they may be wider than the values. nil: unknown.
	Range(fieldID int) (lower, upper []byte)
}

// nullRanges are Ranges that know of columns that are null in all rows, for which
// no comparison is true.
type nullRanges interface {
	AllNull(fieldID int) bool
}

// narrowed is q's pin without the files that q's conditions exclude, or nil if
// that would be much the same. The caller must Release it, before q's own pin.
func (e *Engine) narrowed(ctx context.Context, c *conn, q Query) (*Pin, error) {
	if q.Pin == nil {
		return nil, nil
	}
	candidates := map[Name]Relation{}
	for _, n := range q.Pin.Names() {
		if r, _ := q.Pin.Relation(n); len(r.Files) > narrowFilesMin || e.hasRemote(r) || r.Source != nil {
			candidates[n] = r
		}
	}
	if len(candidates) == 0 {
		return nil, nil
	}
	m, err := e.references(ctx, c, q.SQL)
	if err != nil {
		return nil, err
	}
	wanted := map[Name][]test{} // of each reference; a file is wanted by any
	for _, ref := range m.references {
		n, ok := q.Pin.find(ref.schema, ref.table)
		if r, candidate := candidates[n]; ok && candidate {
			k := condition{relation: &r, table: ref.exposed, alone: ref.alone, args: q.Args}
			wanted[n] = append(wanted[n], k.test(ref.where))
		}
	}
	changed := map[Name]Relation{}
	found, err := e.find(ctx, candidates, wanted, m, changed)
	if err != nil {
		return nil, err
	}
	for n, tests := range wanted {
		r := candidates[n]
		if r.Source != nil {
			continue
		}
		files := make([]File, 0, len(r.Files))
		for i := range r.Files {
			f := &r.Files[i]
			if slices.ContainsFunc(tests, func(t test) bool { return t.may(f) }) {
				files = append(files, *f)
			}
		}
		if spared := len(r.Files) - len(files); spared >= narrowFilesMin || spared > 0 && e.hasRemote(r) {
			r.Files = files
			changed[n] = r
		}
	}
	return q.Pin.with(changed, found), nil
}

// find asks the sources of foreign relations for the files that a statement wants,
// and puts the relations with them into changed.
func (e *Engine) find(ctx context.Context, candidates map[Name]Relation, wanted map[Name][]test, m *mention, changed map[Name]Relation) (_ map[Name]SourceFiles, err error) {
	found := map[Name]SourceFiles{}
	defer func() {
		if err == nil {
			return
		}
		for _, f := range found {
			f.Release()
		}
	}()
	for n, r := range candidates {
		if r.Source == nil {
			continue
		}
		shown := r.visible(m)
		shown.Source = nil
		if tests := wanted[n]; len(tests) > 0 {
			files, err := r.Source.Files(ctx, func(partition Ranges) bool {
				f := File{Ranges: partition}
				return slices.ContainsFunc(tests, func(t test) bool { return t.may(&f) })
			})
			if err != nil {
				return nil, err
			}
			found[n], shown.Files = files, files.Files
		}
		changed[n] = shown
	}
	return found, nil
}

// described is a pin with the columns of p's tables and no files of those that
// have many or remote ones: describing a statement fetches and opens nothing.
// nil: q's pin has none.
func (e *Engine) described(ctx context.Context, c *conn, q Query) (*Pin, error) {
	if q.Pin == nil {
		return nil, nil
	}
	changed := map[Name]Relation{}
	for _, n := range q.Pin.Names() {
		r, _ := q.Pin.Relation(n)
		if r.Source != nil {
			m, err := e.references(ctx, c, q.SQL)
			if err != nil {
				return nil, err
			}
			r = r.visible(m)
			r.Source = nil
			changed[n] = r
		} else if len(r.Files) > narrowFilesMin || e.hasRemote(r) {
			r.Files = nil
			changed[n] = r
		}
	}
	return q.Pin.with(changed, nil), nil
}

func (e *Engine) hasRemote(r Relation) bool {
	return e.options.Files != nil && slices.ContainsFunc(r.Files, func(f File) bool {
		_, remote := e.options.Files.Local(f.Path)
		return remote
	})
}

// with is p with some of its relations replaced, nil if there are none. What it
// does not hold itself, tails above all, p must hold meanwhile.
func (p *Pin) with(changed map[Name]Relation, found map[Name]SourceFiles) *Pin {
	if len(changed) == 0 {
		return nil
	}
	out := NewPin(changed)
	for n, f := range found {
		out.tables[n].release, out.tables[n].unchanged = f.Release, f.Unchanged
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for n, t := range p.tables {
		if out.tables[n] == nil {
			out.tables[n] = &pinned{relation: t.relation, version: t.version}
		}
	}
	return out
}

// reference is one mention of a table in a statement.
type reference struct {
	schema, table string
	exposed       string // the name by which columns call it, in lower case
	alone         bool   // no other table is there: columns need no qualifier
	where         any    // the condition that all its rows that matter meet; nil: none is known
}

// mention is what a statement mentions.
type mention struct {
	references []reference
	words      map[string]bool // among which the names of its columns are, in lower case; of those that begin with '$'
}

// references lists the tables that a statement mentions. It is kept by the
// statement's text, if that is not too long.
func (e *Engine) references(ctx context.Context, c *conn, sql string) (*mention, error) {
	if got, ok := e.mentions.Get(sql); ok {
		return got, nil
	}
	tree, err := c.parse(ctx, sql)
	if err != nil {
		return nil, err
	}
	got := &mention{referencesOf(tree), map[string]bool{}}
	walkSorted(tree, func(n object) {
		names := map[string]bool{}
		for _, v := range n {
			addWords(names, v)
		}
		for name := range names {
			if strings.HasPrefix(name, "$") {
				got.words[name] = true
			}
		}
	})
	if len(sql) <= cachedStatementMax {
		e.mentions.Add(sql, got)
	}
	return got, nil
}

func referencesOf(tree object) []reference {
	understood := map[uintptr]reference{} // by the node of the table reference
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
			aliases, _ := t["column_name_alias"].([]any)
			if len(aliases) > 0 || t["sample"] != nil || t["at_clause"] != nil || exposed[exposedName(t)] != 1 {
				continue
			}
			understood[reflect.ValueOf(t).Pointer()] = reference{exposed: exposedName(t), alone: str(from, "type") == "BASE_TABLE", where: n["where_clause"]}
		}
	})
	var out []reference
	walkSorted(tree, func(n object) {
		if str(n, "type") != "BASE_TABLE" {
			return
		}
		r := understood[reflect.ValueOf(n).Pointer()]
		r.schema, r.table = str(n, "schema_name"), str(n, "table_name")
		out = append(out, r)
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

// A test tells whether a file may have rows that meet a condition. The zero
// value says yes.
type test struct {
	all, either []test // if there are some, all of these, or any of those, must say yes
	compare     *comparison
}

func (t test) may(f *File) bool {
	for _, x := range t.all {
		if !x.may(f) {
			return false
		}
	}
	if len(t.either) > 0 && !slices.ContainsFunc(t.either, func(x test) bool { return x.may(f) }) {
		return false
	}
	return t.compare == nil || t.compare.may(f)
}

// known reports whether t can say no.
func (t test) known() bool { return len(t.all) > 0 || len(t.either) > 0 || t.compare != nil }

// comparison wants values of a column within a range, both ends included.
type comparison struct {
	not              bool // values that are not from, which is to
	fieldID          int
	kind             record.Kind
	partition        bool   // of the column by which the table is partitioned
	from, to         int64  // in the column's unit
	fromText, toText string // of text
	open             bool   // toText has no end
}

func (c *comparison) may(f *File) bool {
	if c.partition && f.PartitionTradeDate != nil {
		d := int64(*f.PartitionTradeDate)
		if c.not {
			return d != c.from
		}
		return c.from <= d && d <= c.to
	}
	if f.Ranges == nil {
		return true
	}
	if n, ok := f.Ranges.(nullRanges); ok && n.AllNull(c.fieldID) {
		return false
	}
	lower, upper := f.Ranges.Range(c.fieldID)
	switch {
	case lower == nil || upper == nil:
		return true
	case c.kind == record.String && c.not: // bounds that are equal are the only value
		return string(lower) != c.fromText || string(upper) != c.fromText
	case c.kind == record.String:
		return string(upper) >= c.fromText && (c.open || string(lower) <= c.toText)
	}
	lo, ok1 := boundOf(c.kind, lower)
	hi, ok2 := boundOf(c.kind, upper)
	if c.not {
		return !ok1 || !ok2 || lo != c.from || hi != c.from
	}
	return !ok1 || !ok2 || hi >= c.from && lo <= c.to
}

// boundOf reads a bound of a column that is not text: little-endian, and a
// decimal's unscaled value big-endian in as few bytes as it needs (Iceberg's
// specification, appendix D). An integer may have been written when its column
// was narrower.
func boundOf(k record.Kind, b []byte) (int64, bool) {
	switch {
	case k != record.Decimal && len(b) == 4:
		return int64(int32(binary.LittleEndian.Uint32(b))), true
	case k != record.Decimal && len(b) == 8:
		return int64(binary.LittleEndian.Uint64(b)), true
	case k != record.Decimal || len(b) == 0 || len(b) > 8:
		return 0, false
	}
	v := int64(int8(b[0]))
	for _, x := range b[1:] {
		v = v<<8 | int64(x)
	}
	return v, true
}

// condition reads what a WHERE says of the columns of one table.
type condition struct {
	relation *Relation
	table    string // by which columns call it, in lower case
	alone    bool
	args     []any
}

// test tells for a file whether the expression may be true for one of its rows,
// or for a row of nulls.
func (c condition) test(v any) test {
	n, ok := v.(object)
	if !ok {
		return test{}
	}
	switch str(n, "type") {
	case "CONJUNCTION_AND":
		var all []test
		for _, x := range children(n) {
			if t := c.test(x); t.known() {
				all = append(all, t)
			}
		}
		return test{all: all}
	case "CONJUNCTION_OR":
		var either []test
		for _, x := range children(n) {
			t := c.test(x)
			if !t.known() {
				return test{}
			}
			either = append(either, t)
		}
		return test{either: either}
	case "COMPARE_EQUAL", "COMPARE_NOTEQUAL", "COMPARE_LESSTHAN", "COMPARE_LESSTHANOREQUALTO", "COMPARE_GREATERTHAN", "COMPARE_GREATERTHANOREQUALTO":
		return c.comparison(str(n, "type"), n["left"], n["right"])
	case "COMPARE_BETWEEN":
		var all []test
		for _, t := range []test{c.comparison("COMPARE_GREATERTHANOREQUALTO", n["input"], n["lower"]), c.comparison("COMPARE_LESSTHANOREQUALTO", n["input"], n["upper"])} {
			if t.known() {
				all = append(all, t)
			}
		}
		return test{all: all}
	case "COMPARE_NOT_IN":
		parts := children(n)
		var all []test
		for i := 1; i < len(parts); i++ {
			if t := c.comparison("COMPARE_NOTEQUAL", parts[0], parts[i]); t.known() {
				all = append(all, t)
			}
		}
		return test{all: all}
	case "COMPARE_IN":
		parts := children(n)
		if len(parts) < 2 {
			return test{}
		}
		var either []test
		for _, x := range parts[1:] {
			t := c.comparison("COMPARE_EQUAL", parts[0], x)
			if !t.known() {
				return test{}
			}
			either = append(either, t)
		}
		return test{either: either}
	}
	return test{}
}

func (c condition) comparison(kind string, left, right any) test {
	less, greater := strings.HasPrefix(kind, "COMPARE_LESSTHAN"), strings.HasPrefix(kind, "COMPARE_GREATERTHAN")
	if c.column(left) < 0 {
		left, right, less, greater = right, left, greater, less
	}
	i := c.column(left)
	if i < 0 || i < len(c.relation.Types) && c.relation.Types[i] != "" && c.relation.Types[i] != "SMALLINT" && c.relation.Types[i] != "TINYINT" {
		return test{}
	}
	f := &c.relation.Schema.Fields[i]
	not := kind == "COMPARE_NOTEQUAL"
	out := &comparison{not: not, fieldID: f.ID, kind: f.Type.Kind, from: math.MinInt64, to: math.MaxInt64, open: true,
		partition: f.Type.Kind == record.Date && strings.EqualFold(f.Name, c.relation.PartitionBy)}
	if f.Type.Kind == record.String {
		text, ok := c.text(right)
		if !ok {
			return test{}
		}
		if !less {
			out.fromText = text
		}
		if !greater {
			out.toText, out.open = text, false
		}
		return test{compare: out}
	}
	lo, hi, ok := c.number(right, f.Type)
	if !ok || not && lo != hi {
		return test{}
	}
	if !less {
		out.from = lo
	}
	if !greater {
		out.to = hi
	}
	return test{compare: out}
}

func children(n object) []any {
	list, _ := n["children"].([]any)
	return list
}

// column is the place in the table's schema of the column that v names, or -1.
func (c condition) column(v any) int {
	n, _ := v.(object)
	if str(n, "type") != "COLUMN_REF" {
		return -1
	}
	names, _ := n["column_names"].([]any)
	name := func(i int) string { s, _ := names[i].(string); return s }
	switch {
	case len(names) == 1 && c.alone:
		return c.named(name(0))
	case len(names) == 2 && strings.EqualFold(name(0), c.table):
		return c.named(name(1))
	}
	return -1
}

// named is the place of the one column of that name: DuckDB does not mind case.
func (c condition) named(name string) int {
	found := -1
	for i := range c.relation.Schema.Fields {
		if strings.EqualFold(c.relation.Schema.Fields[i].Name, name) {
			if found >= 0 {
				return -1
			}
			found = i
		}
	}
	return found
}

// text is a text written in the statement, or given as its parameter.
func (c condition) text(v any) (string, bool) {
	n, _ := v.(object)
	if t := castTo(n); t != "" && t != "VARCHAR" {
		return "", false
	}
	text, ok := c.constant(v).(string)
	return text, ok
}

// number gives a constant in the unit of a column of type t, rounded down and
// up where it lies between two values of the column.
func (c condition) number(v any, t record.Type) (lo, hi int64, ok bool) {
	n, _ := v.(object)
	x := c.constant(v)
	switch t.Kind {
	case record.Int, record.Long, record.Decimal:
		d, isNumber := x.(Decimal)
		if !isNumber {
			return 0, 0, false
		}
		return scaled(d, t.Scale)
	case record.Date:
		if text, quoted := x.(string); quoted && (str(n, "type") == "VALUE_CONSTANT" || castTo(n) == "DATE") {
			at, err := time.Parse(time.DateOnly, text)
			days := at.Unix() / 86_400
			return days, days, err == nil
		}
		d, isDate := x.(Date)
		return int64(d), int64(d), isDate
	case record.TimestampTZ:
		if text, quoted := x.(string); quoted && castTo(n) == "TIMESTAMP WITH TIME ZONE" {
			for _, layout := range []string{"2006-01-02 15:04:05Z07", "2006-01-02 15:04:05Z07:00"} {
				if at, err := time.Parse(layout, text); err == nil {
					return at.UnixMicro(), at.UnixMicro() + 1, true // digits below are cut off or rounded
				}
			}
		}
		at, isTime := x.(TimestampTZ)
		return int64(at), int64(at), isTime
	}
	return 0, 0, false
}

// scaled is d times 10^scale, rounded down and up.
func scaled(d Decimal, scale int) (lo, hi int64, ok bool) {
	n := d.Unscaled
	shift := scale - int(d.Scale)
	if shift > 38 || shift < -decimalDigitsMax {
		return 0, 0, false
	}
	if shift >= 0 {
		n = new(big.Int).Mul(n, pow10(shift))
		return n.Int64(), n.Int64(), n.IsInt64()
	}
	down, rest := new(big.Int).DivMod(n, pow10(-shift), new(big.Int)) // Euclidean: down is the floor
	if !down.IsInt64() || down.Int64() == math.MaxInt64 {
		return 0, 0, false
	}
	lo = down.Int64()
	if hi = lo; rest.Sign() != 0 {
		hi++
	}
	return lo, hi, true
}

// castTo is the type that n casts to, "" if it is no cast.
func castTo(n object) string {
	typ, _ := n["cast_type"].(object)
	if try, _ := n["try_cast"].(bool); try || str(n, "type") != "OPERATOR_CAST" {
		return ""
	}
	return str(typ, "id")
}

// constant is a value written in the statement, or given as its parameter: a
// string, a Decimal for whatever number that is exact, a Date or a TimestampTZ.
// nil: none of these, or not constant. Casts between numbers are looked through
// where they change no value, casts of text are the caller's to judge.
func (c condition) constant(v any) any {
	n, _ := v.(object)
	switch str(n, "type") {
	case "VALUE_CONSTANT":
		value, _ := n["value"].(object)
		typ, _ := value["type"].(object)
		switch id := str(typ, "id"); id {
		case "VARCHAR":
			if text, ok := value["value"].(string); ok {
				return text
			}
		case "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "INTEGER_LITERAL", "DECIMAL":
			text, ok := value["value"].(json.Number)
			unscaled, isInteger := new(big.Int).SetString(string(text), 10)
			if !ok || !isInteger {
				return nil
			}
			d := Decimal{Unscaled: unscaled}
			if id == "DECIMAL" {
				info, _ := typ["type_info"].(object)
				scale, ok := info["scale"].(json.Number)
				s, err := strconv.Atoi(string(scale))
				if !ok || err != nil {
					return nil
				}
				d.Scale = int32(s)
			}
			return d
		}
	case "OPERATOR_CAST":
		inner := c.constant(n["child"])
		switch castTo(n) {
		case "SMALLINT", "INTEGER", "BIGINT":
			if d, ok := inner.(Decimal); ok && d.Scale == 0 {
				return d
			}
		case "VARCHAR", "DATE", "TIMESTAMP WITH TIME ZONE":
			child, _ := n["child"].(object)
			switch x := inner.(type) {
			case string:
				if castTo(child) == "" {
					return x
				}
			case Date:
				if castTo(n) == "DATE" {
					return x
				}
			case TimestampTZ:
				if castTo(n) == "TIMESTAMP WITH TIME ZONE" {
					return x
				}
			}
		}
	case "VALUE_PARAMETER":
		i, err := strconv.Atoi(str(n, "identifier"))
		if err != nil || i < 1 || i > len(c.args) {
			return nil
		}
		switch a := c.args[i-1].(type) {
		case int16:
			return Decimal{Unscaled: big.NewInt(int64(a))}
		case int32:
			return Decimal{Unscaled: big.NewInt(int64(a))}
		case int64:
			return Decimal{Unscaled: big.NewInt(a)}
		case Decimal, Date, TimestampTZ, string:
			return a
		}
	}
	return nil
}
