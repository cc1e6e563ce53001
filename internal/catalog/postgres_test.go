package catalog

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tapehouse/tapehouse/internal/hive"
	"github.com/tapehouse/tapehouse/internal/pgtest"
)

// behind puts a proxy between a world and its database.
func (w *world) behind() *pgtest.Proxy {
	p := pgtest.Start(w.t).StartProxy(w.t)
	w.postgres = pgtest.URL(p.Addr, w.database)
	return p
}

// direct is the same catalog, read past the proxy.
func (w *world) direct() *Catalog {
	d := &world{t: w.t, dir: w.dir, postgres: pgtest.URL(pgtest.Start(w.t).Addr, w.database), database: w.database, store: w.store}
	return d.open(func(o *Options) { o.ReadOnly = true })
}

// state is what a test of outcomes looks at: progress, rows, and how often the
// counting document was written.
func stateOfWorld(t *testing.T, c *Catalog, shard int) (through, rows, version int) {
	t.Helper()
	tbl, err := c.Load(t.Context(), executions)
	must(t, err)
	doc, err := c.GetDocument(t.Context(), "count", fmt.Sprint(shard))
	if err != nil && !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
	return int(tbl.Through()[shardKey(shard)]), int(rowsOf(files(t, c, tbl, At{}))), int(doc.Version)
}

// TestOutcomeOfEachFault cuts the connection once, around COMMIT: the commit is
// done exactly once, whatever the client could see of it.
func TestOutcomeOfEachFault(t *testing.T) {
	for _, fault := range []pgtest.Fault{pgtest.CutFirst, pgtest.CutAnswer, pgtest.CutAtOnce, pgtest.CarriedOut} {
		t.Run(fault.String(), func(t *testing.T) {
			w := newPostgresWorld(t)
			p := w.behind()
			c, reader := w.open(), w.direct()
			tbl := mustCreate(t, c, executionsSpec(executions))
			for n := range 5 {
				var injected atomic.Bool
				p.Plan(func(m pgtest.Message) pgtest.Fault {
					if !m.Commit() || injected.Swap(true) {
						return pgtest.None
					}
					return fault
				})
				_, err := c.Commit(t.Context(), []Commit{{Table: executions, Add: []NewFile{ghost(tbl, date0, int64(n), 1)}, Through: through(n + 1), RequireThrough: ptr(through(n))}}, counted(0, n+1))
				p.Plan(nil)
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(p.Later / 3) // for a COMMIT that is still on its way
				if through, rows, version := stateOfWorld(t, reader, 0); through != n+1 || rows != n+1 || version != n+1 {
					t.Fatalf("after commit %d: through %d, %d rows, document written %d times", n+1, through, rows, version)
				}
			}
			if p.Count(fault) != 5 {
				t.Errorf("%d faults", p.Count(fault))
			}
		})
	}
}

// TestOutcomesThroughRandomFaults: connections are cut at any message, and around
// every second COMMIT. nil means done once, an error means not done.
func TestOutcomesThroughRandomFaults(t *testing.T) {
	w := newPostgresWorld(t)
	p := w.behind()
	p.Later = 30 * time.Millisecond
	c, reader := w.open(), w.direct()
	tbl := mustCreate(t, c, executionsSpec(executions))
	commits := pgtest.Random(3, 0.5, pgtest.Message.Commit, pgtest.CutFirst, pgtest.CutAnswer, pgtest.CutAtOnce, pgtest.CarriedOut)
	others := pgtest.Random(4, 0.008, func(m pgtest.Message) bool { return !m.Commit() }, pgtest.CutFirst, pgtest.CutAnswer, pgtest.CutAtOnce)
	p.Plan(func(m pgtest.Message) pgtest.Fault {
		if m.Commit() {
			return commits(m)
		}
		return others(m)
	})
	done, failed := 0, 0
	for n := range 50 {
		_, err := c.Commit(t.Context(), []Commit{{Table: executions, Add: []NewFile{ghost(tbl, date0, int64(n), 1)}, Through: through(done + 1), RequireThrough: ptr(through(done))}}, counted(0, done+1))
		switch {
		case err == nil:
			done++
		case errors.Is(err, ErrPoisoned), errors.Is(err, ErrConflict):
			t.Fatalf("after %d: %v", done, err)
		default:
			failed++
		}
		if through, rows, version := stateOfWorld(t, reader, 0); through != done || rows != done || version != done {
			t.Fatalf("done %d: through %d, %d rows, document written %d times, after %v", done, through, rows, version, err)
		}
	}
	p.Plan(nil)
	t.Logf("%d done, %d refused; cut first %d, answer lost %d, cut at once %d, carried out later %d", done, failed,
		p.Count(pgtest.CutFirst), p.Count(pgtest.CutAnswer), p.Count(pgtest.CutAtOnce), p.Count(pgtest.CarriedOut))
	if done < 25 || p.Count(pgtest.CarriedOut) < 3 {
		t.Error("there were too few faults or successes to tell anything")
	}
}

// TestOutcomeThatCannotBeLearnt: the server is out of reach after COMMIT.
func TestOutcomeThatCannotBeLearnt(t *testing.T) {
	w := newPostgresWorld(t)
	p := w.behind()
	c := w.open()
	mustCreate(t, c, executionsSpec(executions))
	c.lookupMax = 500 * time.Millisecond
	p.Plan(func(m pgtest.Message) pgtest.Fault {
		if !m.Commit() {
			return pgtest.None
		}
		p.Refuse(true)
		return pgtest.CutAnswer
	})
	_, err := c.Commit(t.Context(), []Commit{{Table: executions, Through: through(3)}})
	p.Plan(nil)
	p.Refuse(false)
	if !errors.Is(err, ErrPoisoned) {
		t.Fatalf("Commit = %v, want ErrPoisoned", err)
	}
	if _, err := c.Load(t.Context(), executions); !errors.Is(err, ErrPoisoned) {
		t.Errorf("Load = %v, want ErrPoisoned", err)
	}
	if tbl, err := w.open().Load(t.Context(), executions); err != nil || tbl.Through()[key0] != 3 {
		t.Errorf("opened again: %v, %v", tbl, err)
	}
}

// TestRestartOfTheServer: commits go on after connections were ended, and wait
// for a server that refuses connections for a while.
func TestRestartOfTheServer(t *testing.T) {
	w := newPostgresWorld(t)
	p := w.behind()
	c := w.open()
	mustCreate(t, c, executionsSpec(executions))
	for n := range 5 {
		w.exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`)
		p.Refuse(true)
		time.AfterFunc(300*time.Millisecond, func() { p.Refuse(false) })
		if _, err := c.PutDocument(t.Context(), counted(0, n+1)); err != nil {
			t.Fatal(err)
		}
	}
	doc, err := c.GetDocument(t.Context(), "count", "0")
	must(t, err)
	if doc.Version != 5 {
		t.Errorf("the document was written %d times, want 5", doc.Version)
	}
}

// TestStartWaits: a server that comes up a little later is waited for.
func TestStartWaits(t *testing.T) {
	w := newPostgresWorld(t)
	p := w.behind()
	p.Refuse(true)
	if _, err := Open(t.Context(), Options{Dir: w.dir, Postgres: w.postgres, Warehouse: w.store}); err == nil || !strings.Contains(err.Error(), "is PostgreSQL running") {
		t.Fatalf("Open = %v", err)
	}
	time.AfterFunc(300*time.Millisecond, func() { p.Refuse(false) })
	w.open(func(o *Options) { o.StartWait = time.Minute })
}

// TestFencingIsExact: once a new owner's Open has returned, nothing of the former
// owner is committed any more, not even what had begun before.
func TestFencingIsExact(t *testing.T) {
	ctx := t.Context()
	w := newWorld(t)
	former := w.open()
	for range 10 {
		stop := make(chan struct{})
		ended := make(chan error, 1)
		go func(c *Catalog) {
			for n := 0; ; n++ {
				if _, err := c.PutDocument(ctx, counted(0, n)); err != nil {
					ended <- err
					return
				}
				select {
				case <-stop:
					ended <- nil
					return
				default:
				}
			}
		}(former)
		time.Sleep(5 * time.Millisecond)
		owner := w.open()
		before, err := owner.GetDocument(ctx, "count", "0")
		must(t, err)
		time.Sleep(20 * time.Millisecond)
		after, err := owner.GetDocument(ctx, "count", "0")
		must(t, err)
		if before.Version != after.Version {
			t.Errorf("the former owner committed %d times after the new one had opened", after.Version-before.Version)
		}
		close(stop)
		if err := <-ended; !errors.Is(err, ErrFenced) {
			t.Fatalf("the former owner ends with %v, want ErrFenced", err)
		}
		former = owner
	}
}

// TestPausedHolder: a process that is paused in the middle of a transaction, which
// all others wait for, is ended by the server. Its transaction was not done, and
// when it comes back it is done once.
func TestPausedHolder(t *testing.T) {
	ctx := t.Context()
	w := newPostgresWorld(t)
	a, b := w.open(), w.beside().open()
	a.backend.(*postgres).idleMax = 200 * time.Millisecond
	paused, back, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	first := true
	a.hook.beforeCommit = func() error {
		if first {
			first = false
			close(paused)
			<-back
		}
		return nil
	}
	go func() {
		_, err := a.PutDocument(ctx, counted(0, 1))
		ended <- err
	}()
	<-paused
	if _, err := b.PutDocument(ctx, counted(1, 1)); err != nil {
		t.Errorf("beside a paused process: %v", err)
	}
	if _, err := b.GetDocument(ctx, "count", "0"); !errors.Is(err, ErrNotFound) {
		t.Errorf("the paused process's document: %v, want ErrNotFound", err)
	}
	close(back)
	if err := <-ended; err != nil {
		t.Errorf("the process that was paused: %v", err)
	}
	if doc, err := b.GetDocument(ctx, "count", "0"); err != nil || doc.Version != 1 {
		t.Errorf("its document was written %d times, %v", doc.Version, err)
	}
}

// TestNoSessionState: nothing of a transaction is left in its session, which a
// pooler may give to another client.
func TestNoSessionState(t *testing.T) {
	w := newPostgresWorld(t)
	c := w.open()
	mustCreate(t, c, executionsSpec(executions))
	must(t, c.CreateNamespace(t.Context(), "files", nil))
	must(t, c.ChangeExternals(t.Context(), []ExternalChange{{Table: Name{"files", "a"}, Define: symbolsTable(), Put: []hive.Partition{{Values: []string{"1"}}}}}))
	_, err := c.PutDocument(t.Context(), counted(0, 1))
	must(t, err)
	for name, db := range map[string]interface {
		querier
	}{"writer": c.writer, "reader": c.reader} {
		var prepared, locks, settings int
		must(t, db.QueryRowContext(t.Context(), `SELECT (SELECT count(*) FROM pg_prepared_statements), (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'),
			(SELECT count(*) FROM pg_settings WHERE source = 'session')`).Scan(&prepared, &locks, &settings))
		if prepared != 0 || locks != 0 || settings != 0 {
			t.Errorf("%s: %d prepared statements, %d advisory locks, %d settings are left", name, prepared, locks, settings)
		}
	}
}

// TestServerDefaults: what a database's defaults say about isolation changes nothing.
func TestServerDefaults(t *testing.T) {
	for _, level := range []string{"repeatable read", "serializable"} {
		t.Run(level, func(t *testing.T) {
			w := newPostgresWorld(t)
			w.exec(fmt.Sprintf(`ALTER DATABASE %s SET default_transaction_isolation = '%s'`, w.database, level))
			a, b := w.open(), w.beside().open()
			appendBeside(t, a, b, 10)
		})
	}
}

// TestDurabilityIsChecked: a server that would not keep commits is refused.
func TestDurabilityIsChecked(t *testing.T) {
	w := newPostgresWorld(t)
	c := w.open()
	w.exec(fmt.Sprintf(`ALTER DATABASE %s SET synchronous_commit = off`, w.database))
	refused := func(want string) {
		t.Helper()
		_, err := Open(t.Context(), Options{Dir: w.dir, Postgres: w.postgres, Warehouse: w.store})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Open = %v, want it refused for %s", err, want)
		}
	}
	refused("synchronous_commit=off")
	// A pooler may put the next transaction into a session like that.
	w.exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`)
	if _, err := c.PutDocument(t.Context(), counted(0, 1)); !errors.Is(err, errSynchronousCommit) {
		t.Errorf("a commit of such a session: %v", err)
	}
	w.exec(fmt.Sprintf(`ALTER DATABASE %s RESET synchronous_commit`, w.database))

	w.exec(`ALTER SYSTEM SET fsync = off`)
	w.exec(`SELECT pg_reload_conf(), pg_sleep(0.3)`)
	t.Cleanup(func() {
		w.exec(`ALTER SYSTEM RESET fsync`)
		w.exec(`SELECT pg_reload_conf(), pg_sleep(0.3)`)
	})
	refused("fsync=off")
}

// TestOpenSaysWhatToDo: an error of opening names the remedy, and no password.
func TestOpenSaysWhatToDo(t *testing.T) {
	w := newPostgresWorld(t)
	if err := w.open().Close(); err != nil {
		t.Fatal(err)
	}
	addr := pgtest.Start(t).Addr
	change := func(f func(u *url.URL)) string {
		u, err := url.Parse(w.postgres)
		must(t, err)
		f(u)
		return u.String()
	}
	other := emptyWorld(t, t.TempDir(), w.store)
	other.exec(`CREATE TABLE schema_version (installed_rank int)`)
	sqliteDir := t.TempDir()
	s, err := Open(t.Context(), Options{Dir: sqliteDir, Warehouse: w.store})
	must(t, err)
	must(t, s.Close())
	elsewhere := newFastWorld(t).store // file:///lake
	fresh := emptyWorld(t, t.TempDir(), w.store)
	c := w.open()
	mustCreate(t, c, executionsSpec(executions))
	w.exec(`CREATE ROLE nobody_much LOGIN PASSWORD 'weak'`)
	t.Cleanup(func() { w.exec(`DROP ROLE nobody_much`) })
	empty := emptyWorld(t, t.TempDir(), w.store)
	for name, test := range map[string]struct {
		o    Options
		want string
	}{
		"password":         {Options{Dir: t.TempDir(), Postgres: change(func(u *url.URL) { u.User = url.UserPassword(pgtest.User, "wrong-secret") })}, "PGPASSWORD"},
		"no database":      {Options{Dir: t.TempDir(), Postgres: pgtest.URL(addr, "nowhere")}, `CREATE DATABASE "nowhere"`},
		"nobody listens":   {Options{Dir: t.TempDir(), Postgres: pgtest.URL("127.0.0.1:1", "x")}, "is PostgreSQL running"},
		"no privilege":     {Options{Dir: t.TempDir(), Postgres: strings.Replace(change(func(u *url.URL) { u.User = url.UserPassword("nobody_much", "weak") }), w.database, empty.database, 1)}, "GRANT USAGE, CREATE"},
		"other's tables":   {Options{Dir: t.TempDir(), Postgres: other.postgres}, "another program"},
		"SQLite before":    {Options{Dir: sqliteDir, Postgres: w.postgres}, "are in SQLite"},
		"SQLite after":     {Options{Dir: w.dir}, "are in PostgreSQL"},
		"other catalog":    {Options{Dir: w.dir, Postgres: fresh.postgres}, "belongs to the catalog"},
		"other lake":       {Options{Dir: t.TempDir(), Postgres: w.postgres, Warehouse: elsewhere}, "share the lake"},
		"read-only, empty": {Options{Postgres: empty.postgres, ReadOnly: true}, "start the server on it once"},
		"no such schema":   {Options{Dir: t.TempDir(), Postgres: w.postgres + "&search_path=nowhere"}, "search_path"},
	} {
		if test.o.Warehouse == nil {
			test.o.Warehouse = w.store
		}
		c, err := Open(t.Context(), test.o)
		if err == nil {
			_ = c.Close()
			t.Errorf("%s: opened", name)
			continue
		}
		if !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want it to say %q", name, err, test.want)
		}
		for _, secret := range []string{pgtest.Password, url.PathEscape(pgtest.Password), url.QueryEscape(pgtest.Password), "wrong-secret"} {
			if strings.Contains(err.Error(), secret) {
				t.Errorf("%s: the error shows a password: %v", name, err)
			}
		}
	}
}

func TestURLs(t *testing.T) {
	for text, want := range map[string]string{
		"postgres://u:p@127.0.0.1/catalog":                                 "",
		"postgres://u:p@[::1]:5433/catalog":                                "",
		"postgresql://u@localhost/catalog":                                 "",
		"postgres://u:p@db.example/catalog?sslmode=verify-full":            "",
		"postgres://u:p@db.example/catalog?sslmode=require":                "",
		"postgres://u:p@db.example/catalog?sslmode=disable":                "",
		"postgres:///catalog?host=/var/run/postgresql":                     "",
		"postgres://u:p@db.example/catalog":                                "in the clear",
		"postgres://u:p@db.example/catalog?sslmode=prefer":                 "in the clear",
		"postgres://u:p@a,db.example/catalog?sslmode=allow":                "in the clear",
		"postgres://u:p@127.0.0.1":                                         "no database",
		"mysql://u:p@127.0.0.1/catalog":                                    "postgres://",
		"host=127.0.0.1 password=p dbname=catalog":                         "postgres://",
		"postgres://u:s3/cr3t@127.0.0.1/catalog":                           "%-escapes",
		"postgres://u:5432#s3cr3t@127.0.0.1/catalog":                       "%-escapes",
		"postgres://u:5432?s3cr3t@127.0.0.1/catalog":                       "%-escapes",
		"postgres://u:s3cr3t@127.0.0.1/catalog?connect_timeout=s3cr3t":     "invalid syntax",
		"postgres://u:p@db.example/catalog?sslmode=verify-full&sslcert=no": "",
	} {
		err := CheckURL(text)
		switch {
		case want == "" && err != nil && !strings.Contains(text, "sslcert"):
			t.Errorf("%s: %v", text, err)
		case want != "" && (err == nil || !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: %v, want it to say %q", text, err, want)
		case err != nil && strings.Contains(err.Error(), "s3cr3t"):
			t.Errorf("the error shows the password: %v", err)
		}
	}
}

func FuzzURL(f *testing.F) {
	f.Add("postgres://u:", "@127.0.0.1/catalog?sslmode=disable")
	f.Add("postgres://u:5432/", "@127.0.0.1:x/catalog")
	f.Add("postgres://u:?", "#@127.0.0.1:x/catalog?port=z")
	f.Fuzz(func(t *testing.T, before, after string) {
		const secret = "hunter2-correct-horse"
		if strings.Contains(before, secret) || strings.Contains(after, secret) {
			return
		}
		if err := CheckURL(before + secret + after); err != nil && strings.Contains(err.Error(), secret) {
			t.Fatalf("%q + secret + %q: %v", before, after, err)
		}
	})
}

func FuzzNumbered(f *testing.F) {
	f.Add(`SELECT ?, '?' FROM t WHERE a = ?`)
	f.Fuzz(func(t *testing.T, query string) {
		if strings.ContainsRune(query, '$') {
			return
		}
		// Without quotes, each ? is a parameter and nothing else changes.
		if !strings.ContainsRune(query, '\'') {
			out := numbered(query)
			for n := strings.Count(query, "?"); n > 0; n-- {
				out = strings.ReplaceAll(out, fmt.Sprintf("$%d", n), "?")
			}
			if out != query {
				t.Fatalf("%q becomes %q", query, numbered(query))
			}
		}
	})
}

// TestIdentityOfADirectory: a copy of a data directory is the same owner, and so
// fences the first; another directory is another owner.
func TestIdentityOfADirectory(t *testing.T) {
	ctx := t.Context()
	w := newPostgresWorld(t)
	a := w.open()
	mustCreate(t, a, executionsSpec(executions))
	if again := w.open(); again.Identity() != a.Identity() {
		t.Errorf("identity %+v, then %+v", a.Identity(), again.Identity())
	} else {
		a = again
	}
	other := w.beside()
	b := other.open()
	if b.Identity().Catalog != a.Identity().Catalog || b.Identity().Directory == a.Identity().Directory {
		t.Errorf("identities %+v and %+v", a.Identity(), b.Identity())
	}
	for _, c := range []*Catalog{a, b, a} {
		if _, err := c.PutDocument(ctx, counted(0, 1)); err != nil {
			t.Fatal(err)
		}
	}
	copied := &world{t: t, dir: t.TempDir(), postgres: w.postgres, database: w.database, store: w.store}
	identity, err := readBinding(w.dir)
	must(t, err)
	writeBinding(t, copied.dir, identity)
	copied.open()
	if _, err := a.PutDocument(ctx, counted(0, 1)); !errors.Is(err, ErrFenced) {
		t.Errorf("the first after its copy was opened: %v, want ErrFenced", err)
	}
	if _, err := b.PutDocument(ctx, counted(0, 1)); err != nil {
		t.Errorf("the other directory: %v", err)
	}
	// Openings of one directory do not push out another's epoch.
	for range ownersKept + 5 {
		must(t, copied.open().Close())
	}
	if _, err := b.PutDocument(ctx, counted(0, 1)); err != nil {
		t.Errorf("the other directory, much later: %v", err)
	}
	var owners int
	must(t, b.reader.QueryRow(`SELECT count(*) FROM catalog_owner`).Scan(&owners))
	if owners != ownersKept+1 {
		t.Errorf("%d owners are kept, want %d", owners, ownersKept+1)
	}
}

func writeBinding(t *testing.T, dir string, i Identity) {
	t.Helper()
	must(t, writeFile(filepath.Join(dir, bindingName), strings.Join([]string{bindingHead, i.Catalog, i.Directory, ""}, "\n")))
}

// TestLease: of two servers one has a piece of work, and the other takes it over
// when it is given up or forgotten.
func TestLease(t *testing.T) {
	ctx := t.Context()
	w := newWorld(t)
	a := w.open()
	lease := func(c *Catalog, d time.Duration) bool {
		t.Helper()
		ok, err := c.Lease(ctx, "work", d)
		must(t, err)
		return ok
	}
	for range 2 { // it keeps what it has
		if !lease(a, time.Minute) {
			t.Error("the only server does not get the work")
		}
	}
	if w.postgres == "" {
		return
	}
	other := w.beside()
	b := other.open()
	if lease(b, time.Minute) {
		t.Error("two servers have the work")
	}
	if ok, err := b.Lease(ctx, "other work", time.Minute); err != nil || !ok {
		t.Errorf("other work: %v, %v", ok, err)
	}
	other.later(time.Minute + time.Second)
	if !lease(b, time.Minute) {
		t.Error("nobody takes over what was forgotten")
	}
	if w.now.Store(other.now.Load()); lease(a, time.Minute) {
		t.Error("the former one goes on")
	}
	if lease(b, 0); !lease(a, time.Minute) {
		t.Error("nobody takes over what was given up")
	}
}

// TestBehindAPooler: a pooler gives each transaction another session, which then
// serves others, and ends sessions after a second.
func TestBehindAPooler(t *testing.T) {
	w := newPostgresWorld(t)
	w.postgres = pgtest.URL(pgtest.Start(t).StartPooler(t), w.database)
	a, b := w.open(), w.beside().open()
	appendBeside(t, a, b, 40)
	ctx := t.Context()
	must(t, a.CreateNamespace(ctx, "files", nil))
	var put []hive.Partition
	for n := range 1200 {
		put = append(put, hive.Partition{Values: []string{fmt.Sprint(n)}})
	}
	name := Name{"files", "symbols"}
	must(t, a.ChangeExternals(ctx, []ExternalChange{{Table: name, Define: symbolsTable(), Put: put}}))
	if err := b.ChangeExternals(ctx, []ExternalChange{{Table: name, Define: symbolsTable()}}); !errors.Is(err, ErrExists) {
		t.Errorf("a name that is taken: %v, want ErrExists", err)
	}
	n := 0
	must(t, b.ExternalPartitions(ctx, name, PartitionsPage{}, func(ExternalPartition) bool { n++; return true }))
	if n != len(put) {
		t.Errorf("%d partitions, want %d", n, len(put))
	}
}
