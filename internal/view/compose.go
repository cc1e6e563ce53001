package view

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"strings"

	"github.com/tapehouse/tapehouse/internal/engine"
)

// typeState asks DuckDB for the types of the keys and aggregates and makes the
// state's columns of them.
func (a *analyzer) typeState(ctx context.Context, sel node, l *layout) error {
	probe := cloneNode(sel)
	var items []any
	for _, k := range a.keys {
		items = append(items, call("typeof", call("any_value", aliased(k, ""))))
	}
	for _, p := range a.parts {
		items = append(items, call("typeof", aliased(p, "")))
	}
	var types []any
	if len(items) > 0 {
		probe["select_list"], probe["modifiers"], probe["having"] = items, []any{}, nil
		probe["group_expressions"], probe["group_sets"] = []any{}, []any{}
		text, err := a.z.printNode(ctx, probe)
		if err != nil {
			return err
		}
		if types, err = oneRow(ctx, a.z.e, engine.Query{SQL: text, Pin: a.pin, Exact: true}); err != nil {
			return err
		}
	}
	for i := range a.keys {
		t, _ := types[i].(string)
		if t == "FLOAT" || t == "DOUBLE" {
			return notByDelta("it groups by floating-point numbers")
		}
		if !l.add("key_"+strconv.Itoa(i+1), mergeKey, t) {
			return notByDelta("it groups by the type %s", t)
		}
	}
	for i, p := range a.parts {
		t, _ := types[len(a.keys)+i].(string)
		if _, _, decimal := decimalOf(t); a.merges[i] == "sum" && t != "HUGEINT" && !decimal {
			return notByDelta("a sum of the type %s depends on the order of its rows", t)
		}
		if !l.add(str(p, "alias"), a.merges[i], t) {
			return notByDelta("%s of the type %s cannot be stored", a.merges[i], t)
		}
	}
	if !l.add("weight", mergeWeight, "BIGINT") {
		return errors.New("a weight cannot be stored")
	}
	return nil
}

// write makes the layout's SQL.
func (a *analyzer) write(ctx context.Context, sel, outer node, l *layout) error {
	partial := cloneNode(sel)
	var items, groups, set []any
	for i, k := range a.keys {
		items = append(items, aliased(k, "key_"+strconv.Itoa(i+1)))
		groups = append(groups, integer(i+1)) // its position
		set = append(set, json.Number(strconv.Itoa(i)))
	}
	for _, p := range a.parts {
		items = append(items, p)
	}
	partial["select_list"] = append(items, aliased(call("count_star"), "weight"))
	partial["group_expressions"], partial["group_sets"], partial["modifiers"], partial["having"] = groups, []any{set}, []any{}, nil
	if len(a.keys) == 0 {
		// A grouping without keys has a row even of nothing; a delta has not.
		partial["group_expressions"], partial["group_sets"] = []any{}, []any{}
		partial["having"] = compareGreater(call("count_star"), integer(0))
	}
	delta := deltaName(a.d.Name)
	walk(partial["from_table"], func(n node) bool {
		if isTable(n) && str(n, "schema_name") == l.Fact.Namespace && str(n, "table_name") == l.Fact.Table {
			n["schema_name"], n["table_name"] = delta.Namespace, delta.Table
		}
		return true
	})
	text, err := a.z.printNode(ctx, partial)
	if err != nil {
		return err
	}
	var casts, names, merges, folds, by []string
	for _, c := range l.State {
		q := engine.QuoteIdentifier(c.Name)
		names = append(names, q)
		casts = append(casts, "CAST(p."+q+" AS "+c.storeSQL()+") AS "+q)
		merges = append(merges, c.merged()+" AS "+q)
		if c.Merge == mergeKey {
			by = append(by, "u."+q)
			folds = append(folds, "u."+q+" AS "+q)
		} else {
			folds = append(folds, c.merged()+" AS "+q)
		}
	}
	at := func(part int) stateColumn { return l.State[len(a.keys)+part] }
	for i, pair := range a.average {
		merges = append(merges, averageSQL(at(pair[0]), at(pair[1]))+" AS "+engine.QuoteIdentifier("avg_"+strconv.Itoa(i+1)))
	}
	group := ""
	if len(by) > 0 {
		group = " GROUP BY " + strings.Join(by, ", ") + " HAVING sum(u.weight) > 0"
	}
	l.Fill = "SELECT " + strings.Join(casts, ", ") + " FROM (" + text + ") AS p"
	partials := "SELECT " + strings.Join(names, ", ") + " FROM " + quoteName(partialsName(a.d.Name))
	l.Fold = "SELECT " + strings.Join(folds, ", ") + " FROM (" + partials + ") AS u" + group
	if text, err = a.z.printNode(ctx, outer); err != nil {
		return err
	}
	l.Read = "WITH " + mergedName + " AS (SELECT " + strings.Join(merges, ", ") + " FROM (" + partials + " UNION ALL " + l.Fill + ") AS u" + group + "), " +
		resultName + a.resultNames() + " AS (" + text + ") SELECT " + a.results(resultName) + " FROM " + resultName
	return nil
}

// resultNames is ("c1", …), the aliases of a result's columns until they get
// their own names: those of a definition may be no identifiers.
func (a *analyzer) resultNames() string {
	names := make([]string, len(a.d.Columns))
	for i := range names {
		names[i] = "c" + strconv.Itoa(i+1)
	}
	return "(" + strings.Join(names, ", ") + ")"
}

// results are the columns c1 … of from in their declared types and names.
func (a *analyzer) results(from string) string {
	out := make([]string, len(a.d.Columns))
	for i, c := range a.d.Columns {
		x := from + ".c" + strconv.Itoa(i+1)
		if t := declaredType(c.Type); t != "" {
			x = "CAST(" + x + " AS " + t + ")"
		}
		out[i] = x + " AS " + engine.QuoteIdentifier(c.Name)
	}
	return strings.Join(out, ", ")
}

// stored is the layout of a stored result, or *notDelta.
func (a *analyzer) stored(ctx context.Context) (layout, error) {
	l := layout{Version: layoutVersion, Mode: modeStored}
	var casts, reads []string
	for i, c := range a.d.Columns {
		t := declaredType(c.Type)
		name := "value_" + strconv.Itoa(i+1)
		if t == "" || !l.add(name, mergeValue, t) {
			return layout{}, notByDelta("its column %s of the type %s cannot be stored", c.Name, c.Type)
		}
		last := l.State[len(l.State)-1]
		casts = append(casts, "CAST(d.c"+strconv.Itoa(i+1)+" AS "+last.storeSQL()+") AS "+name)
		reads = append(reads, "CAST(s."+name+" AS "+t+") AS "+engine.QuoteIdentifier(c.Name))
	}
	full := cloneNode(a.tree)
	walk(full, func(n node) bool {
		if !isTable(n) {
			return true
		}
		for i, t := range a.d.Tables {
			if str(n, "schema_name") == t.Namespace && str(n, "table_name") == t.Table {
				name := fullName(a.d.Name, i)
				n["schema_name"], n["table_name"] = name.Namespace, name.Table
				break
			}
		}
		return true
	})
	text, err := a.z.print(ctx, full)
	if err != nil {
		return layout{}, err
	}
	stored := quoteName(storedName(a.d.Name))
	query := "(" + text + ") AS d" + a.resultNames()
	l.Fill = "SELECT " + strings.Join(casts, ", ") + " FROM " + query
	// Where the stored result is right, the other relations have no files.
	l.Read = "SELECT " + strings.Join(reads, ", ") + " FROM " + stored + " AS s UNION ALL SELECT " + a.results("d") + " FROM " + query +
		" WHERE NOT EXISTS (SELECT 1 FROM " + stored + ")"
	return l, nil
}

// verify binds the layout's SQL to empty relations and compares its columns
// with those that the definition declares. It returns *notDelta if they differ.
func (a *analyzer) verify(ctx context.Context, l *layout, relations map[engine.Name]engine.Relation) error {
	all := make(map[engine.Name]engine.Relation, len(relations)+2)
	for n, r := range relations {
		all[n] = r
	}
	l.addShapes(a.d, all)
	pin := engine.NewPin(all)
	defer pin.Release()
	s, err := a.z.e.Session(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }() // it never fails
	_, columns, err := s.Describe(ctx, engine.Query{SQL: l.Read, Pin: pin, Exact: true})
	if err != nil {
		var x *engine.Error
		if l.Mode != modeQuery && errors.As(err, &x) && x.Kind != engine.Interrupted {
			return notByDelta("its merged form does not bind (%s)", x.Message)
		}
		return err
	}
	if len(columns) != len(a.d.Columns) {
		return notByDelta("its merged form has %d columns", len(columns))
	}
	for i, c := range columns {
		want := declaredType(a.d.Columns[i].Type)
		if want != "" && want != c.Type.SQL() && c.Type.Kind != engine.Varchar {
			return notByDelta("column %s is %s instead of %s", c.Name, c.Type, want)
		}
	}
	return nil
}

// addShapes adds the layout's hand-made relations to tables, all without rows.
func (l *layout) addShapes(d Definition, relations map[engine.Name]engine.Relation) {
	state := engine.Relation{Schema: l.schema(0)}
	switch l.Mode {
	case modeDelta:
		relations[partialsName(d.Name)] = state
		fact := relations[engine.Name(l.Fact)]
		fact.Files = nil
		relations[deltaName(d.Name)] = fact
	case modeStored:
		relations[storedName(d.Name)] = state
		for i, t := range d.Tables {
			full := relations[engine.Name(t)]
			full.Files = nil
			relations[fullName(d.Name, i)] = full
		}
	}
}
