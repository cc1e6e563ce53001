package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tapehouse/tapehouse/internal/auth"
	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/delivery"
	"github.com/tapehouse/tapehouse/internal/engine"
	"github.com/tapehouse/tapehouse/internal/firehose"
	"github.com/tapehouse/tapehouse/internal/pgwire"
	"github.com/tapehouse/tapehouse/internal/record"
	"github.com/tapehouse/tapehouse/internal/warehouse"
)

// tables gives the engine the catalog's tables.
type tables struct{ catalog *catalog.Catalog }

// Resolve implements engine.Tables: all names from one transaction.
func (t tables) Resolve(ctx context.Context, names []engine.Name, at map[engine.Name]engine.At) ([]engine.Resolved, error) {
	wanted := make([]catalog.Name, len(names))
	for i, n := range names {
		wanted[i] = catalog.Name(n)
	}
	loaded, err := t.catalog.LoadAll(ctx, wanted)
	if err != nil {
		if errors.Is(err, catalog.ErrNotFound) {
			return nil, &engine.Error{Kind: engine.Catalog, Message: err.Error()}
		}
		return nil, err
	}
	out := make([]engine.Resolved, len(names))
	for i, tab := range loaded {
		a := catalog.At{SnapshotID: at[names[i]].Snapshot, Tag: at[names[i]].Tag}
		r, err := t.resolve(ctx, names[i], tab, a)
		if err != nil {
			return nil, err
		}
		out[i] = r
	}
	return out, nil
}

func (t tables) resolve(ctx context.Context, name engine.Name, tab *catalog.Table, at catalog.At) (engine.Resolved, error) {
	id, err := tab.Resolve(at)
	if err != nil {
		return engine.Resolved{}, &engine.Error{Kind: engine.Catalog, Message: err.Error()}
	}
	through := tab.Through()
	if at != (catalog.At{}) {
		if through, err = tab.ThroughAt(at); err != nil {
			return engine.Resolved{}, err
		}
	}
	files, err := t.catalog.Files(ctx, tab, at)
	if err != nil {
		return engine.Resolved{}, err
	}
	schema, types := warehouse.RelationSchema(tab)
	return engine.Resolved{
		Name: name, Snapshot: id, Through: through,
		Version:  fmt.Sprintf("%s/%d/%d", tab.UUID, id, tab.Schema.ID),
		Relation: engine.Relation{Schema: schema, Types: types, PartitionBy: tab.PartitionBy, Files: relationFiles(files)},
	}, nil
}

// relationFiles converts a plan's files.
func relationFiles(files []catalog.DataFile) []engine.File {
	out := make([]engine.File, len(files))
	for i := range files {
		f := &files[i]
		out[i] = engine.File{Path: f.Path, Rows: f.Rows, SchemaID: f.SchemaID, URI: f.URI(), Ranges: f}
		if f.Partition.Has {
			d := f.Partition.Value
			out[i].PartitionTradeDate = &d
		}
		for _, del := range f.Deletes {
			out[i].Deletes = append(out[i].Deletes, del.Path)
		}
	}
	return out
}

// documents gives delivery the catalog's documents. Streams are those of the data
// directory whose log has their records: another server that shares the catalog
// does not know them.
type documents struct {
	catalog *catalog.Catalog
	own     func(kind string) string
}

func (d documents) List(ctx context.Context, kind string) (map[string]json.RawMessage, error) {
	docs, err := d.catalog.ListDocuments(ctx, d.own(kind), "")
	if err != nil {
		return nil, err
	}
	out := make(map[string]json.RawMessage, len(docs))
	for _, doc := range docs {
		out[doc.Key] = doc.Body
	}
	return out, nil
}

func (d documents) Put(ctx context.Context, kind, key string, body json.RawMessage) error {
	keep := 20
	if kind == delivery.KindProgress {
		keep = progressKept
	}
	_, err := d.catalog.PutDocument(ctx, catalog.DocumentWrite{Kind: d.own(kind), Key: key, IfVersion: catalog.AnyVersion, Body: body, KeepVersions: keep})
	return err
}

// progressKept is how many progresses of an object lane are kept, two a flush:
// tapehouse trace names the objects of the last five hundred flushes.
const progressKept = 1000

func (d documents) History(ctx context.Context, kind, key string) ([]json.RawMessage, error) {
	docs, err := d.catalog.DocumentHistory(ctx, d.own(kind), key)
	if err != nil {
		return nil, err
	}
	var out []json.RawMessage
	for _, doc := range slices.Backward(docs) {
		if doc.Body != nil {
			out = append(out, doc.Body)
		}
	}
	return out, nil
}

func (d documents) Delete(ctx context.Context, kind, key string) error {
	_, err := d.catalog.PutDocument(ctx, catalog.DocumentWrite{Kind: d.own(kind), Key: key, IfVersion: catalog.AnyVersion, Delete: true, KeepVersions: 20})
	return err
}

// streams gives the Firehose front door the delivery streams; streams.go has
// what changes them.
type streams struct {
	m          *delivery.Manager
	d          *destinations
	deletions  *deletions
	deleteWait time.Duration
}

func newStreams(m *delivery.Manager, d *destinations) streams {
	return streams{m, d, &deletions{}, deleteWait}
}

// tails gives the engine the tail of a delivery that is opened after it,
// because its transforms need the engine.
type tails struct{ s *Server }

// Tail implements engine.TailSource.
func (t tails) Tail(ctx context.Context, n engine.Name, through record.Vector, fresh bool) (engine.Tail, error) {
	if t.s.delivery == nil {
		return engine.Tail{}, &engine.Error{Kind: engine.Internal, Message: "the server is starting"}
	}
	return t.s.delivery.Tail(ctx, n, through, fresh)
}

// streamError maps delivery's errors to the front door's decisions.
func streamError(err error) error {
	kind := error(nil)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, delivery.ErrNotFound):
		return firehose.ErrNotFound
	case errors.Is(err, delivery.ErrExists):
		return firehose.ErrInUse
	case errors.Is(err, delivery.ErrChanged):
		return firehose.ErrConcurrent
	case errors.Is(err, delivery.ErrChanging):
		kind = firehose.ErrConcurrent
	case errors.Is(err, catalog.ErrNotFound), errors.Is(err, record.ErrInvalid):
		kind = firehose.ErrInvalid
	case errors.Is(err, delivery.ErrThrottled):
		return fmt.Errorf("%w: %w", firehose.ErrThrottled, err)
	case errors.Is(err, delivery.ErrUnavailable), errors.Is(err, delivery.ErrClosed):
		return fmt.Errorf("%w: %w", firehose.ErrUnavailable, err)
	default:
		return err
	}
	return &firehose.Refusal{Kind: kind, Message: err.Error()}
}

func (s streams) Create(ctx context.Context, c firehose.StreamConfig) (firehose.StreamInfo, error) {
	cfg, err := s.d.config(ctx, c)
	if err != nil {
		return firehose.StreamInfo{}, streamError(err)
	}
	cfg, err = s.m.Create(ctx, cfg)
	if err != nil {
		return firehose.StreamInfo{}, streamError(err)
	}
	return streamInfo(cfg)
}

func streamInfo(cfg delivery.Config) (firehose.StreamInfo, error) {
	info := firehose.StreamInfo{Status: firehose.StatusActive, Version: cfg.Version, CreatedAt: cfg.CreatedAt, UpdatedAt: cfg.UpdatedAt}
	if err := json.Unmarshal(cfg.API, &info.Config); err != nil {
		return info, fmt.Errorf("stream %s: read its description: %w", cfg.Name, err)
	}
	return info, nil
}

func (s streams) Describe(_ context.Context, name record.StreamName) (firehose.StreamInfo, error) {
	st, err := s.m.Stream(name)
	if err != nil {
		return firehose.StreamInfo{}, streamError(err)
	}
	info, err := streamInfo(st.Config())
	info.Status, info.Failure = s.deletions.status(name)
	return info, err
}

func (s streams) List(_ context.Context, after string, limit int) (names []record.StreamName, more bool, err error) {
	for _, st := range s.m.Streams() {
		if name := st.Config().Name; string(name) > after {
			if len(names) == limit {
				return names, true, nil
			}
			names = append(names, name)
		}
	}
	return names, false, nil
}

func (s streams) Put(ctx context.Context, name record.StreamName, p *firehose.PutRequest) (firehose.PutResult, error) {
	st, err := s.m.Stream(name)
	if err != nil {
		return nil, streamError(err)
	}
	receipt, err := st.Put(ctx, delivery.Docs{Arena: p.Docs.Arena, Ends: p.Docs.Ends})
	if err != nil {
		return nil, streamError(err)
	}
	return putResult{&receipt}, nil
}

// putResult answers a put. All of a put is on disk or none is acknowledged, so
// no record ever fails by itself.
type putResult struct{ *delivery.Receipt }

func (putResult) Failed() int                        { return 0 }
func (putResult) Failure(int) (code, message string) { return "", "" }

// backend gives the PostgreSQL wire protocol the warehouse's sessions.
type backend struct {
	w     *warehouse.Warehouse
	users *sqlUsers
}

func (b backend) NewSession(ctx context.Context, o pgwire.SessionOptions) (pgwire.Session, error) {
	if err := b.users.admit(o.User); err != nil {
		return nil, err
	}
	params := o.Parameters
	if o.ApplicationName != "" {
		params = map[string]string{"application_name": o.ApplicationName}
		for k, v := range o.Parameters {
			params[k] = v
		}
	}
	s, err := b.w.NewSession(ctx, warehouse.SessionOptions{User: o.User, Database: o.Database, Parameters: params, ProcessID: o.ProcessID, Deallocate: o.Deallocate})
	if err != nil {
		return nil, sqlError(err)
	}
	return session{s}, nil
}

// session converts the warehouse's types to the protocol's, which are the same
// by another name: neither package may import the other's caller.
type session struct{ s *warehouse.Session }

// statementError carries a warehouse error's fields to the protocol.
type statementError struct{ err *warehouse.Error }

func (e statementError) Error() string    { return e.err.Error() }
func (e statementError) Unwrap() error    { return e.err.Unwrap() }
func (e statementError) SQLState() string { return e.err.Code }

func (e statementError) ErrorFields() (severity, message, detail, hint string, position int) {
	return e.err.Severity, e.err.Message, e.err.Detail, e.err.Hint, e.err.Position
}

func sqlError(err error) error {
	if e, ok := errors.AsType[*warehouse.Error](err); ok {
		return statementError{e}
	}
	return err
}

func (s session) Split(sql string) ([]string, error) {
	out, err := s.s.Split(sql)
	return out, sqlError(err)
}

func (s session) Prepare(ctx context.Context, sql string, oids []uint32) (*pgwire.Statement, error) {
	st, err := s.s.Prepare(ctx, sql, oids)
	if err != nil {
		return nil, sqlError(err)
	}
	out := &pgwire.Statement{ParamOIDs: st.ParamOIDs, Columns: wireColumns(st.Columns), Empty: st.Empty, Handle: st}
	if c := st.Copy; c != nil {
		out.Copy = &pgwire.Copy{In: c.In, Format: pgwire.CopyFormat(c.Format), Delimiter: c.Delimiter, Null: c.Null, Quote: c.Quote, Escape: c.Escape,
			Header: c.Header, MatchHeader: c.MatchHeader, ForceQuote: c.ForceQuote, ForceNotNull: c.ForceNotNull, ForceNull: c.ForceNull, Columns: wireColumns(c.Columns)}
	}
	return out, nil
}

func wireColumns(in []warehouse.Column) []pgwire.Column {
	out := make([]pgwire.Column, len(in))
	for i, c := range in {
		out[i] = pgwire.Column(c)
	}
	return out
}

func (s session) Execute(ctx context.Context, st *pgwire.Statement, args []any) (pgwire.Result, error) {
	r, err := s.s.Execute(ctx, st.Handle.(*warehouse.Statement), args)
	if err != nil {
		return nil, sqlError(err)
	}
	return result{r}, nil
}

func (s session) CopyIn(ctx context.Context, st *pgwire.Statement, rows pgwire.RowReader) (string, error) {
	tag, err := s.s.CopyIn(ctx, st.Handle.(*warehouse.Statement), rows)
	return tag, sqlError(err)
}

func (s session) SyncPoint(ctx context.Context, ok bool) error {
	return sqlError(s.s.SyncPoint(ctx, ok))
}
func (s session) Status() byte                  { return s.s.Status() }
func (s session) Parameters() map[string]string { return s.s.Parameters() }
func (s session) Close() error                  { return s.s.Close() }

func (s session) TakeNotices() []pgwire.Notice {
	in := s.s.TakeNotices()
	out := make([]pgwire.Notice, len(in))
	for i, n := range in {
		out[i] = pgwire.Notice{Severity: n.Severity, Code: n.Code, Message: n.Message, Hint: n.Hint}
	}
	return out
}

type result struct{ *warehouse.Result }

func (r result) Columns() []pgwire.Column { return wireColumns(r.Result.Columns()) }

func (r result) Next(dst []any) error { return sqlError(r.Result.Next(dst)) }

// sqlUsers are the SQL users with their SCRAM verifiers, which are derived once
// for each version of the credentials, for all users together: whether a user
// exists cannot be told by the time of an answer.
type sqlUsers struct {
	store *auth.Store

	mu        sync.Mutex
	of        *auth.Credentials // the version that verifiers belongs to
	verifiers map[string]auth.SCRAMVerifier
}

func newSQLUsers(store *auth.Store) (*sqlUsers, error) {
	u := &sqlUsers{store: store}
	_, err := u.current()
	return u, err
}

// current returns the verifiers of the credentials in force; the map is not
// changed any more.
func (u *sqlUsers) current() (map[string]auth.SCRAMVerifier, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	c := u.store.Credentials()
	if c == u.of {
		return u.verifiers, nil
	}
	out := make(map[string]auth.SCRAMVerifier, len(c.Users))
	for _, user := range c.Users {
		v, err := auth.NewSCRAMVerifier(user.Password)
		if err != nil {
			return nil, fmt.Errorf("derive the verifier of SQL user %s: %w", user.Name, err)
		}
		out[user.Name] = v
	}
	u.of, u.verifiers = c, out
	return out, nil
}

// SCRAMVerifier implements pgwire's Credentials.
func (u *sqlUsers) SCRAMVerifier(_ context.Context, user string) (auth.SCRAMVerifier, bool, error) {
	u.store.Refresh() // a password that was just changed is in force
	verifiers, err := u.current()
	if err != nil {
		return auth.SCRAMVerifier{}, false, err
	}
	v, ok := verifiers[user]
	return v, ok, nil
}

// admit refuses a user who has proved who he is, but may not use SQL.
func (u *sqlUsers) admit(name string) error {
	if !mayConnect(u.store.Credentials(), name) {
		return statementError{&warehouse.Error{Severity: "FATAL", Code: "28000", Message: "role \"" + name + "\" is not permitted to log in",
			Hint: "A user whose credentials allow connect may."}}
	}
	u.store.UsedBy(name)
	return nil
}

// mayConnect reports whether there is a user of that name who may use SQL.
func mayConnect(c *auth.Credentials, name string) bool {
	user, ok := c.User(name)
	return ok && user.Policy.Allows(auth.ServiceSQL, auth.OperationConnect, auth.AnyStream)
}
