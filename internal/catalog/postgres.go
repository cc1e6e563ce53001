package catalog

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

const (
	// postgresMin is the oldest release that is accepted: 12.
	postgresMin = 120_000
	// postgresConnectTimeout bounds one attempt to connect, unless the URL says
	// connect_timeout.
	postgresConnectTimeout = 10 * time.Second
	// postgresIdleMax is how long a session may sit in a write transaction, which
	// holds up all others, before the server ends it: its client is paused or cut
	// off, for between two statements of ours are microseconds.
	postgresIdleMax = 10 * time.Second
	// postgresLookupMax exceeds postgresIdleMax and a restart of the server.
	postgresLookupMax = time.Minute
	// postgresUpgradeLock keeps two programs from making the tables at once, before
	// there is a row to lock. It is "tapehous" in ASCII.
	postgresUpgradeLock = 0x7461706568_6f7573
)

// postgres keeps the catalog in a PostgreSQL database, which several servers may
// share. See docs/protocols/commit.md, "On PostgreSQL".
type postgres struct {
	config    *pgx.ConnConfig
	dir       string // of the binding; "" when read-only
	startWait time.Duration
	idleMax   time.Duration // postgresIdleMax
	logger    *slog.Logger
}

// CheckURL checks the URL of a PostgreSQL catalog. Its errors never show a
// password, nor a host: a password with a special character that is not escaped
// can look like one.
func CheckURL(text string) error {
	_, err := parsePostgres(text)
	return err
}

const urlForm = "want postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=verify-full, with special characters of the password as %-escapes"

func parsePostgres(text string) (*pgx.ConnConfig, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil: // it shows the text
		return nil, fmt.Errorf("%w URL: %s", ErrInvalid, urlForm)
	case u.Scheme != "postgres" && u.Scheme != "postgresql":
		return nil, fmt.Errorf("%w URL: it does not begin with postgres://; %s", ErrInvalid, urlForm)
	case u.Fragment != "" || u.User == nil && strings.Contains(text, "@"):
		return nil, fmt.Errorf("%w URL: it has a # or ? before its @; %s", ErrInvalid, urlForm)
	}
	config, err := pgx.ParseConfig(text)
	if err != nil {
		reason := "the driver does not take it"
		if parse := (*pgconn.ParseConfigError)(nil); errors.As(err, &parse) {
			if inner := errors.Unwrap(parse); inner != nil {
				reason = hide(inner.Error(), u)
			}
		}
		return nil, fmt.Errorf("%w URL: %s; %s", ErrInvalid, reason, urlForm)
	}
	if strings.Trim(u.Path, "/") == "" && u.Query().Get("dbname") == "" && u.Query().Get("database") == "" {
		return nil, fmt.Errorf("%w URL: it names no database; %s", ErrInvalid, urlForm)
	}
	if err := checkTransport(config, u); err != nil {
		return nil, err
	}
	// A pooler in transaction mode gives each transaction another session, so
	// that none may rely on what an earlier one prepared.
	config.DefaultQueryExecMode = pgx.QueryExecModeExec
	config.StatementCacheCapacity, config.DescriptionCacheCapacity = 0, 0
	if config.RuntimeParams["application_name"] == "" {
		config.RuntimeParams["application_name"] = "tapehouse"
	}
	if !u.Query().Has("connect_timeout") {
		config.ConnectTimeout = postgresConnectTimeout
	}
	dialer := &net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}}
	config.DialFunc = dialer.DialContext
	return config, nil
}

// hide removes a URL's password from a text.
func hide(text string, u *url.URL) string {
	secrets := []string{u.Query().Get("password")}
	if u.User != nil {
		if p, ok := u.User.Password(); ok {
			secrets = append(secrets, p, url.QueryEscape(p), url.PathEscape(p), strings.TrimPrefix(url.UserPassword("", p).String(), ":"))
		}
	}
	for _, s := range secrets {
		if s != "" {
			text = strings.ReplaceAll(text, s, "…")
		}
	}
	return text
}

// checkTransport refuses a connection in the clear to another machine, unless
// the URL says that it is wanted: the driver's default would fall back to one.
func checkTransport(config *pgx.ConnConfig, u *url.URL) error {
	plain := map[string]bool{config.Host: config.TLSConfig == nil}
	for _, f := range config.Fallbacks {
		plain[f.Host] = plain[f.Host] || f.TLSConfig == nil
	}
	for host, possible := range plain {
		ip := net.ParseIP(host)
		local := strings.HasPrefix(host, "/") || host == "localhost" || ip != nil && ip.IsLoopback()
		if possible && !local && u.Query().Get("sslmode") != "disable" {
			return fmt.Errorf("%w URL: the catalog and its password could cross the network in the clear: add sslmode=verify-full (and sslrootcert=FILE), or sslmode=disable if the network is trusted", ErrInvalid)
		}
	}
	return nil
}

func newPostgres(o *Options, logger *slog.Logger) (*postgres, error) {
	config, err := parsePostgres(o.Postgres)
	if err != nil {
		return nil, err
	}
	if !o.ReadOnly && config.ValidateConnect == nil {
		// Of several hosts, or after a failover: the one that takes writes.
		config.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	return &postgres{config, o.Dir, o.StartWait, postgresIdleMax, logger}, nil
}

func (p *postgres) label() string {
	u := url.URL{Scheme: "postgres", Host: net.JoinHostPort(p.config.Host, strconv.Itoa(int(p.config.Port))), Path: "/" + p.config.Database}
	if strings.HasPrefix(p.config.Host, "/") {
		u.Host = ""
	}
	return u.String()
}

func (p *postgres) open(ctx context.Context, readOnly bool) (writer, reader *sql.DB, err error) {
	if !readOnly {
		if err := errors.Join(CheckDirectory(p.dir, p.label()), os.MkdirAll(p.dir, 0o755)); err != nil {
			return nil, nil, err
		}
		writer = sql.OpenDB(connector{stdlib.GetConnector(*p.config), true})
		writer.SetMaxOpenConns(1)
		writer.SetMaxIdleConns(1)
	}
	reader = sql.OpenDB(connector{stdlib.GetConnector(*p.config), false})
	reader.SetMaxOpenConns(readersMax)
	reader.SetMaxIdleConns(readersMax)
	if err := p.reach(ctx, reader, writer); err != nil {
		return nil, nil, errors.Join(err, closeIf(writer), reader.Close())
	}
	return writer, reader, nil
}

// reach waits for a server that starts at the same time as this one.
func (p *postgres) reach(ctx context.Context, reader, writer *sql.DB) error {
	began := time.Now()
	for waited := false; ; waited = true {
		err := p.check(ctx, reader, writer)
		if err == nil || !p.passing(err) || time.Since(began) >= p.startWait {
			return err
		}
		if !waited {
			p.logger.Warn("PostgreSQL cannot be reached; waiting for it", "catalog", p.label(), "at_most", p.startWait, "error", err)
		}
		if err := pause(ctx, waitMax/2); err != nil {
			return err
		}
	}
}

// check reads back what makes a commit durable, as with SQLite's pragmas.
func (p *postgres) check(ctx context.Context, reader, writer *sql.DB) error {
	db := reader
	if writer != nil {
		db = writer
	}
	var release int
	var encoding, fsync, pages, commit, standbys string
	if err := db.QueryRowContext(ctx, `SELECT current_setting('server_version_num')::int, current_setting('server_encoding'), current_setting('fsync'),
		current_setting('full_page_writes'), current_setting('synchronous_commit'), current_setting('synchronous_standby_names')`).
		Scan(&release, &encoding, &fsync, &pages, &commit, &standbys); err != nil {
		return err
	}
	switch {
	case release < postgresMin:
		return fmt.Errorf("%w: PostgreSQL %d.%d: want 12 or newer", ErrUnsupported, release/10_000, release%10_000)
	case encoding != "UTF8":
		return fmt.Errorf("%w: the database's encoding is %s: create it with ENCODING 'UTF8'", ErrUnsupported, encoding)
	case writer == nil:
		return nil
	case fsync != "on":
		return errors.New("PostgreSQL runs with fsync=off: commits would not be durable; set fsync = on in postgresql.conf and restart it")
	case commit == "off":
		return errSynchronousCommit
	}
	if pages != "on" {
		p.logger.Warn("PostgreSQL runs with full_page_writes=off: a power cut can damage it unless its file system writes pages whole", "catalog", p.label())
	}
	if standbys != "" && (commit == "local" || commit == "remote_write") {
		p.logger.Warn("PostgreSQL tells of commits before a standby has them on disk: a failover may lose some; set synchronous_commit = on", "catalog", p.label(), "synchronous_commit", commit)
	}
	return nil
}

var errSynchronousCommit = errors.New("PostgreSQL runs with synchronous_commit=off: commits would not be durable; say ALTER ROLE … SET synchronous_commit = on, or set it in postgresql.conf")

// have looks for the tables behind a lock of their makers.
func (p *postgres) have(ctx context.Context, tx *sql.Tx) (version int, err error) {
	if _, err := tx.ExecContext(ctx, `SELECT pg_advisory_xact_lock(?)`, int64(postgresUpgradeLock)); err != nil {
		return 0, fmt.Errorf("lock the schema: %w", err)
	}
	var schemaName sql.NullString
	var ours, others int
	if err := tx.QueryRowContext(ctx, `SELECT current_schema()::text, count(*) FILTER (WHERE relname IN ('schema_version', 'catalog_owner')),
		count(*) FILTER (WHERE relname IN ('schema_version', 'iceberg_tables', 'iceberg_namespace_properties') OR relname LIKE 'catalog\_%' OR relname LIKE 'external\_%')
		FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = current_schema() AND c.relkind IN ('r', 'p', 'v', 'm', 'f')`).Scan(&schemaName, &ours, &others); err != nil {
		return 0, fmt.Errorf("look for the catalog's tables: %w", err)
	}
	switch {
	case !schemaName.Valid:
		return 0, errors.New("the search_path names no schema that exists: create it, or correct search_path in the URL")
	case ours == 2:
		err := tx.QueryRowContext(ctx, `SELECT version FROM schema_version WHERE id = 1 FOR UPDATE`).Scan(&version)
		if err != nil {
			return 0, fmt.Errorf("read schema version: %w", err)
		}
	case others > 0:
		return 0, fmt.Errorf("the schema %s has tables of another program under names that the catalog uses: give the catalog a database of its own", schemaName.String)
	}
	return version, nil
}

// ddlWords turns SQLite's types into PostgreSQL's. Keys are compared and sorted by
// bytes, as SQLite does, whatever the database's collation is. What SQLite does
// not bound is not bounded here either.
var ddlWords = strings.NewReplacer(" WITHOUT ROWID", "", "INTEGER", "BIGINT", "VARCHAR(1000)", "TEXT", "TEXT", `TEXT COLLATE "C"`,
	"VARCHAR(255)", `VARCHAR(255) COLLATE "C"`, "VARCHAR(36)", `VARCHAR(36) COLLATE "C"`)

func (p *postgres) copyTo(context.Context, string) error {
	return fmt.Errorf("%w: the catalog is in PostgreSQL: back it up with its own tools, and the data directory when it is stopped", ErrUnsupported)
}

func (p *postgres) ddl(statement string) string { return ddlWords.Replace(statement) }

// enter locks the catalog's one row until the transaction ends, and sees to it
// that the lock does not outlive its holder. Transactions are READ COMMITTED, so
// that each statement after this one sees what former holders committed.
func (p *postgres) enter(ctx context.Context, tx *sql.Tx) error {
	var have int
	var commit, idle string
	if err := tx.QueryRowContext(ctx, `SELECT version, current_setting('synchronous_commit'), set_config('idle_in_transaction_session_timeout', ?, true)
		FROM schema_version WHERE id = 1 FOR UPDATE`, strconv.FormatInt(p.idleMax.Milliseconds(), 10)).Scan(&have, &commit, &idle); err != nil {
		return fmt.Errorf("lock the catalog: %w", err)
	}
	if have != schemaVersion {
		return &VersionError{p.label(), have, schemaVersion}
	}
	if commit == "off" { // another session than the one that was checked, behind a pooler
		return errSynchronousCommit
	}
	return nil
}

// lastCommit waits for a transaction that is still undecided: it has changed the
// row, and holds its lock until it has ended.
func (p *postgres) lastCommit() string {
	return `SELECT last_commit FROM catalog_owner WHERE epoch = ? FOR UPDATE`
}

func (p *postgres) lookupMax() time.Duration { return postgresLookupMax }

// Classes and codes of SQLSTATE.
const (
	stateConnection    = "08"
	stateRollback      = "40" // serialization failure, deadlock
	stateResources     = "53" // too many connections, for one
	stateIntervention  = "57P"
	stateReadOnly      = "25006" // it has become a standby
	stateIdle          = "25P03" // ended for sitting idle in a transaction
	stateAuthorization = "28"
	stateNoDatabase    = "3D000"
	statePrivilege     = "42501"
	stateNoTable       = "42P01"
)

// invalidStates are of values that the database does not take: too long for
// their column or for an index, bytes that are no UTF-8, a NUL.
var invalidStates = []string{"22001", "22021", "22P05", "54000"}

func stateOf(err error) (state string, ok bool) {
	if e := (*pgconn.PgError)(nil); errors.As(err, &e) {
		return e.Code, true
	}
	return "", false
}

// passing: the connection was lost or refused, the server starts or stops, or
// another transaction was in the way.
func (p *postgres) passing(err error) bool {
	if state, ok := stateOf(err); ok {
		for _, class := range []string{stateConnection, stateRollback, stateResources, stateIntervention, stateReadOnly, stateIdle} {
			if strings.HasPrefix(state, class) {
				return true
			}
		}
		return false
	}
	return errors.Is(err, errLost) || errors.Is(err, driver.ErrBadConn)
}

func (p *postgres) invalid(err error) bool {
	state, ok := stateOf(err)
	return ok && slices.Contains(invalidStates, state)
}

func (p *postgres) explain(err error) error {
	hint := ""
	switch state, ok := stateOf(err); {
	case ok && strings.HasPrefix(state, stateAuthorization):
		hint = "check the user and the password in catalog:, or PGPASSWORD, PGPASSFILE and pg_hba.conf"
	case ok && state == stateNoDatabase:
		hint = fmt.Sprintf("create it: CREATE DATABASE %s ENCODING 'UTF8' TEMPLATE template0", pgx.Identifier{p.config.Database}.Sanitize())
	case ok && state == statePrivilege:
		hint = fmt.Sprintf("the user needs a schema to make tables in: ALTER DATABASE %s OWNER TO %s, or GRANT USAGE, CREATE ON SCHEMA public TO %[2]s",
			pgx.Identifier{p.config.Database}.Sanitize(), pgx.Identifier{p.config.User}.Sanitize())
	case ok && state == stateNoTable:
		hint = "there is no catalog in this database: start the server on it once, which makes it"
	case ok && strings.HasPrefix(state, stateConnection): // a pooler's word for everything
		hint = "the server, or a pooler before it, ended the connection: check the user and the password, and its log"
	case !ok && p.passing(err):
		hint = "is PostgreSQL running, and does it listen there?"
	default:
		return err
	}
	return fmt.Errorf("%w; %s", err, hint)
}

// errLost says that a connection could not be made, or ended under a statement.
var errLost = errors.New("no connection to PostgreSQL")

// connector makes connections on which the statements of this package, written
// for SQLite, run unchanged.
type connector struct {
	driver.Connector
	writes bool
}

func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	raw, err := c.Connector.Connect(ctx)
	if err != nil {
		if _, ok := stateOf(err); ok || ctx.Err() != nil {
			return nil, err
		}
		return nil, fmt.Errorf("%w: %w", errLost, err)
	}
	return conn{raw.(*stdlib.Conn), c.writes}, nil
}

type conn struct {
	*stdlib.Conn
	writes bool
}

// BeginTx begins a transaction at the level that this package counts on,
// whatever the server's default is.
func (c conn) BeginTx(ctx context.Context, o driver.TxOptions) (driver.Tx, error) {
	if c.writes {
		o.Isolation = driver.IsolationLevel(sql.LevelReadCommitted)
	} else {
		o.Isolation, o.ReadOnly = driver.IsolationLevel(sql.LevelRepeatableRead), true
	}
	tx, err := c.Conn.BeginTx(ctx, o)
	return tx, c.lost(ctx, err)
}

func (c conn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	r, err := c.Conn.QueryContext(ctx, numbered(query), args)
	if err != nil {
		return nil, c.lost(ctx, err)
	}
	return r, nil
}

func (c conn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if !c.writes {
		return nil, errors.New("the read connections do not write")
	}
	r, err := c.Conn.ExecContext(ctx, numbered(query), args)
	return r, c.lost(ctx, err)
}

// PrepareContext prepares nothing on the server, where it would outlast the
// transaction.
func (c conn) PrepareContext(_ context.Context, query string) (driver.Stmt, error) {
	return statement{c, query}, nil
}

// lost marks an error after which the connection is gone.
func (c conn) lost(ctx context.Context, err error) error {
	if err == nil || ctx.Err() != nil || !c.Conn.Conn().IsClosed() {
		return err
	}
	return fmt.Errorf("%w: %w", errLost, err)
}

type statement struct {
	conn  conn
	query string
}

func (s statement) Close() error  { return nil }
func (s statement) NumInput() int { return -1 }
func (s statement) Exec([]driver.Value) (driver.Result, error) {
	return nil, errors.ErrUnsupported // database/sql takes ExecContext
}
func (s statement) Query([]driver.Value) (driver.Rows, error) {
	return nil, errors.ErrUnsupported // database/sql takes QueryContext
}
func (s statement) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	return s.conn.ExecContext(ctx, s.query, args)
}
func (s statement) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	return s.conn.QueryContext(ctx, s.query, args)
}

// numbered writes the parameters "?" of a statement as "$1", "$2" and so on.
func numbered(query string) string {
	var b strings.Builder
	n, quoted := 0, false
	for i := range len(query) {
		switch c := query[i]; {
		case c == '\'':
			quoted = !quoted
			b.WriteByte(c)
		case c == '?' && !quoted:
			n++
			b.WriteByte('$')
			b.WriteString(strconv.Itoa(n))
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}
