package warehouse

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/engine"
)

// SessionOptions describe a connection.
type SessionOptions struct {
	User       string
	Database   string            // "": the one there is
	Parameters map[string]string // settings of the startup packet
	ProcessID  uint32
	// Deallocate drops a statement that was prepared by the protocol and
	// reports whether there was one; "" drops all. nil: there are none.
	Deallocate func(name string) bool
}

// A Notice is a message beside a result.
type Notice struct {
	Severity string // NOTICE, WARNING or INFO
	Code     string
	Message  string
	Hint     string
}

// noticesMax bounds the notices that a client has not taken.
const noticesMax = 1000

// A Session executes one connection's statements. It is for one goroutine at a
// time; a Result may be read while other statements run.
type Session struct {
	w      *Warehouse
	engine *engine.Session
	o      SessionOptions

	values   map[string]string // settings, by lower-case name, that differ from the default
	defaults map[string]string // what RESET goes back to
	prepared map[string]prepareStatement
	notices  []Notice
	tx       *transaction // nil: none is open
	env      *environment // of the statement at work
	closed   bool
}

// NewSession opens a session. ctx is not kept.
func (w *Warehouse) NewSession(ctx context.Context, o SessionOptions) (*Session, error) {
	if o.Database == "" {
		o.Database = Database
	}
	if o.Database != Database {
		e := errorf(codeInvalidCatalogName, "database %q does not exist", o.Database).hint("the database is %s", Database)
		e.Severity = "FATAL"
		return nil, e
	}
	es, err := w.o.Engine.Session(ctx)
	if err != nil {
		return nil, asError(err, "")
	}
	s := &Session{w: w, engine: es, o: o, values: map[string]string{}, defaults: map[string]string{}, prepared: map[string]prepareStatement{}}
	s.defaults["search_path"] = strings.Join(w.o.SearchPath, ", ")
	s.defaults["session_authorization"] = o.User
	if w.o.StatementTimeout > 0 {
		s.defaults["statement_timeout"] = w.o.StatementTimeout.String()
	}
	for name, value := range o.Parameters {
		key := strings.ToLower(name)
		if _, ok := settings[key]; !ok {
			continue // a startup packet may carry what only its sender knows
		}
		v, err := s.checked(key, value)
		if err != nil {
			_ = es.Close()
			e := asError(err, "")
			e.Severity = "FATAL"
			return nil, e
		}
		s.defaults[key] = v
	}
	return s, nil
}

// Close ends the session and rolls back its transaction.
func (s *Session) Close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	s.rollback(context.Background())
	return s.engine.Close()
}

// Split cuts a simple query into its statements.
func (s *Session) Split(sql string) ([]string, error) { return Split(sql) }

// Status is 'I' outside a transaction block, 'T' within, 'E' in a failed one.
func (s *Session) Status() byte {
	switch {
	case s.tx == nil || !s.tx.explicit:
		return 'I'
	case s.tx.failed:
		return 'E'
	}
	return 'T'
}

// TakeNotices returns the notices since the last call.
func (s *Session) TakeNotices() []Notice {
	n := s.notices
	s.notices = nil
	return n
}

func (s *Session) notice(severity, code, message string) {
	if len(s.notices) < noticesMax {
		s.notices = append(s.notices, Notice{Severity: severity, Code: code, Message: message})
	}
}

// Parameters holds the settings that the protocol reports, by canonical name.
// The map is the caller's.
func (s *Session) Parameters() map[string]string {
	m := make(map[string]string, len(reported)+1)
	for _, name := range reported {
		m[name], _ = s.setting(name)
	}
	m["search_path"], _ = s.setting("search_path")
	return m
}

// setting is the current value of a setting.
func (s *Session) setting(name string) (string, bool) {
	key := strings.ToLower(name)
	if v, ok := s.values[key]; ok {
		return v, true
	}
	if v, ok := s.defaults[key]; ok {
		return v, true
	}
	d, ok := settings[key]
	return d.value, ok
}

func (s *Session) checked(key, value string) (string, error) {
	d := settings[key]
	if d.fixed {
		return "", errorf(codeCannotChangeNow, "parameter %q cannot be changed", d.canonical)
	}
	if d.check == nil {
		return value, nil
	}
	return d.check(value)
}

// set changes a setting. A transaction that rolls back takes it with it.
func (s *Session) set(st setStatement) error {
	key := strings.ToLower(st.name)
	if _, ok := settings[key]; !ok {
		if !strings.Contains(key, ".") {
			return errorf(codeUndefinedObject, "unrecognized configuration parameter %q", st.name).hint("SHOW ALL lists the parameters")
		}
		// A custom parameter belongs to whoever names it, as in PostgreSQL.
		if len(s.values) > 1000 || len(st.value) > 1<<16 {
			return errorf(codeLimitExceeded, "too many or too long custom parameters")
		}
		s.values[key] = st.value
		return nil
	}
	if st.toDefault {
		delete(s.values, key)
		return nil
	}
	v, err := s.checked(key, st.value)
	if err != nil {
		return err
	}
	s.values[key] = v
	return nil
}

// transaction is an open transaction. What it reads it reads as of pinned.
type transaction struct {
	explicit bool
	failed   bool
	readOnly bool
	startAt  time.Time

	pin     *engine.Pin // all tables; explicit transactions only
	values  map[string]string
	local   map[string]string // settings before SET LOCAL
	writes  map[catalog.Name]*stagedWrite
	release []func()
}

func (s *Session) begin(explicit bool) {
	if s.tx == nil {
		saved := make(map[string]string, len(s.values))
		for k, v := range s.values {
			saved[k] = v
		}
		s.tx = &transaction{startAt: s.w.o.Now().UTC(), values: saved, local: map[string]string{}, writes: map[catalog.Name]*stagedWrite{}}
	}
	s.tx.explicit = s.tx.explicit || explicit
}

// SyncPoint ends the implicit transaction, if one is open: it commits if ok,
// else it rolls back. In a transaction block ok does nothing, and !ok marks the
// block failed.
func (s *Session) SyncPoint(ctx context.Context, ok bool) error {
	switch {
	case s.tx == nil:
		return nil
	case s.tx.explicit:
		if !ok {
			s.tx.failed = true
		}
		return nil
	case ok:
		return s.commit(ctx)
	}
	s.rollback(ctx)
	return nil
}

func (s *Session) commit(ctx context.Context) error {
	tx := s.tx
	if len(tx.writes) > 0 {
		if err := s.commitWrites(ctx, tx); err != nil {
			s.rollback(ctx)
			return asError(err, "")
		}
	}
	for k, v := range tx.local {
		s.restore(k, v)
	}
	s.free(tx)
	return nil
}

// unsetValue marks a setting that was at its default.
const unsetValue = "\x00default"

func (s *Session) restore(key, value string) {
	if value == unsetValue {
		delete(s.values, key)
	} else {
		s.values[key] = value
	}
}

// rollback ends the transaction without its writes and settings. It is safe
// when none is open.
func (s *Session) rollback(ctx context.Context) {
	tx := s.tx
	if tx == nil {
		return
	}
	s.values = tx.values
	s.dropWrites(context.WithoutCancel(ctx), tx)
	s.free(tx)
}

func (s *Session) free(tx *transaction) {
	if tx.pin != nil {
		tx.pin.Release()
	}
	for _, f := range tx.release {
		f()
	}
	s.tx = nil
}

// fail notes that a statement of an explicit transaction went wrong.
func (s *Session) fail(err error, sql string) error {
	if err == nil {
		return nil
	}
	if s.tx != nil && s.tx.explicit {
		s.tx.failed = true
	}
	e := asError(err, sql)
	if e.Code == codeInternal {
		s.w.o.Logger.Error("statement failed", "user", s.o.User, "error", err)
	}
	return e
}

// guard refuses what a failed transaction may not do.
func (s *Session) guard(st statement) error {
	if s.closed {
		return errorf(codeAdminShutdown, "the session is closed")
	}
	if s.tx == nil || !s.tx.failed {
		return nil
	}
	if t, ok := st.(transactionStatement); ok && (t.verb == "COMMIT" || t.verb == "ROLLBACK") {
		return nil
	}
	return errorf(codeFailedTransaction, "current transaction is aborted, commands ignored until end of transaction block").hint("send ROLLBACK")
}

// control executes BEGIN, COMMIT and ROLLBACK, and answers the tag.
func (s *Session) control(ctx context.Context, t transactionStatement) (string, error) {
	switch t.verb {
	case "BEGIN", "START TRANSACTION":
		if s.tx != nil && s.tx.explicit {
			s.notice("WARNING", codeActiveTransaction, "there is already a transaction in progress")
			return t.verb, nil
		}
		s.begin(true)
		s.tx.readOnly = s.tx.readOnly || t.readOnly
		return t.verb, nil
	case "SET":
		if s.tx != nil && t.readOnly {
			s.tx.readOnly = true
		}
		return "SET", nil
	case "COMMIT":
		if s.tx == nil || !s.tx.explicit {
			s.notice("WARNING", codeNoActiveTransaction, "there is no transaction in progress")
			if s.tx == nil {
				return "COMMIT", nil
			}
		}
		if s.tx.failed {
			s.rollback(ctx)
			return "ROLLBACK", nil
		}
		return "COMMIT", s.commit(ctx)
	}
	if s.tx == nil || !s.tx.explicit {
		s.notice("WARNING", codeNoActiveTransaction, "there is no transaction in progress")
	}
	s.rollback(ctx)
	return "ROLLBACK", nil
}

// environment describes the session to the rewriter, for one statement.
func (s *Session) environment(ctx context.Context) (*environment, error) {
	now := s.w.o.Now().UTC()
	path, _ := s.setting("search_path")
	schemas, err := parseSearchPath(path)
	if err != nil {
		return nil, err
	}
	zone, _ := s.setting("timezone")
	started := now
	if s.tx != nil {
		started = s.tx.startAt
	}
	env := &environment{
		parse: s.w.parse, print: s.w.print, lookup: s.lookup, describe: s.describeProbe,
		database: s.o.Database, user: s.o.User, searchPath: schemas, zone: zone, now: stamp(started), clock: stamp(now),
		version: s.w.version(), started: stamp(s.w.started), pid: int(s.o.ProcessID), setting: s.setting,
	}
	namespaces, err := s.w.o.Catalog.Namespaces(ctx)
	if err != nil {
		return nil, err
	}
	for _, want := range schemas {
		if want == "public" {
			env.schemas = append(env.schemas, want)
			continue
		}
		for _, n := range namespaces {
			if n == want {
				env.schemas = append(env.schemas, n)
			}
		}
	}
	s.env = env
	return env, nil
}

// lookup resolves a relation's name as the transaction sees it.
func (s *Session) lookup(ctx context.Context, schema, name string) (*relation, error) {
	if rel := systemLookup(schema, name); rel != nil {
		return rel, nil
	}
	schemas := []string{schema}
	if schema == "" {
		schemas = s.env.searchPath
	}
	for _, sc := range schemas {
		key := catalog.Name{Namespace: sc, Table: name}
		if s.w.o.Views != nil {
			v, err := s.w.o.Views.Read(ctx, key)
			if err != nil {
				return nil, err
			}
			if v != nil {
				rel := &relation{schema: sc, name: name, view: v}
				for _, c := range v.Columns {
					rel.columns = append(rel.columns, relColumn{c.Name, fromIceberg(c.Type)})
				}
				return rel, nil
			}
			if state, err := s.isViewState(ctx, key); err != nil {
				return nil, err
			} else if state {
				continue
			}
		}
		if s.tx != nil && s.tx.pin != nil {
			if r, ok := s.tx.pin.Relation(engine.Name(key)); ok {
				rel := &relation{schema: sc, name: name}
				for i, f := range r.Schema.Fields {
					t := fromRecord(f.Type)
					if i < len(r.Types) && r.Types[i] != "" {
						t = fromDuckDB(r.Types[i])
					}
					rel.columns = append(rel.columns, relColumn{f.Name, t})
				}
				return rel, nil
			}
		}
		if base, kind, ok := metadataTable(name); ok {
			rel, err := s.metadataRelation(ctx, sc, base, kind)
			if err != nil || rel != nil {
				return rel, err
			}
			continue
		}
		t, err := s.w.o.Catalog.Load(ctx, key)
		switch {
		case errors.Is(err, catalog.ErrNotFound):
			e, err := s.w.o.Catalog.External(ctx, key)
			if errors.Is(err, catalog.ErrNotFound) {
				continue
			}
			if err != nil {
				return nil, err
			}
			return s.externalRelation(&e), nil
		case errors.Is(err, catalog.ErrInvalid):
			continue
		case err != nil:
			return nil, err
		}
		rel := &relation{schema: sc, name: name}
		for _, c := range tableColumns(t) {
			rel.columns = append(rel.columns, relColumn{c.name, c.typ})
		}
		return rel, nil
	}
	return nil, nil
}

// fromDuckDB reads DuckDB's spelling of a type.
func fromDuckDB(spelling string) sqlType {
	tokens, err := tokenize(spelling)
	if err != nil {
		return sqlType{}
	}
	p := &parser{sql: spelling, tokens: tokens}
	t, err := p.typeName()
	if err != nil {
		return sqlType{}
	}
	return t
}
