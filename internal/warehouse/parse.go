package warehouse

import (
	"strings"
)

// statement is one of the types below. Each statement of the grammar has one;
// what has none is refused by name.
type statement interface{}

type (
	emptyStatement struct{}
	// queryStatement is SELECT, WITH, VALUES or TABLE.
	queryStatement   struct{ tokens []token }
	explainStatement struct{ tokens []token }
	// transactionStatement is BEGIN, COMMIT or ROLLBACK.
	transactionStatement struct {
		verb     string
		readOnly bool
	}
	setStatement struct {
		name, value      string
		local, toDefault bool
	}
	showStatement       struct{ name string }
	resetStatement      struct{ name string } // "" is ALL
	discardStatement    struct{}
	deallocateStatement struct{ name string } // "" is ALL
	prepareStatement    struct {
		name  string
		types []sqlType
		body  []token
	}
	executeStatement struct {
		name string
		args []token
	}
	createSchema struct {
		name        string
		ifNotExists bool
	}
	dropSchema struct {
		name     string
		ifExists bool
	}
	createTable struct {
		schema, name string
		ifNotExists  bool
		columns      []columnDefinition
		partitionBy  string
		properties   map[string]string
		as           []token // CREATE TABLE AS
	}
	columnDefinition struct {
		name    string
		typ     sqlType
		notNull bool
	}
	dropRelation struct {
		view     bool
		ifExists bool
		names    [][2]string
	}
	addColumn struct {
		schema, name string
		column       columnDefinition
		ifNotExists  bool
	}
	createView struct {
		schema, name string
		ifNotExists  bool
		autoRefresh  bool
		query        []token
	}
	refreshView     struct{ schema, name string }
	insertStatement struct {
		schema, name string
		columns      []string
		query        []token // SELECT or VALUES
	}
	copyStatement struct {
		in           bool
		schema, name string
		columns      []string
		query        []token
		options      Copy
		forceQuote   []string // column names; "*" is all
		forceNotNull []string
		forceNull    []string
	}
)

// parser walks over the tokens of one statement.
type parser struct {
	sql    string
	tokens []token
	pos    int
}

func (p *parser) peek() token { return p.tokens[min(p.pos, len(p.tokens)-1)] }

func (p *parser) ahead(n int) token { return p.tokens[min(p.pos+n, len(p.tokens)-1)] }

func (p *parser) next() token {
	t := p.peek()
	p.pos++
	return t
}

// accept consumes the words if they come next, all of them.
func (p *parser) accept(words ...string) bool {
	for i, w := range words {
		t := p.ahead(i)
		if !t.is(w) && !t.punct(w) {
			return false
		}
	}
	p.pos += len(words)
	return true
}

func (p *parser) expect(words ...string) error {
	if p.accept(words...) {
		return nil
	}
	return p.unexpected()
}

// unexpected is PostgreSQL's syntax error at the next token.
func (p *parser) unexpected() error {
	t := p.peek()
	if t.kind == tokenEOF {
		return syntaxError(p.sql, t.start, "syntax error at end of input")
	}
	return syntaxError(p.sql, t.start, "syntax error at or near %q", p.sql[t.start:t.end])
}

func (p *parser) end() error {
	p.accept(";")
	if p.peek().kind != tokenEOF {
		return p.unexpected()
	}
	return nil
}

func (p *parser) ident() (string, error) {
	if t := p.peek(); t.name() {
		p.pos++
		return t.value, nil
	}
	return "", p.unexpected()
}

// qualified reads [schema.]name.
func (p *parser) qualified() (schema, name string, err error) {
	if name, err = p.ident(); err != nil {
		return "", "", err
	}
	for n := 0; p.accept("."); n++ {
		if n == 1 && schema != Database || n > 1 {
			return "", "", p.unexpected()
		}
		schema = name
		if name, err = p.ident(); err != nil {
			return "", "", err
		}
	}
	return schema, name, nil
}

// rest takes everything up to the end of the statement.
func (p *parser) rest() []token {
	t := p.tokens[min(p.pos, len(p.tokens)):]
	if n := len(t); n >= 2 && t[n-2].punct(";") {
		t = append(append([]token{}, t[:n-2]...), t[n-1])
	}
	p.pos = len(p.tokens) - 1
	return t
}

func startsQuery(t token) bool {
	return t.is("select") || t.is("with") || t.is("values") || t.is("table") || t.punct("(")
}

// parseStatement reads one statement.
func parseStatement(sql string) (statement, error) {
	tokens, err := tokenize(sql)
	if err != nil {
		return nil, err
	}
	p := &parser{sql: sql, tokens: tokens}
	t := p.peek()
	if t.kind == tokenEOF || t.punct(";") {
		return emptyStatement{}, p.end()
	}
	if startsQuery(t) {
		return queryStatement{p.rest()}, nil
	}
	if t.kind == tokenIdent {
		if f, ok := statements[t.value]; ok {
			p.next()
			st, err := f(p)
			if err != nil {
				return nil, err
			}
			return st, p.end()
		}
		if instead, ok := refused[t.value]; ok {
			return nil, unsupported(strings.ToUpper(t.value), instead).at(position(sql, t.start))
		}
	}
	return nil, p.unexpected()
}

var statements map[string]func(*parser) (statement, error)

func init() {
	statements = map[string]func(*parser) (statement, error){
		"explain": (*parser).explain, "begin": (*parser).begin, "start": (*parser).start, "commit": (*parser).commit, "end": (*parser).commit,
		"rollback": (*parser).rollback, "abort": (*parser).rollback, "set": (*parser).set, "reset": (*parser).reset, "show": (*parser).show,
		"discard": (*parser).discard, "deallocate": (*parser).deallocate, "prepare": (*parser).prepare, "execute": (*parser).execute,
		"create": (*parser).create, "drop": (*parser).drop, "alter": (*parser).alter, "refresh": (*parser).refresh, "insert": (*parser).insert,
		"copy": (*parser).copy,
	}
}

// refused are statements of PostgreSQL and Redshift that are known and not
// done, with what to do instead.
var refused = map[string]string{
	"update":     "rows are changed by correction records for now; INSERT a corrected row, or filter in a view",
	"delete":     "rows are append-only for now; filter in a view, or DROP TABLE and load again",
	"merge":      "load with INSERT … SELECT and an anti-join (WHERE NOT EXISTS)",
	"truncate":   "DROP TABLE and create it again",
	"savepoint":  "end the transaction and begin another; a failed statement rolls it back as a whole",
	"release":    "savepoints are not kept",
	"call":       "there are no procedures; send the statements one after the other",
	"do":         "there are no procedures; send the statements one after the other",
	"grant":      "access is configured by the server's users for now",
	"revoke":     "access is configured by the server's users for now",
	"unload":     "use COPY (SELECT …) TO STDOUT, or read the table's Parquet files",
	"vacuum":     "tables are compacted and expired by the server itself",
	"analyze":    "statistics are kept with every file; there is nothing to analyze",
	"analyse":    "statistics are kept with every file; there is nothing to analyze",
	"cluster":    "compaction sorts by itself",
	"reindex":    "there are no indexes",
	"lock":       "readers work on snapshots; a conflicting commit answers 40001, so run it again",
	"declare":    "fetch with the protocol's row limits (a driver's fetch size) instead of a cursor",
	"fetch":      "fetch with the protocol's row limits (a driver's fetch size) instead of a cursor",
	"move":       "fetch with the protocol's row limits (a driver's fetch size) instead of a cursor",
	"close":      "there are no cursors",
	"listen":     "poll, or use the server's web hooks",
	"unlisten":   "there are no notifications",
	"notify":     "there are no notifications",
	"comment":    "describe tables with TBLPROPERTIES when they are created",
	"security":   "there are no security labels",
	"import":     "put the data with COPY or the Firehose API",
	"attach":     "one server has one database",
	"detach":     "one server has one database",
	"use":        "one server has one database; SET search_path chooses a schema",
	"install":    "extensions are not loaded",
	"load":       "extensions are not loaded",
	"pragma":     "use SET",
	"describe":   "use \\d in psql, or information_schema.columns",
	"desc":       "use \\d in psql, or information_schema.columns",
	"summarize":  "use aggregates",
	"pivot":      "use CASE with aggregates",
	"unpivot":    "use UNION ALL",
	"from":       "begin with SELECT",
	"export":     "use COPY (SELECT …) TO STDOUT",
	"checkpoint": "the server makes its own",
	"reassign":   "everything belongs to the installation",
	"cancel":     "cancel from another connection with the protocol's cancel request (Ctrl-C in psql)",
}

func (p *parser) explain() (statement, error) {
	if p.accept("analyze") || p.accept("verbose") || p.peek().punct("(") && p.ahead(1).is("analyze") {
		return nil, unsupported("EXPLAIN with options", "EXPLAIN SELECT shows the rewritten query and what it reads").at(position(p.sql, p.peek().start))
	}
	if !startsQuery(p.peek()) {
		return nil, unsupported("EXPLAIN of this statement", "explain its SELECT").at(position(p.sql, p.peek().start))
	}
	return explainStatement{p.rest()}, nil
}

func (p *parser) begin() (statement, error) {
	if !p.accept("transaction") {
		p.accept("work")
	}
	return p.modes(transactionStatement{verb: "BEGIN"})
}

func (p *parser) start() (statement, error) {
	if err := p.expect("transaction"); err != nil {
		return nil, err
	}
	return p.modes(transactionStatement{verb: "START TRANSACTION"})
}

// modes reads transaction modes. Every level of isolation is given as the
// strongest: a transaction reads one snapshot.
func (p *parser) modes(t transactionStatement) (statement, error) {
	for {
		switch {
		case p.accept("isolation", "level"):
			if !p.accept("serializable") && !p.accept("repeatable", "read") && !p.accept("read", "committed") && !p.accept("read", "uncommitted") && !p.accept("snapshot") {
				return nil, p.unexpected()
			}
		case p.accept("read", "only"):
			t.readOnly = true
		case p.accept("read", "write"), p.accept("deferrable"), p.accept("not", "deferrable"), p.accept(","):
		default:
			return t, nil
		}
	}
}

func (p *parser) commit() (statement, error) {
	if !p.accept("transaction") {
		p.accept("work")
	}
	if p.peek().is("prepared") {
		return nil, unsupported("COMMIT PREPARED", "use COMMIT")
	}
	return transactionStatement{verb: "COMMIT"}, p.noChain()
}

func (p *parser) noChain() error {
	if p.accept("and", "no", "chain") {
		return nil
	}
	if p.peek().is("and") {
		return unsupported("AND CHAIN", "begin the next transaction with BEGIN")
	}
	return nil
}

func (p *parser) rollback() (statement, error) {
	if !p.accept("transaction") {
		p.accept("work")
	}
	if p.peek().is("to") {
		return nil, unsupported("ROLLBACK TO SAVEPOINT", refused["savepoint"]).at(position(p.sql, p.peek().start))
	}
	return transactionStatement{verb: "ROLLBACK"}, p.noChain()
}

// set reads SET [SESSION | LOCAL] name {TO | =} value, … and the spellings of
// the standard.
func (p *parser) set() (statement, error) {
	s := setStatement{}
	if p.accept("local") {
		s.local = true
	} else if !p.ahead(1).punct("=") && !p.ahead(1).is("to") {
		p.accept("session")
	}
	switch {
	case p.accept("time", "zone"):
		s.name = "timezone"
		if p.accept("local") || p.accept("default") {
			s.toDefault = true
			return s, nil
		}
		return s, p.value(&s)
	case p.accept("names"):
		s.name = "client_encoding"
		return s, p.value(&s)
	case p.accept("characteristics", "as", "transaction"), p.accept("transaction"):
		t, err := p.modes(transactionStatement{verb: "SET"})
		return t, err
	case p.accept("authorization"), p.accept("role"):
		return nil, unsupported("SET SESSION AUTHORIZATION and SET ROLE", "connect as the other user").at(position(p.sql, p.peek().start))
	}
	name, err := p.ident()
	if err != nil {
		return nil, err
	}
	for p.accept(".") {
		part, err := p.ident()
		if err != nil {
			return nil, err
		}
		name += "." + part
	}
	s.name = name
	if !p.accept("to") && !p.accept("=") {
		return nil, p.unexpected()
	}
	return s, p.value(&s)
}

func (p *parser) value(s *setStatement) error {
	if p.accept("default") {
		s.toDefault = true
		return nil
	}
	var parts []string
	for {
		sign := ""
		if p.accept("-") {
			sign = "-"
		} else {
			p.accept("+")
		}
		t := p.next()
		switch t.kind {
		case tokenIdent, tokenNumber, tokenString:
			parts = append(parts, sign+t.value)
		case tokenQuoted:
			parts = append(parts, quoteIfNeeded(t.value))
		default:
			p.pos--
			return p.unexpected()
		}
		if !p.accept(",") {
			break
		}
	}
	s.value = strings.Join(parts, ", ")
	return nil
}

// quoteIfNeeded keeps a quoted name of a list as one name.
func quoteIfNeeded(s string) string {
	if strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789_") == "" {
		return s
	}
	return quoteIdent(s)
}

func (p *parser) settingName() (string, error) {
	switch {
	case p.accept("time", "zone"):
		return "timezone", nil
	case p.accept("transaction", "isolation", "level"):
		return "transaction_isolation", nil
	case p.accept("session", "authorization"):
		return "session_authorization", nil
	case p.accept("all"):
		return "all", nil
	}
	name, err := p.ident()
	if err != nil {
		return "", err
	}
	for p.accept(".") {
		part, err := p.ident()
		if err != nil {
			return "", err
		}
		name += "." + part
	}
	return name, nil
}

func (p *parser) show() (statement, error) {
	name, err := p.settingName()
	return showStatement{name}, err
}

func (p *parser) reset() (statement, error) {
	name, err := p.settingName()
	if name == "all" {
		name = ""
	}
	return resetStatement{name}, err
}

func (p *parser) discard() (statement, error) {
	if p.accept("all") || p.accept("plans") || p.accept("sequences") || p.accept("temp") || p.accept("temporary") {
		return discardStatement{}, nil
	}
	return nil, p.unexpected()
}

func (p *parser) deallocate() (statement, error) {
	p.accept("prepare")
	if p.accept("all") {
		return deallocateStatement{}, nil
	}
	name, err := p.ident()
	return deallocateStatement{name}, err
}

func (p *parser) prepare() (statement, error) {
	if p.peek().is("transaction") {
		return nil, unsupported("PREPARE TRANSACTION", "use COMMIT")
	}
	name, err := p.ident()
	if err != nil {
		return nil, err
	}
	s := prepareStatement{name: name}
	if p.accept("(") {
		for {
			t, err := p.typeName()
			if err != nil {
				return nil, err
			}
			s.types = append(s.types, t)
			if p.accept(")") {
				break
			}
			if err := p.expect(","); err != nil {
				return nil, err
			}
		}
	}
	if err := p.expect("as"); err != nil {
		return nil, err
	}
	if !startsQuery(p.peek()) {
		return nil, unsupported("PREPARE of this statement", "prepare a SELECT, or send the statement itself").at(position(p.sql, p.peek().start))
	}
	s.body = p.rest()
	return s, nil
}

func (p *parser) execute() (statement, error) {
	name, err := p.ident()
	if err != nil {
		return nil, err
	}
	s := executeStatement{name: name}
	if p.peek().punct("(") {
		s.args = p.rest()
	}
	return s, nil
}
