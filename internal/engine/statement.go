package engine

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// boundStatement is a statement whose tables are views of a pin.
type boundStatement struct {
	text     string
	used     []Name
	columns  map[string]bool // the template's
	inferred map[int]Type    // of parameters, from their casts
}

// template is a statement that was checked and rewritten, as it is for any
// state of its tables: its text, with a table behind each part but the last.
type template struct {
	parts    []string
	tables   []Name
	columns  map[string]bool // of what its tables' columns are called by; nil: it may take any
	inferred map[int]Type    // of parameters, from their casts
}

// newTemplate cuts text, which names views in so many places. nil: it has the
// names in other places as well.
func newTemplate(text string, views map[string]Name, places int, inferred map[int]Type) *template {
	t := &template{inferred: inferred}
	const prefix = "memory." + pinSchema + "."
	for rest := text; ; {
		at := strings.Index(rest, prefix)
		if at < 0 {
			t.parts = append(t.parts, rest)
			break
		}
		end := at + len(prefix)
		for end < len(rest) && (rest[end] == '_' || rest[end] >= '0' && rest[end] <= '9' || rest[end] >= 'a' && rest[end] <= 'z') {
			end++
		}
		n, ok := views[rest[at+len(prefix):end]]
		if !ok {
			return nil
		}
		t.parts, t.tables = append(t.parts, rest[:at]), append(t.tables, n)
		rest = rest[end:]
	}
	if len(t.tables) != places {
		return nil
	}
	return t
}

// What is kept of a statement is bounded by its size, too.
const (
	cachedStatementMax = 16 << 10 // bytes of text
	cachedTextMax      = 64 << 10 // bytes of what it was rewritten to
)

// bindStatement checks q and gives the text that DuckDB is to run. The text is
// kept for as long as the tables stay as they are, and its tree for as long as
// their columns do.
func (e *Engine) bindStatement(ctx context.Context, c *conn, q Query, temps map[string]string, trusted bool) (*boundStatement, error) {
	if q.Exact {
		q.ParamTypes = withValueTypes(q.ParamTypes, q.Args)
	}
	states, columns, err := e.statementKeys(q, temps, trusted)
	if err != nil {
		return nil, err
	}
	if b, ok := e.statements.Get(states); ok {
		for _, n := range b.used {
			if _, err := e.source(ctx, c, q.Pin, n, b.columns); err != nil {
				return nil, err
			}
		}
		return b, nil
	}
	if t, ok := e.templates.Get(columns); ok {
		b, err := e.fromTemplate(ctx, c, q, t)
		if err == nil && len(q.SQL) <= cachedStatementMax {
			e.statements.Add(states, b)
		}
		return b, err
	}
	b, t, err := e.rewrite(ctx, c, q, temps, trusted)
	if err != nil {
		return nil, err
	}
	if len(q.SQL) <= cachedStatementMax {
		e.statements.Add(states, b)
		if t != nil && len(b.text) <= cachedTextMax {
			e.templates.Add(columns, t)
		}
	}
	return b, nil
}

// source is what stands for a pinned table in a statement.
func (e *Engine) source(ctx context.Context, c *conn, p *Pin, n Name, columns map[string]bool) (string, error) {
	v, err := p.bind(e, n)
	if err != nil {
		return "", err
	}
	return e.relations.source(ctx, v, c, columns)
}

// fromTemplate puts what stands for the tables of q's pin into t.
func (e *Engine) fromTemplate(ctx context.Context, c *conn, q Query, t *template) (*boundStatement, error) {
	b := &boundStatement{inferred: t.inferred, columns: t.columns}
	sources := map[Name]string{}
	var text strings.Builder
	for i, n := range t.tables {
		s, again := sources[n]
		if !again {
			var err error
			if s, err = e.source(ctx, c, q.Pin, n, t.columns); err != nil {
				return nil, err
			}
			sources[n] = s
			b.used = append(b.used, n)
		}
		text.WriteString(t.parts[i])
		text.WriteString(s)
	}
	text.WriteString(t.parts[len(t.tables)])
	b.text = text.String()
	return b, nil
}

// withValueTypes fills in the types of parameters from their values: a
// division's type depends on them.
func withValueTypes(types []Type, args []any) []Type {
	out := make([]Type, max(len(types), len(args)))
	copy(out, types)
	for i, a := range args {
		if out[i].Kind == Unknown {
			out[i] = valueType(a)
		}
	}
	return out
}

// statementKeys name everything that the rewritten text depends on, and
// everything that its tree depends on apart from the views' names.
func (e *Engine) statementKeys(q Query, temps map[string]string, trusted bool) (states, columns string, err error) {
	var head, views, shapes strings.Builder
	fmt.Fprintf(&head, "%t %t\x00%s\x00", trusted, q.Exact, q.SQL)
	for _, t := range q.ParamTypes {
		head.WriteString(t.String() + ",")
	}
	if len(temps) > 0 {
		// Their unique names tell apart tables that were dropped and created
		// anew, and those of different sessions.
		names := make([]string, 0, len(temps))
		for n, unique := range temps {
			names = append(names, n+"\x01"+unique)
		}
		slices.Sort(names)
		head.WriteString("\x00\x00" + strings.Join(names, "\x00"))
	}
	if q.Pin != nil {
		for _, n := range q.Pin.Names() {
			v, err := q.Pin.bind(e, n)
			if err != nil {
				return "", "", err
			}
			views.WriteString("\x00" + n.Namespace + "\x01" + n.Table + "\x01" + v.view)
			shapes.WriteString("\x00" + n.Namespace + "\x01" + n.Table + "\x01" + v.shape)
		}
	}
	return head.String() + views.String(), head.String() + shapes.String(), nil
}

func (e *Engine) rewrite(ctx context.Context, c *conn, q Query, temps map[string]string, trusted bool) (*boundStatement, *template, error) {
	tree, err := c.parse(ctx, q.SQL)
	if err != nil {
		return nil, nil, err
	}
	b, views := &boundStatement{}, map[string]Name{}
	allowed := map[[3]string]bool{}
	r := &rewriter{trusted: trusted, params: q.ParamTypes, table: func(schema, name string, pos int) (string, string, string, error) {
		if schema == "" || strings.EqualFold(schema, "pg_temp") {
			if t, ok := temps[strings.ToLower(name)]; ok {
				allowed[[3]string{"temp", "main", t}] = true
				return "temp", "main", t, nil
			}
		}
		shown := name
		if schema != "" {
			shown = schema + "." + name
		}
		missing := &Error{Kind: Catalog, Message: fmt.Sprintf("relation %q does not exist", shown), Position: pos}
		if q.Pin == nil {
			return "", "", "", missing
		}
		n, ok := q.Pin.find(schema, name)
		if !ok {
			return "", "", "", missing
		}
		v, err := q.Pin.bind(e, n)
		if err == nil {
			err = e.relations.make(ctx, v, c)
		}
		if err != nil {
			return "", "", "", err
		}
		if _, again := views[v.view]; !again {
			b.used = append(b.used, n)
			views[v.view] = n
		}
		allowed[[3]string{"memory", pinSchema, v.view}] = true
		return "memory", pinSchema, v.view, nil
	}}
	if err := r.statement(tree); err != nil {
		return nil, nil, err
	}
	if err := e.products.need(c, r.products); err != nil {
		return nil, nil, err
	}
	b.inferred = r.inferred
	if b.text, err = c.render(ctx, tree); err != nil {
		return nil, nil, err
	}
	// The text that DuckDB will run is checked again, so that nothing depends
	// on its tree and its text meaning the same.
	if tree, err = c.parse(ctx, b.text); err != nil {
		return nil, nil, err
	}
	if err := (&rewriter{trusted: trusted, bound: allowed}).statement(tree); err != nil {
		return nil, nil, err
	}
	if q.Exact {
		if tree, b.text, err = e.exact(ctx, c, tree, b.text); err != nil {
			return nil, nil, err
		}
	}
	places := 0
	walkSorted(tree, func(n object) {
		if str(n, "type") == "BASE_TABLE" && str(n, "schema_name") == pinSchema {
			places++
		}
	})
	t := newTemplate(b.text, views, places, b.inferred)
	if t != nil {
		t.columns = namedColumns(tree)
	}
	return b, t, nil
}
