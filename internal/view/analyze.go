package view

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/engine"
)

// notDelta says why a query cannot be kept by deltas.
type notDelta struct{ reason string }

func (e *notDelta) Error() string { return e.reason }

func notByDelta(format string, args ...any) error { return &notDelta{fmt.Sprintf(format, args...)} }

// volatileFunctions answer something else each time or to each user, so that no
// view may hold them. Some are written without parentheses, as a column is.
var volatileFunctions = map[string]bool{"localtime": true, "localtimestamp": true, "current_user": true, "session_user": true, "user": true, "current_role": true,
	"current_schema": true, "current_catalog": true, "current_database": true, "current_schemas": true,
	"random": true, "gen_random_uuid": true, "uuid": true, "uuidv4": true, "uuidv7": true, "now": true, "today": true,
	"current_timestamp": true, "get_current_timestamp": true, "transaction_timestamp": true, "current_date": true, "current_time": true, "get_current_time": true,
	"current_localtime": true, "current_localtimestamp": true, "nextval": true, "currval": true, "setseed": true, "reservoir_quantile": true}

// mergeable are the aggregates that merge with themselves, or as count does.
var mergeable = map[string]string{"sum": "sum", "count": mergeCount, "count_star": mergeCount, "min": "min", "max": "max", "bool_and": "bool_and", "bool_or": "bool_or"}

// analyzer turns a definition into a layout.
type analyzer struct {
	z   serializer
	d   Definition
	pin *engine.Pin // the tables without rows, for binding

	tree       node
	aggregates map[string]bool
	columns    map[string]int // lower-case column → tables of FROM that have it

	keys    []node
	keyAt   map[string]int // by shape
	parts   []node         // partial aggregates, aliased with their names
	merges  []string
	partAt  map[string]int // by shape
	average [][2]int       // parts of avg_1, avg_2 …
}

// analyze decides how d is kept. relations give the shapes of its tables; their
// files are not read.
func analyze(ctx context.Context, e *engine.Engine, d Definition, relations map[engine.Name]engine.Relation) (layout, error) {
	empty := make(map[engine.Name]engine.Relation, len(relations))
	for n, r := range relations {
		r.Files = nil
		empty[n] = r
	}
	a := &analyzer{z: serializer{e}, d: d, pin: engine.NewPin(empty)}
	defer a.pin.Release()
	tree, err := a.z.parse(ctx, d.Query)
	if err != nil {
		return layout{}, err
	}
	a.tree = tree
	if err := a.refuse(empty); err != nil {
		return layout{}, err
	}
	l, err := a.byDelta(ctx, empty)
	if err == nil {
		err = a.verify(ctx, &l, empty)
	}
	var not *notDelta
	if err == nil || !errors.As(err, &not) {
		return l, err
	}
	reason := not.reason
	l, err = a.stored(ctx)
	if err == nil {
		l.Reason = reason
		err = a.verify(ctx, &l, empty)
	}
	if err == nil || !errors.As(err, &not) {
		return l, err
	}
	l = layout{Version: layoutVersion, Mode: modeQuery, Reason: reason + "; " + not.reason, Read: "SELECT " + a.results("d") + " FROM (" + d.Query + ") AS d" + a.resultNames()}
	return l, a.verify(ctx, &l, empty)
}

// refuse names what no view may have, and makes column references plain.
func (a *analyzer) refuse(relations map[engine.Name]engine.Relation) error {
	var err error
	columns := map[string]bool{}
	for _, r := range relations {
		for _, f := range r.Schema.Fields {
			columns[strings.ToLower(f.Name)] = true
		}
	}
	walk(a.tree, func(n node) bool {
		if names := list(n, "column_names"); str(n, "class") == "COLUMN_REF" && len(names) == 1 {
			word, _ := names[0].(string)
			if word = strings.ToLower(word); volatileFunctions[word] && !columns[word] {
				err = &UnsupportedError{What: word, Hint: "its answer changes without any change of a table; use it where the view is read"}
			}
		}
		if name := strings.ToLower(str(n, "function_name")); volatileFunctions[name] || name == "age" && len(list(n, "children")) == 1 {
			err = &UnsupportedError{What: name + "()", Hint: "its answer changes without any change of a table; use it where the view is read"}
		}
		if n["sample"] != nil {
			err = &UnsupportedError{What: "TABLESAMPLE", Hint: "sample where the view is read"}
		}
		if str(n, "class") == "PARAMETER" {
			err = &UnsupportedError{What: "a parameter"}
		}
		if names := list(n, "column_names"); str(n, "class") == "COLUMN_REF" && len(names) > 2 {
			schema, _ := names[0].(string)
			table, _ := names[1].(string)
			for _, t := range a.d.Tables {
				if strings.EqualFold(t.Namespace, schema) && strings.EqualFold(t.Table, table) {
					n["column_names"] = names[1:]
					break
				}
			}
		}
		if isTable(n) && str(n, "alias") == "" {
			n["alias"] = str(n, "table_name") // it will have another name
		}
		return true
	})
	return err
}

// byDelta is the layout of partial rows, or *notDelta.
func (a *analyzer) byDelta(ctx context.Context, relations map[engine.Name]engine.Relation) (layout, error) {
	sel := child(a.tree, "node")
	fact, err := a.checkSelect(sel, relations)
	if err != nil {
		return layout{}, err
	}
	if err := a.loadAggregates(ctx); err != nil {
		return layout{}, err
	}
	if err := a.findKeys(sel); err != nil {
		return layout{}, err
	}
	outer := node{}
	for k, v := range sel {
		outer[k] = v
	}
	items := make([]any, len(list(sel, "select_list")))
	for i, item := range list(sel, "select_list") {
		n, _ := item.(node)
		x, err := a.overMerged(n, sel, 0)
		if err != nil {
			return layout{}, err
		}
		items[i] = aliased(x, "c"+strconv.Itoa(i+1))
	}
	if len(items) != len(a.d.Columns) {
		return layout{}, notByDelta("its columns are not listed one by one")
	}
	outer["select_list"], outer["from_table"] = items, tableRef("", mergedName, "")
	outer["group_expressions"], outer["group_sets"], outer["having"], outer["where_clause"], outer["modifiers"] = []any{}, []any{}, nil, nil, []any{}
	if having := child(sel, "having"); having != nil {
		x, err := a.overMerged(having, sel, 0)
		if err != nil {
			return layout{}, err
		}
		outer["where_clause"] = x
	}
	if len(a.keys) == 0 && len(a.parts) == 0 {
		return layout{}, notByDelta("it has neither GROUP BY nor aggregates")
	}
	l := layout{Version: layoutVersion, Mode: modeDelta, Fact: fact}
	if err := a.typeState(ctx, sel, &l); err != nil {
		return layout{}, err
	}
	return l, a.write(ctx, sel, outer, &l)
}

// mergedName and resultName are the WITH queries of a reading.
const (
	mergedName = "__merged"
	resultName = "__result"
)

// checkSelect checks everything but the expressions, and finds the fact.
func (a *analyzer) checkSelect(sel node, relations map[engine.Name]engine.Relation) (catalog.Name, error) {
	if str(sel, "type") != "SELECT_NODE" {
		return catalog.Name{}, notByDelta("it is a set operation or recursive")
	}
	if len(list(child(sel, "cte_map"), "map")) > 0 {
		return catalog.Name{}, notByDelta("it has WITH queries")
	}
	for _, m := range list(sel, "modifiers") {
		n, _ := m.(node)
		switch str(n, "type") {
		case "ORDER_MODIFIER": // a view has no order
		case "DISTINCT_MODIFIER":
			return catalog.Name{}, notByDelta("it is a SELECT DISTINCT")
		default:
			return catalog.Name{}, notByDelta("it has LIMIT")
		}
	}
	if sel["qualify"] != nil {
		return catalog.Name{}, notByDelta("it has QUALIFY")
	}
	if str(sel, "aggregate_handling") != "STANDARD_HANDLING" || len(list(sel, "group_sets")) > 1 {
		return catalog.Name{}, notByDelta("its GROUP BY makes several groupings")
	}
	for _, part := range []any{sel["select_list"], sel["where_clause"], sel["group_expressions"], sel["having"], sel["from_table"]} {
		var err error
		walk(part, func(n node) bool {
			switch str(n, "class") {
			case "SUBQUERY":
				err = notByDelta("it has a subquery in an expression")
			case "WINDOW":
				err = notByDelta("it has a window function")
			}
			return err == nil
		})
		if err != nil {
			return catalog.Name{}, err
		}
	}
	return a.checkFrom(child(sel, "from_table"), relations)
}

// checkFrom checks that the joins distribute over rows of the fact: it stands
// leftmost, once, and only inner and left joins stand above it.
func (a *analyzer) checkFrom(from node, relations map[engine.Name]engine.Relation) (catalog.Name, error) {
	n := from
	for str(n, "type") == "JOIN" {
		if t := str(n, "join_type"); t != "INNER" && t != "LEFT" {
			return catalog.Name{}, notByDelta("it has a %s join", strings.ToLower(t))
		}
		if r := str(n, "ref_type"); r != "REGULAR" && r != "CROSS" && r != "NATURAL" {
			return catalog.Name{}, notByDelta("it has a join of the form %s", strings.ToLower(r))
		}
		n = child(n, "left")
	}
	if !isTable(n) {
		return catalog.Name{}, notByDelta("its FROM does not begin with a table")
	}
	fact := catalog.Name{Namespace: str(n, "schema_name"), Table: str(n, "table_name")}
	a.columns = map[string]int{}
	seen := 0
	var err error
	walk(from, func(n node) bool {
		switch str(n, "type") {
		case "SUBQUERY", "TABLE_FUNCTION", "EXPRESSION_LIST", "EMPTY", "PIVOT", "SHOW_REF":
			err = notByDelta("its FROM has more than tables")
		case "BASE_TABLE":
			name := engine.Name{Namespace: str(n, "schema_name"), Table: str(n, "table_name")}
			if n["at_clause"] != nil || len(list(n, "column_name_alias")) > 0 {
				err = notByDelta("its FROM renames columns or travels in time")
			}
			if catalog.Name(name) == fact {
				seen++
			}
			for _, f := range relations[name].Schema.Fields {
				a.columns[strings.ToLower(f.Name)]++
			}
		}
		return err == nil
	})
	if err == nil && seen > 1 {
		err = notByDelta("it joins %s with itself", fact)
	}
	return fact, err
}

// loadAggregates asks DuckDB which functions are aggregates.
func (a *analyzer) loadAggregates(ctx context.Context) error {
	row, err := oneRow(ctx, a.z.e, engine.Query{SQL: "SELECT string_agg(DISTINCT function_name, ' ') FROM duckdb_functions() WHERE function_type = 'aggregate'"})
	if err != nil {
		return fmt.Errorf("list aggregates: %w", err)
	}
	a.aggregates = map[string]bool{}
	names, _ := row[0].(string)
	for w := range strings.FieldsSeq(names) {
		a.aggregates[w] = true
	}
	return nil
}

// findKeys resolves the GROUP BY list: positions and aliases stand for items.
func (a *analyzer) findKeys(sel node) error {
	items := list(sel, "select_list")
	a.keyAt, a.partAt = map[string]int{}, map[string]int{}
	for _, g := range list(sel, "group_expressions") {
		n, _ := g.(node)
		if str(n, "class") == "CONSTANT" {
			at, err := strconv.Atoi(fmt.Sprint(child(n, "value")["value"]))
			if err != nil || at < 1 || at > len(items) {
				return notByDelta("it groups by a constant")
			}
			n, _ = items[at-1].(node)
		} else if item := a.byAlias(n, items); item != nil {
			n = item
		}
		if str(n, "class") == "CONSTANT" {
			return notByDelta("it groups by a constant")
		}
		s := a.shape(n)
		if _, ok := a.keyAt[s]; !ok {
			a.keyAt[s] = len(a.keys)
			a.keys = append(a.keys, n)
		}
	}
	return nil
}

// byAlias is the item that a single name stands for, if no table has a column
// of that name.
func (a *analyzer) byAlias(n node, items []any) node {
	names := list(n, "column_names")
	if str(n, "class") != "COLUMN_REF" || len(names) != 1 {
		return nil
	}
	name, _ := names[0].(string)
	if a.columns[strings.ToLower(name)] > 0 {
		return nil
	}
	for _, item := range items {
		if i, _ := item.(node); i != nil && strings.EqualFold(str(i, "alias"), name) {
			return i
		}
	}
	return nil
}

// shape is n's shape with columns that only one table has unqualified.
func (a *analyzer) shape(n node) string {
	c := cloneNode(n)
	walk(c, func(m node) bool {
		if names := list(m, "column_names"); str(m, "class") == "COLUMN_REF" && len(names) == 2 {
			if name, _ := names[1].(string); a.columns[strings.ToLower(name)] == 1 {
				m["column_names"] = names[1:]
			}
		}
		return true
	})
	return shape(c)
}

// expressionDepthMax bounds what an item's rewriting descends, and so how
// aliases may refer to each other.
const expressionDepthMax = 200

// overMerged rewrites an expression of the select list or of HAVING to one over
// merged groups.
func (a *analyzer) overMerged(n, sel node, depth int) (node, error) {
	if depth > expressionDepthMax {
		return nil, notByDelta("an expression is nested too deeply")
	}
	if i, ok := a.keyAt[a.shape(n)]; ok {
		return aliased(columnRef("key_"+strconv.Itoa(i+1)), str(n, "alias")), nil
	}
	name := strings.ToLower(str(n, "function_name"))
	switch class := str(n, "class"); {
	case class == "STAR" || class == "POSITIONAL_REFERENCE" || class == "LAMBDA":
		return nil, notByDelta("an expression has a %s", strings.ToLower(strings.ReplaceAll(class, "_", " ")))
	case class == "COLUMN_REF":
		if item := a.byAlias(n, list(sel, "select_list")); item != nil {
			return a.overMerged(item, sel, depth+1)
		}
		return nil, notByDelta("column %v is neither grouped nor aggregated", list(n, "column_names"))
	case class == "FUNCTION" && (name == "avg" || name == "mean"):
		return a.addAverage(n)
	case class == "FUNCTION" && a.aggregates[name]:
		i, err := a.addPart(n, name)
		if err != nil {
			return nil, err
		}
		return aliased(columnRef(str(a.parts[i], "alias")), str(n, "alias")), nil
	}
	out := make(node, len(n))
	for k, v := range n {
		x, err := a.overMergedValue(v, sel, depth+1)
		if err != nil {
			return nil, err
		}
		out[k] = x
	}
	return out, nil
}

func (a *analyzer) overMergedValue(v any, sel node, depth int) (any, error) {
	switch v := v.(type) {
	case node:
		return a.overMerged(v, sel, depth)
	case []any:
		out := make([]any, len(v))
		for i := range v {
			x, err := a.overMergedValue(v[i], sel, depth)
			if err != nil {
				return nil, err
			}
			out[i] = x
		}
		return out, nil
	}
	return v, nil
}

// addPart makes sure that the state has an aggregate.
func (a *analyzer) addPart(n node, name string) (int, error) {
	merge, ok := mergeable[name]
	distinct, _ := n["distinct"].(bool)
	switch {
	case !ok || len(list(n, "children")) > 1:
		return 0, notByDelta("%s cannot be kept by deltas", name)
	case distinct && merge != "min" && merge != "max":
		return 0, notByDelta("%s(DISTINCT …) cannot be kept by deltas", name)
	case len(list(child(n, "order_bys"), "orders")) > 0:
		return 0, notByDelta("%s has an ORDER BY of its own", name)
	}
	s := a.shape(n)
	if i, ok := a.partAt[s]; ok {
		return i, nil
	}
	i := len(a.parts)
	a.partAt[s] = i
	a.parts = append(a.parts, aliased(n, merge+"_"+strconv.Itoa(i+1)))
	a.merges = append(a.merges, merge)
	return i, nil
}

// addAverage splits an average into its sum and its count.
func (a *analyzer) addAverage(n node) (node, error) {
	if distinct, _ := n["distinct"].(bool); distinct {
		return nil, notByDelta("avg(DISTINCT …) cannot be kept by deltas")
	}
	var at [2]int
	for i, name := range []string{"sum", "count"} {
		c := cloneNode(n)
		c["function_name"] = name
		var err error
		if at[i], err = a.addPart(c, name); err != nil {
			return nil, err
		}
	}
	for i, have := range a.average {
		if have == at {
			return aliased(columnRef("avg_"+strconv.Itoa(i+1)), str(n, "alias")), nil
		}
	}
	a.average = append(a.average, at)
	return aliased(columnRef("avg_"+strconv.Itoa(len(a.average))), str(n, "alias")), nil
}
