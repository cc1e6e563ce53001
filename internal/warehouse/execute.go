package warehouse

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/tapehouse/tapehouse/internal/engine"
)

// A Column is one column of a result, as the protocol tells it.
type Column struct {
	Name     string
	OID      uint32
	Modifier int32 // -1: none
	Size     int16 // of the type; -1: variable
}

// A Statement is an analysed statement of one session.
type Statement struct {
	ParamOIDs []uint32
	Columns   []Column // empty: it yields no rows
	Copy      *Copy
	Empty     bool

	sql    string
	parsed statement
	params []sqlType
	types  []sqlType // of the columns

	// The plan that Prepare made serves the first execution if that comes at
	// once: a simple query is not planned twice.
	planned   *plan
	plannedAt time.Time
}

// planFreshFor bounds the age of a plan that is used without making it anew.
// Its constants, now() among them, are of its statement.
const planFreshFor = time.Second

func columnsOf(columns []engine.Column) ([]Column, []sqlType) {
	out := make([]Column, len(columns))
	types := make([]sqlType, len(columns))
	for i, c := range columns {
		types[i] = fromEngine(c.Type)
		out[i] = columnOf(c.Name, types[i])
	}
	return out, types
}

func columnOf(name string, t sqlType) Column {
	pg, ok := pgTypes[t.kind]
	if !ok {
		pg = pgTypes[kindText]
	}
	return Column{Name: name, OID: pg.oid, Modifier: typmod(t), Size: pg.size}
}

var textColumn = func(name string) []Column { return []Column{columnOf(name, textType)} }

// Prepare analyses one statement. paramOIDs holds the types that the client
// declares, 0 for unknown; it may be short.
func (s *Session) Prepare(ctx context.Context, sql string, paramOIDs []uint32) (*Statement, error) {
	st, err := s.prepare(ctx, sql, paramOIDs)
	return st, s.fail(err, sql)
}

func (s *Session) prepare(ctx context.Context, sql string, paramOIDs []uint32) (*Statement, error) {
	parsed, err := parseStatement(sql)
	if err != nil {
		return nil, err
	}
	if err := s.guard(parsed); err != nil {
		return nil, err
	}
	st := &Statement{sql: sql, parsed: parsed}
	declared := make([]sqlType, len(paramOIDs))
	for i, oid := range paramOIDs {
		if oid == 0 || oid == 705 {
			continue
		}
		k, ok := oidKinds[oid]
		if !ok {
			return nil, errorf(codeUndefinedObject, "a parameter of type OID %d is not supported", oid).hint("send it as text")
		}
		declared[i] = sqlType{kind: k}
		if k == kindDecimal {
			declared[i] = parameterDecimal
		}
	}
	switch p := parsed.(type) {
	case emptyStatement:
		st.Empty = true
	case queryStatement:
		err = s.describe(ctx, st, p.tokens, declared)
	case explainStatement:
		_, err = s.plan(ctx, sql, p.tokens, declared)
		st.Columns = textColumn("QUERY PLAN")
	case showStatement:
		st.Columns, err = s.describeShow(p)
	case executeStatement:
		err = s.describeExecute(ctx, st, p)
	case insertStatement:
		err = s.describeInsert(ctx, st, p, declared)
	case copyStatement:
		err = s.describeCopy(ctx, st, p)
	}
	if err != nil {
		return nil, err
	}
	for _, t := range st.params {
		st.ParamOIDs = append(st.ParamOIDs, columnOf("", t).OID)
	}
	return st, nil
}

// describe plans a query and types its parameters and columns.
func (s *Session) describe(ctx context.Context, st *Statement, tokens []token, declared []sqlType) error {
	p, err := s.plan(ctx, st.sql, tokens, declared)
	if err != nil {
		return err
	}
	pin, release, err := s.pin(ctx, p, false)
	if err != nil {
		return err
	}
	defer release()
	params, columns, err := s.engine.Describe(ctx, engine.Query{SQL: p.text, Pin: pin, Exact: true})
	if err != nil {
		return err
	}
	st.params = p.parameterTypes(params)
	st.Columns, st.types = columnsOf(columns)
	for i := range st.params {
		if st.params[i].kind == kindDecimal {
			for j := range st.Columns {
				if st.Columns[j].OID == pgTypes[kindDecimal].oid {
					st.Columns[j].Modifier = -1 // a numeric parameter brings its own scale
				}
			}
			return nil
		}
	}
	st.planned, st.plannedAt = p, s.w.o.Now()
	return nil
}

// A Result is what a statement yields. It must be closed.
type Result struct {
	columns []Column
	rows    *engine.Rows
	fixed   [][]any // rows of a statement that the engine does not run
	count   int64
	tag     string // "SELECT %d" style for those that count
	sql     string
	cancel  context.CancelFunc
	release func()
	failed  func()
}

// Columns describes the rows; none means that there are none.
func (r *Result) Columns() []Column { return r.columns }

// Next fills dst, one element per column, or returns io.EOF.
func (r *Result) Next(dst []any) error {
	if r.rows == nil {
		if len(r.fixed) == 0 {
			return io.EOF
		}
		copy(dst, r.fixed[0])
		r.fixed = r.fixed[1:]
		r.count++
		return nil
	}
	err := r.rows.Next(dst)
	switch {
	case err == nil:
		r.count++
	case !errors.Is(err, io.EOF):
		if r.failed != nil {
			r.failed()
		}
		return asError(err, r.sql)
	}
	return err
}

// Tag is the command tag, final after io.EOF.
func (r *Result) Tag() string {
	if r.tag == "SELECT" || r.tag == "COPY" {
		return fmt.Sprintf("%s %d", r.tag, r.count)
	}
	return r.tag
}

// Close stops the statement if it still runs. Further calls do nothing.
func (r *Result) Close() error {
	var err error
	if r.rows != nil {
		err = r.rows.Close()
	}
	if r.release != nil {
		r.release()
		r.release = nil
	}
	if r.cancel != nil {
		r.cancel()
	}
	return err
}

func done(tag string) *Result { return &Result{tag: tag} }

// Execute runs a statement that is not COPY FROM STDIN. args are row values,
// one for each parameter. ctx governs the statement until its Result is closed.
func (s *Session) Execute(ctx context.Context, st *Statement, args []any) (*Result, error) {
	if err := s.guard(st.parsed); err != nil {
		return nil, err
	}
	res, err := s.execute(ctx, st, args)
	if err != nil {
		return nil, s.fail(err, st.sql)
	}
	return res, nil
}

func (s *Session) execute(ctx context.Context, st *Statement, args []any) (*Result, error) {
	if len(args) != len(st.ParamOIDs) {
		return nil, errorf("08P01", "the statement has %d parameters, and %d values were given", len(st.ParamOIDs), len(args))
	}
	if t, ok := st.parsed.(transactionStatement); ok {
		tag, err := s.control(ctx, t)
		return done(tag), err
	}
	s.begin(false)
	ctx, cancel, err := s.deadline(ctx)
	if err != nil {
		return nil, err
	}
	var res *Result
	switch p := st.parsed.(type) {
	case emptyStatement:
		res = done("")
	case queryStatement:
		res, err = s.query(ctx, st, p.tokens, args, "SELECT")
	case explainStatement:
		res, err = s.explain(ctx, st, p)
	case showStatement:
		res, err = s.show(p)
	case setStatement:
		err = s.setStatement(p)
		res = done("SET")
	case resetStatement:
		res, err = done("RESET"), s.reset(p)
	case discardStatement:
		if err = s.outsideBlock("DISCARD ALL"); err == nil {
			s.values, s.prepared = map[string]string{}, map[string]prepareStatement{}
			s.tx.values = map[string]string{}
			if s.o.Deallocate != nil {
				s.o.Deallocate("")
			}
		}
		res = done("DISCARD ALL")
	case deallocateStatement:
		res, err = s.deallocate(p)
	case prepareStatement:
		res, err = s.prepareNamed(ctx, st, p)
	case executeStatement:
		res, err = s.executeNamed(ctx, st, p)
	case insertStatement:
		res, err = s.insert(ctx, st, p, args)
	case copyStatement:
		if p.in {
			err = errorf(codeFeatureNotSupported, "COPY FROM STDIN takes its rows from the protocol")
		} else {
			res, err = s.query(ctx, st, p.query, args, "COPY")
		}
	default:
		res, err = s.define(ctx, st)
	}
	if err != nil {
		cancel()
		return nil, err
	}
	res.sql = st.sql
	if res.rows == nil {
		cancel()
		return res, nil
	}
	res.cancel = cancel
	res.failed = func() {
		if s.tx != nil && s.tx.explicit {
			s.tx.failed = true
		}
	}
	return res, nil
}

// deadline bounds a statement by statement_timeout.
func (s *Session) deadline(ctx context.Context) (context.Context, context.CancelFunc, error) {
	v, _ := s.setting("statement_timeout")
	d, err := parseMillis(v)
	if err != nil {
		if d, err = time.ParseDuration(v); err != nil {
			return nil, nil, err
		}
	}
	if d <= 0 {
		c, cancel := context.WithCancel(ctx)
		return c, cancel, nil
	}
	c, cancel := context.WithTimeout(ctx, d)
	return c, cancel, nil
}

// query runs a SELECT. A numeric parameter takes the precision and scale of its
// value, as a literal would.
func (s *Session) query(ctx context.Context, st *Statement, tokens []token, args []any, tag string) (*Result, error) {
	p := st.planned
	st.planned = nil
	if p == nil || s.w.o.Now().Sub(st.plannedAt) > planFreshFor {
		var err error
		if p, err = s.plan(ctx, st.sql, tokens, valueTypes(st.params, args)); err != nil {
			return nil, err
		}
	}
	pin, release, err := s.pin(ctx, p, true)
	if err != nil {
		return nil, err
	}
	rows, err := s.engine.Query(ctx, engine.Query{SQL: p.text, Args: p.args(args), Pin: pin, Exact: true})
	if err != nil {
		release()
		return nil, err
	}
	columns, _ := columnsOf(rows.Columns)
	return &Result{columns: columns, rows: rows, tag: tag, release: release}, nil
}

// valueTypes are the parameters' types, decimals by their values.
func valueTypes(params []sqlType, args []any) []sqlType {
	out := append([]sqlType(nil), params...)
	for i, a := range args {
		d, ok := a.(engine.Decimal)
		if !ok || i >= len(out) || out[i].kind != kindDecimal || d.Unscaled == nil {
			continue
		}
		digits := len(d.Unscaled.Text(10))
		if d.Unscaled.Sign() < 0 {
			digits--
		}
		scale := max(int(d.Scale), 0)
		if p := max(digits, scale, 1); p <= decimalDigitsMax {
			out[i] = decimal(p, scale)
		}
	}
	return out
}

func (s *Session) explain(ctx context.Context, st *Statement, e explainStatement) (*Result, error) {
	p, err := s.plan(ctx, st.sql, e.tokens, st.params)
	if err != nil {
		return nil, err
	}
	res := &Result{columns: textColumn("QUERY PLAN"), tag: "EXPLAIN"}
	line := func(format string, args ...any) { res.fixed = append(res.fixed, []any{fmt.Sprintf(format, args...)}) }
	line("DuckDB query, divisions and averages exact")
	line("  %s", p.text)
	pin, release, err := s.pin(ctx, p, false)
	if err != nil {
		return nil, err
	}
	defer release()
	for _, n := range p.sortedTables() {
		line("Scan of %s", n)
	}
	if pin != nil {
		for _, n := range p.tables {
			if rel, ok := pin.Relation(engine.Name(n)); ok {
				var rows int64
				for _, f := range rel.Files {
					rows += f.Rows
				}
				line("  %s: %d files, %d rows", n.Table, len(rel.Files), rows)
			}
		}
	}
	return res, nil
}

func (s *Session) describeShow(p showStatement) ([]Column, error) {
	if p.name == "all" {
		return append(textColumn("name"), append(textColumn("setting"), textColumn("description")...)...), nil
	}
	d, ok := settings[p.name]
	if _, custom := s.values[p.name]; !ok && !custom {
		return nil, errorf(codeUndefinedObject, "unrecognized configuration parameter %q", p.name).hint("SHOW ALL lists the parameters")
	}
	if !ok {
		d.canonical = p.name
	}
	return textColumn(d.canonical), nil
}

func (s *Session) show(p showStatement) (*Result, error) {
	columns, err := s.describeShow(p)
	if err != nil {
		return nil, err
	}
	res := &Result{columns: columns, tag: "SHOW"}
	if p.name != "all" {
		v, _ := s.setting(p.name)
		res.fixed = [][]any{{v}}
		return res, nil
	}
	for _, name := range sortedSettings() {
		v, _ := s.setting(name)
		res.fixed = append(res.fixed, []any{settings[name].canonical, v, ""})
	}
	return res, nil
}

func (s *Session) setStatement(p setStatement) error {
	key := p.name
	former, had := s.values[key]
	if !had {
		former = unsetValue
	}
	if err := s.set(p); err != nil {
		return err
	}
	if p.local {
		if !s.tx.explicit {
			s.notice("WARNING", codeNoActiveTransaction, "SET LOCAL can only be used in transaction blocks")
			s.restore(key, former)
			return nil
		}
		if _, ok := s.tx.local[key]; !ok {
			s.tx.local[key] = former
		}
	}
	return nil
}

func (s *Session) reset(p resetStatement) error {
	if p.name == "" {
		s.values = map[string]string{}
		return nil
	}
	return s.set(setStatement{name: p.name, toDefault: true})
}

// outsideBlock refuses what cannot be part of a transaction block.
func (s *Session) outsideBlock(what string) error {
	if s.tx != nil && s.tx.explicit {
		return errorf(codeActiveTransaction, "%s cannot run inside a transaction block", what).hint("COMMIT first; the catalog changes one statement at a time")
	}
	if s.tx != nil && s.tx.readOnly {
		return errorf(codeReadOnlyTransaction, "cannot execute %s in a read-only transaction", what)
	}
	return nil
}

// preparedMax bounds a session's PREPAREd statements.
const preparedMax = 1000

func (s *Session) prepareNamed(ctx context.Context, st *Statement, p prepareStatement) (*Result, error) {
	if _, ok := s.prepared[p.name]; ok {
		return nil, errorf(codeDuplicateStatement, "prepared statement %q already exists", p.name)
	}
	if len(s.prepared) >= preparedMax {
		return nil, errorf(codeLimitExceeded, "a session has at most %d prepared statements", preparedMax)
	}
	p.body = rebase(p.body, st.sql)
	if err := s.describe(ctx, &Statement{sql: st.sql}, p.body, p.types); err != nil {
		return nil, err
	}
	s.prepared[p.name] = p
	return done("PREPARE"), nil
}

// rebase keeps tokens valid when their statement's text is gone.
func rebase(tokens []token, _ string) []token {
	out := append([]token(nil), tokens...)
	for i := range out {
		out[i].start, out[i].end = 0, 0
	}
	return out
}

func (s *Session) deallocate(p deallocateStatement) (*Result, error) {
	if p.name == "" {
		s.prepared = map[string]prepareStatement{}
		if s.o.Deallocate != nil {
			s.o.Deallocate("")
		}
		return done("DEALLOCATE ALL"), nil
	}
	_, ok := s.prepared[p.name]
	delete(s.prepared, p.name)
	if !ok && (s.o.Deallocate == nil || !s.o.Deallocate(p.name)) {
		return nil, errorf(codeInvalidStatementName, "prepared statement %q does not exist", p.name)
	}
	return done("DEALLOCATE"), nil
}

// substituted is a prepared statement's body with its parameters replaced by
// the expressions of EXECUTE.
func (s *Session) substituted(e executeStatement, sql string) ([]token, error) {
	p, ok := s.prepared[e.name]
	if !ok {
		return nil, errorf(codeInvalidStatementName, "prepared statement %q does not exist", e.name)
	}
	var args [][]token
	if len(e.args) > 0 {
		depth, from := 0, 1
		for i, t := range e.args {
			switch {
			case t.punct("("), t.punct("["):
				depth++
			case t.punct(")"), t.punct("]"):
				depth--
			}
			if depth == 1 && t.punct(",") || depth == 0 && t.punct(")") {
				if i > from {
					args = append(args, e.args[from:i])
				}
				from = i + 1
				if depth == 0 {
					if e.args[i+1].kind != tokenEOF {
						return nil, syntaxError(sql, e.args[i+1].start, "syntax error after EXECUTE's arguments")
					}
					break
				}
			}
		}
	}
	most := 0
	for _, t := range p.body {
		if t.kind == tokenParam {
			most = max(most, atoi(t.value))
		}
	}
	if len(args) != max(most, len(p.types)) {
		return nil, errorf(codeSyntax, "wrong number of parameters for prepared statement %q", e.name).detail("Expected %d parameters but got %d.", max(most, len(p.types)), len(args))
	}
	var out []token
	for _, t := range p.body {
		if t.kind != tokenParam {
			out = append(out, t)
			continue
		}
		i := atoi(t.value)
		if i < 1 {
			return nil, errorf(codeUndefinedParameter, "there is no parameter $%s", t.value)
		}
		wrap := func(k tokenKind, v string) { out = append(out, token{kind: k, value: v, space: true}) }
		typed := i <= len(p.types) && p.types[i-1].known()
		if typed {
			wrap(tokenIdent, "cast")
		}
		wrap(tokenPunct, "(")
		for _, a := range args[i-1] {
			a.space = true
			out = append(out, a)
		}
		if typed {
			wrap(tokenIdent, "as")
			tokens, err := tokenize(p.types[i-1].String())
			if err != nil {
				return nil, err
			}
			for _, tt := range tokens[:len(tokens)-1] {
				wrap(tt.kind, tt.value)
			}
		}
		wrap(tokenPunct, ")")
	}
	return out, nil
}

func (s *Session) describeExecute(ctx context.Context, st *Statement, e executeStatement) error {
	tokens, err := s.substituted(e, st.sql)
	if err != nil {
		return err
	}
	return s.describe(ctx, st, tokens, nil)
}

func (s *Session) executeNamed(ctx context.Context, st *Statement, e executeStatement) (*Result, error) {
	tokens, err := s.substituted(e, st.sql)
	if err != nil {
		return nil, err
	}
	return s.query(ctx, st, tokens, nil, "SELECT")
}
