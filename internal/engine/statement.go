package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// boundStatement is a statement whose tables are views of a pin.
type boundStatement struct {
	text     string
	used     []Name
	inferred map[int]Type // of parameters, from their casts
}

// template is a statement that was checked and rewritten, as it is for any
// state of its tables: only the views in it change from state to state.
type template struct {
	tree     []byte          // JSON
	views    map[string]Name // by the names that tree has
	inferred map[int]Type
}

// What is kept of a statement is bounded by its size, too.
const (
	cachedStatementMax = 16 << 10 // bytes of text
	cachedTreeMax      = 64 << 10 // bytes of JSON
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
			v, err := q.Pin.bind(e, n)
			if err == nil {
				err = e.relations.make(ctx, v, c)
			}
			if err != nil {
				return nil, err
			}
		}
		return b, nil
	}
	t, ok := e.templates.Get(columns)
	var b *boundStatement
	if ok {
		b, err = e.fromTemplate(ctx, c, q, t)
	} else {
		b, t, err = e.rewrite(ctx, c, q, temps, trusted)
	}
	if err != nil {
		return nil, err
	}
	if len(q.SQL) <= cachedStatementMax {
		e.statements.Add(states, b)
		if !ok && len(t.tree) <= cachedTreeMax {
			e.templates.Add(columns, t)
		}
	}
	return b, nil
}

// fromTemplate puts the views of q's pin into t.
func (e *Engine) fromTemplate(ctx context.Context, c *conn, q Query, t *template) (*boundStatement, error) {
	b := &boundStatement{inferred: t.inferred}
	now := map[string]string{}
	for view, n := range t.views {
		v, err := q.Pin.bind(e, n)
		if err == nil {
			err = e.relations.make(ctx, v, c)
		}
		if err != nil {
			return nil, err
		}
		b.used = append(b.used, n)
		now[view] = v.view
	}
	var tree object
	d := json.NewDecoder(bytes.NewReader(t.tree))
	d.UseNumber()
	if err := d.Decode(&tree); err != nil {
		return nil, &Error{Kind: Internal, Message: "decode a kept statement: " + err.Error()}
	}
	walkSorted(tree, func(n object) {
		if str(n, "type") == "BASE_TABLE" && str(n, "schema_name") == pinSchema {
			n["table_name"] = now[str(n, "table_name")]
		}
	})
	var err error
	b.text, err = c.render(ctx, tree)
	return b, err
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
	b, t := &boundStatement{}, &template{views: map[string]Name{}}
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
		if _, again := t.views[v.view]; !again {
			b.used = append(b.used, n)
			t.views[v.view] = n
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
	b.inferred, t.inferred = r.inferred, r.inferred
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
	if t.tree, err = json.Marshal(tree); err != nil {
		return nil, nil, &Error{Kind: Internal, Message: "encode a statement: " + err.Error()}
	}
	return b, t, nil
}
