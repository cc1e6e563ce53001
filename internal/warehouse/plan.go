package warehouse

import (
	"context"
	"encoding/json"
	"sort"
	"strconv"
	"strings"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/engine"
)

// plan is a query that the engine can run.
type plan struct {
	text    string // DuckDB's SQL, for engine.Query.Exact
	tables  []catalog.Name
	views   []*relation
	foreign []*relation // external tables
	params  []parameter
	columns []relColumn
	mutable bool  // it holds the time of its statement
	system  []any // values of the parameters behind the client's: the system relations
}

// args are the client's values with the plan's own.
func (p *plan) args(values []any) []any {
	if len(p.system) == 0 {
		return values
	}
	return append(append([]any{}, values...), p.system...)
}

// plan rewrites a query. params are the types that the client declared.
func (s *Session) plan(ctx context.Context, sql string, tokens []token, params []sqlType) (*plan, error) {
	env, err := s.environment(ctx)
	if err != nil {
		return nil, err
	}
	src, err := duckdbText(sql, tokens)
	if err != nil {
		return nil, err
	}
	root, err := env.parse(ctx, src.text)
	if err != nil {
		return nil, err
	}
	if flag(root, "error") {
		return nil, parserError(root, src)
	}
	statements := list(root, "statements")
	if len(statements) != 1 {
		return nil, errorf(codeSyntax, "one statement is expected")
	}
	st, _ := statements[0].(node)
	body := child(st, "node")
	r := &rewriter{ctx: ctx, env: env, src: src, seen: map[catalog.Name]bool{}, system: map[string]*relation{}, pseudo: namesPseudo(tokens)}
	for _, t := range params {
		r.params = append(r.params, parameter{typ: t})
	}
	columns, err := r.query(nil, body)
	if err != nil {
		return nil, err
	}
	showLists(body, columns)
	text, err := env.print(ctx, root)
	if err != nil {
		return nil, err
	}
	var system []any
	if len(r.system) > 0 {
		state, err := s.state(ctx)
		if err != nil {
			return nil, err
		}
		if text, system, err = withSystem(ctx, text, r.system, state, len(r.params)+1); err != nil {
			return nil, err
		}
	}
	p := &plan{system: system, text: text, tables: r.tables, params: r.params, columns: columns, views: r.views, foreign: r.foreign, mutable: r.mutable}
	if len(r.views) > 0 {
		p.text, p.tables = withViews(text, r.views, r.tables)
	}
	return p, nil
}

// withViews puts the queries that read the views in front.
func withViews(text string, views []*relation, tables []catalog.Name) (string, []catalog.Name) {
	parts := make([]string, 0, len(views))
	seen := map[catalog.Name]bool{}
	for _, t := range tables {
		seen[t] = true
	}
	for _, v := range views {
		parts = append(parts, quoteIdent(systemName(v))+" AS ("+v.view.Query+")")
		for _, t := range v.view.Tables {
			if !seen[t] {
				seen[t] = true
				tables = append(tables, t)
			}
		}
	}
	return inFront(parts, text), tables
}

// parserError is what DuckDB's parser says, at the client's position.
func parserError(root node, src mappedText) error {
	message, _, _ := strings.Cut(str(root, "error_message"), "\n")
	e := errorf(codeSyntax, "%s", message)
	if str(root, "error_type") == "not implemented" {
		return unsupported("this form of query", "docs/sql.md says what is supported").detail("%s", message)
	}
	if at, err := strconv.Atoi(str(root, "position")); err == nil {
		e.Position = src.position(at)
	}
	return e
}

// print is the inverse of parse.
func (w *Warehouse) print(ctx context.Context, root node) (string, error) {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(root); err != nil {
		return "", err
	}
	return w.convert(ctx, "SELECT json_deserialize_sql($1::JSON)", b.String())
}

// showLists gives list columns of the outermost SELECT PostgreSQL's text form.
func showLists(body node, columns []relColumn) {
	items := list(body, "select_list")
	if str(body, "type") != "SELECT_NODE" || len(items) != len(columns) {
		return
	}
	for i := range items {
		item, _ := items[i].(node)
		if columns[i].typ.kind != kindList || class(item) == "STAR" {
			continue
		}
		alias := str(item, "alias")
		x := call("||", call("||", stringConstant("{"), call("array_to_string", item, stringConstant(","))), stringConstant("}"))
		x["alias"] = alias
		items[i] = x
	}
}

// describeProbe types an expression by binding a probe.
func (s *Session) describeProbe(ctx context.Context, r *rewriter, sql string) (sqlType, error) {
	p := &plan{text: sql, tables: append([]catalog.Name(nil), r.tables...), views: r.views, foreign: r.foreign}
	if len(r.system) > 0 {
		state, err := s.state(ctx)
		if err != nil {
			return sqlType{}, err
		}
		if p.text, _, err = withSystem(ctx, p.text, r.system, state, parametersMax); err != nil {
			return sqlType{}, err
		}
	}
	if len(r.views) > 0 {
		p.text, p.tables = withViews(p.text, r.views, p.tables)
	}
	pin, release, err := s.pin(ctx, p, false)
	if err != nil {
		return sqlType{}, err
	}
	defer release()
	_, columns, err := s.engine.Describe(ctx, engine.Query{SQL: p.text, Pin: pin, Exact: true})
	if err != nil {
		return sqlType{}, err
	}
	if len(columns) != 1 {
		return sqlType{}, nil
	}
	return fromEngine(columns[0].Type), nil
}

// tablesMax bounds what one explicit transaction pins.
const tablesMax = 10000

// pin pins what a plan reads: in an explicit transaction the state of its
// first reading, of all tables, else the current one. release must be called
// when the query's rows are open or it has failed; the engine keeps what an
// open query needs.
func (s *Session) pin(ctx context.Context, p *plan, fresh bool) (*engine.Pin, func(), error) {
	if len(p.tables) == 0 && len(p.views) == 0 && len(p.foreign) == 0 {
		return nil, func() {}, nil
	}
	names := make([]engine.Name, len(p.tables))
	for i, n := range p.tables {
		names[i] = engine.Name(n)
	}
	take := s.w.o.Engine.Pin
	if fresh {
		take = s.w.o.Engine.PinFresh
	}
	if s.tx == nil || !s.tx.explicit {
		pin, err := take(ctx, names, nil)
		if err != nil {
			return nil, nil, err
		}
		return s.overlay(ctx, pin, pin.Release, p, names)
	}
	if s.tx.pin == nil {
		all, err := s.w.o.Catalog.List(ctx, "")
		if err != nil {
			return nil, nil, err
		}
		if len(all) > tablesMax {
			return nil, nil, errorf(codeLimitExceeded, "a transaction cannot pin %d tables", len(all)).hint("send the statement outside of a transaction block")
		}
		every := make([]engine.Name, len(all))
		for i, n := range all {
			every[i] = engine.Name(n)
		}
		if s.tx.pin, err = s.w.o.Engine.PinFresh(ctx, every, nil); err != nil {
			s.tx.pin = nil
			return nil, nil, err
		}
	}
	return s.overlay(ctx, s.tx.pin, func() {}, p, names)
}

// overlay adds the transaction's own writes and the views' hand-made relations
// to a pin.
func (s *Session) overlay(ctx context.Context, pin *engine.Pin, release func(), p *plan, names []engine.Name) (*engine.Pin, func(), error) {
	own := false
	for _, n := range p.tables {
		own = own || s.tx != nil && s.tx.writes[n] != nil
	}
	if !own && len(p.views) == 0 && len(p.foreign) == 0 {
		return pin, release, nil
	}
	relations := map[engine.Name]engine.Relation{}
	for _, n := range names {
		rel, ok := pin.Relation(n)
		if !ok {
			release()
			return nil, nil, errorf(codeUndefinedTable, "relation %q does not exist in this transaction's snapshot", n.String())
		}
		if s.tx != nil {
			if w := s.tx.writes[catalog.Name(n)]; w != nil {
				rel.Files = append(append([]engine.File(nil), rel.Files...), w.local...)
			}
		}
		relations[n] = rel
	}
	for _, f := range p.foreign {
		relations[engine.Name{Namespace: f.schema, Table: f.name}] = f.external.relation
	}
	var viewReleases []func()
	for _, v := range p.views {
		if v.view.Bind != nil {
			if err := v.view.Bind(ctx, pin, relations); err != nil {
				for _, f := range viewReleases {
					f()
				}
				release()
				return nil, nil, err
			}
		}
		if v.view.Release != nil {
			viewReleases = append(viewReleases, v.view.Release)
		}
	}
	made := engine.NewPin(relations)
	return made, func() {
		made.Release()
		for _, f := range viewReleases {
			f()
		}
		release()
	}, nil
}

// parameterTypes answers the types of a plan's parameters; those that the
// rewriter left open are DuckDB's, or text.
func (p *plan) parameterTypes(described []engine.Type) []sqlType {
	out := make([]sqlType, len(p.params))
	for i := range p.params {
		t := p.params[i].typ
		if !t.known() && i < len(described) {
			t = fromEngine(described[i])
		}
		if !t.known() {
			t = sqlType{kind: kindText}
		}
		out[i] = t
	}
	return out
}

// sortedTables are the tables of a plan, for EXPLAIN.
func (p *plan) sortedTables() []string {
	out := make([]string, 0, len(p.tables)+len(p.foreign))
	for _, n := range p.tables {
		out = append(out, n.String())
	}
	for _, f := range p.foreign {
		out = append(out, f.schema+"."+f.name)
	}
	sort.Strings(out)
	return out
}
