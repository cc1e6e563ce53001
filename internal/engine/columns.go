package engine

import "strings"

// Of a table of many columns a statement names few, and each one that DuckDB is
// told of costs: to bind a scan of twenty takes 2 ms, of two 0.7.

// wholeRows are the types of nodes that take columns without their names.
var wholeRows = words("star positional_reference pivot show_ref natural positional")

// namedColumns are the words of a statement, in lower case, among which are the
// names of all columns that it takes from tables. nil: it takes some without
// naming them.
func namedColumns(tree object) map[string]bool {
	names := map[string]bool{}
	tables := map[string]bool{}
	all := false
	walkSorted(tree, func(n object) {
		for _, of := range []string{"class", "type", "ref_type"} {
			all = all || wholeRows[strings.ToLower(str(n, of))]
		}
		if aliases, _ := n["column_name_alias"].([]any); len(aliases) > 0 {
			all = true
		}
		if str(n, "type") == "BASE_TABLE" {
			tables[exposedName(n)] = true
		}
		for _, v := range n {
			addWords(names, v)
		}
	})
	walkSorted(tree, func(n object) {
		if str(n, "class") != "COLUMN_REF" && str(n, "type") != "COLUMN_REF" {
			return
		}
		// A table's name alone is its whole row.
		parts, _ := n["column_names"].([]any)
		if len(parts) > 0 {
			last, _ := parts[len(parts)-1].(string)
			all = all || tables[strings.ToLower(last)]
		}
	})
	if all {
		return nil
	}
	return names
}

// addWords adds the strings of v that are no nodes of their own.
func addWords(names map[string]bool, v any) {
	switch v := v.(type) {
	case string:
		names[strings.ToLower(v)] = true
	case []any:
		for _, x := range v {
			addWords(names, x)
		}
	}
}

// only is r with the columns that are among names, at least one. nil names all.
func (r *Relation) only(names map[string]bool) *Relation {
	if names == nil || r.ByName || len(r.Removals) > 0 || r.Positions {
		return r
	}
	any := false
	return r.keep(func(i int) bool {
		f := &r.Schema.Fields[i]
		wanted := names[strings.ToLower(f.Name)] || !isASCII(f.Name) || i+1 == len(r.Schema.Fields) && !any
		any = any || wanted
		return wanted
	})
}

// isASCII: of other names it is DuckDB's to say which are the same.
func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}
