// Package server puts Tapehouse together: it reads the configuration, opens
// the layers from the bottom up, gives delivery its destinations and the engine
// its tables and tail, opens the three listeners, and takes everything down in
// the reverse order: front doors, delivery (with a flush), engine, catalog, log.
//
// A data directory has one server: the lock file says whose.
//
//	LOCK  VERSION  LAKE  credentials.json  server.json   log/  ledger/  tail/  catalog/  lake/  cache/  external/  staging/  spill/  statements/
package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/tapehouse/tapehouse/internal/auth"
	"github.com/tapehouse/tapehouse/internal/awsapi"
	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/columnar"
	"github.com/tapehouse/tapehouse/internal/console"
	"github.com/tapehouse/tapehouse/internal/crawler"
	"github.com/tapehouse/tapehouse/internal/delivery"
	"github.com/tapehouse/tapehouse/internal/engine"
	"github.com/tapehouse/tapehouse/internal/external"
	"github.com/tapehouse/tapehouse/internal/firehose"
	"github.com/tapehouse/tapehouse/internal/fsys"
	"github.com/tapehouse/tapehouse/internal/lake"
	"github.com/tapehouse/tapehouse/internal/ledger"
	"github.com/tapehouse/tapehouse/internal/maintain"
	"github.com/tapehouse/tapehouse/internal/market"
	"github.com/tapehouse/tapehouse/internal/pgwire"
	"github.com/tapehouse/tapehouse/internal/wal"
	"github.com/tapehouse/tapehouse/internal/warehouse"
	"github.com/tapehouse/tapehouse/packs"
)

const (
	// dataVersion is the version of the data directory's layout.
	dataVersion = 1
	// adminUser owns what the server itself creates.
	adminUser = "tapehouse"
	// accountID stands in ARNs.
	accountID = "000000000000"
	// stopWait bounds how long a stop waits for clients and for the last flush.
	stopWait = 30 * time.Second
)

// Addresses are where a server listens, as host:port, and its process.
type Addresses struct {
	AWS, SQL, HTTP string
	PID            int
}

// Options are what the configuration file does not say.
type Options struct {
	Version string // of the program
	Logger  *slog.Logger
}

// Server is a running Tapehouse.
type Server struct {
	cfg     Config
	version string
	logger  *slog.Logger
	metrics *prometheus.Registry

	lock         io.Closer
	credentials  *auth.Store
	pack         *packs.Pack
	log          *wal.Log
	lake         lake.Store
	s3           *lake.S3    // nil: the lake is local
	cache        *lake.Cache // of a lake on S3; nil: the lake is local
	catalog      *catalog.Catalog
	ledger       *ledger.Ledger
	destinations *destinations
	delivery     *delivery.Manager
	engine       *engine.Engine
	external     *external.Reader
	views        warehouse.Views
	viewsNeed    func(context.Context) (map[catalog.Name][]int64, error) // snapshots, as maintain.Options.Needs
	warehouse    *warehouse.Warehouse
	maintainer   *maintain.Maintainer
	market       *market.Market
	backups      backups
	crawler      *crawler.Manager
	startedAt    time.Time

	certificateEnds time.Time // zero without TLS
	certificateHash string    // "" without TLS

	sql        *pgwire.Server
	addresses  Addresses
	ready      atomic.Bool
	serving    sync.WaitGroup
	failed     chan error
	closeOnce  sync.Once
	closeErr   error
	closeSteps []func(context.Context) error // last opened first
}

// Open starts a server on cfg's data directory. When it returns the listeners
// answer and the server is ready.
func Open(ctx context.Context, cfg Config, o Options) (_ *Server, err error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	if cfg.Data, err = filepath.Abs(cfg.Data); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, version: o.Version, logger: o.Logger, metrics: prometheus.NewRegistry(), failed: make(chan error, 3)}
	s.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	defer func() {
		if err != nil {
			stop, cancel := context.WithTimeout(context.Background(), stopWait)
			defer cancel()
			err = errors.Join(err, s.takeDown(stop))
		}
	}()
	for _, step := range []func(context.Context) error{s.openData, s.openStorage, s.openEngine, s.openDelivery, s.openWarehouse, s.openClose, s.openDoors} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	s.startedAt = time.Now().UTC()
	s.ready.Store(true)
	return s, nil
}

// Addresses returns where the server listens.
func (s *Server) Addresses() Addresses { return s.addresses }

// Credentials returns the directory's credentials as they are in force.
func (s *Server) Credentials() *auth.Credentials { return s.credentials.Credentials() }

// onClose adds a step to be taken when the server stops, before those added
// earlier.
func (s *Server) onClose(step func(context.Context) error) {
	s.closeSteps = append(s.closeSteps, step)
}

func (s *Server) dir(name string) string { return filepath.Join(s.cfg.Data, name) }

// openData takes the directory: lock, version, credentials, pack.
func (s *Server) openData(context.Context) error {
	disk := fsys.OS
	if err := disk.MkdirAll(s.cfg.Data, 0o700); err != nil {
		return fmt.Errorf("make data directory: %w", err)
	}
	lock, err := disk.Lock(s.dir("LOCK"))
	if err != nil {
		return fmt.Errorf("data directory %s is in use: %w", s.cfg.Data, err)
	}
	s.lock = lock
	s.onClose(func(context.Context) error { return lock.Close() })
	if err := checkDataVersion(disk, s.dir("VERSION")); err != nil {
		return err
	}
	for _, d := range []string{"staging", "spill", "lake", "log", "catalog", "statements"} {
		if err := disk.MkdirAll(s.dir(d), 0o700); err != nil {
			return fmt.Errorf("make %s: %w", d, err)
		}
	}
	for _, d := range []string{"staging", "spill"} { // what a former process left
		if err := emptyDir(s.dir(d)); err != nil {
			return fmt.Errorf("clear %s: %w", d, err)
		}
	}
	if s.credentials, err = auth.OpenStore(disk, s.cfg.Data, auth.StoreOptions{Logger: s.logger, Registerer: s.metrics}); err != nil {
		return err
	}
	s.onClose(func(context.Context) error { return s.credentials.Close() })
	s.pack, err = loadPack(s.cfg.Pack)
	return err
}

func emptyDir(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// checkDataVersion refuses a directory of a newer program.
func checkDataVersion(disk fsys.FS, name string) error {
	b, err := fsys.ReadFile(disk, name)
	if errors.Is(err, fs.ErrNotExist) {
		return fsys.WriteFileAtomic(disk, name, fmt.Appendf(nil, "tapehouse data %d\n", dataVersion), 0o600)
	}
	if err != nil {
		return fmt.Errorf("read data version: %w", err)
	}
	text, ok := strings.CutPrefix(strings.TrimSpace(string(b)), "tapehouse data ")
	v, err := strconv.Atoi(text)
	if !ok || err != nil || v < 1 {
		return fmt.Errorf("%s holds %q: this is not a Tapehouse data directory; choose another with --data", name, b)
	}
	if v > dataVersion {
		return fmt.Errorf("the data directory has version %d, this program knows up to %d: run the newer program", v, dataVersion)
	}
	return nil
}

// openStorage opens log, lake and catalog.
func (s *Server) openStorage(ctx context.Context) error {
	// Before anything is noted about the lake.
	if err := catalog.CheckDirectory(s.dir("catalog"), s.cfg.Catalog); err != nil {
		return err
	}
	if err := s.openLake(ctx); err != nil {
		return err
	}
	var err error
	// The log's lock comes before the catalog, whose opening fences whoever has
	// it: no attempt to start may do that to a server that is running.
	s.log, err = wal.Open(ctx, fsys.OS, s.dir("log"), wal.Options{SegmentBytes: int64(s.cfg.Log.SegmentBytes),
		Retention: time.Duration(s.cfg.Log.Retention), RetentionBytes: int64(s.cfg.Log.RetentionBytes), Logger: s.logger, Registerer: s.metrics})
	if err != nil {
		return err
	}
	s.onClose(func(context.Context) error { return s.log.Close() })
	host, _ := os.Hostname()
	s.catalog, err = catalog.Open(ctx, catalog.Options{Dir: s.dir("catalog"), Postgres: s.cfg.Catalog, StartWait: lakeStartWait, Warehouse: s.lake, Owner: fmt.Sprintf("%s/%d", host, os.Getpid()),
		Logger: s.logger, Registerer: s.metrics})
	if err != nil {
		return err
	}
	s.onClose(func(context.Context) error { return s.catalog.Close() })
	if err := s.claimLake(ctx); err != nil {
		return err
	}
	s.ledger, err = ledger.Open(fsys.OS, delivery.LedgerCheckpoint(s.cfg.Data), ledger.Options{WindowRecords: s.cfg.Ledger.WindowRecords})
	return err
}

// openDelivery recovers the streams.
func (s *Server) openDelivery(ctx context.Context) error {
	d := s.cfg.Delivery
	var err error
	if s.destinations, err = newDestinations(s); err != nil {
		return err
	}
	s.onClose(func(context.Context) error { s.destinations.close(); return nil })
	s.delivery, err = delivery.Open(ctx, delivery.Options{
		FS: fsys.OS, Dir: s.cfg.Data, Log: s.log, Ledger: s.ledger, Documents: documents{s.catalog, s.own}, Errors: s.lake,
		Destination: s.destinations.table, Objects: s.destinations.objects, Processor: s.destinations.processor, CreateTable: s.destinations.createTable, Bucket: s.destinations.bucket,
		Calendar: columnar.CalendarOf(s.pack.Calendar), Logger: s.logger, Registerer: s.metrics,
		TailInterval: time.Duration(d.TailInterval), CheckpointInterval: time.Duration(d.CheckpointInterval),
		Quota: d.quota, QueueRows: d.QueueRows, LagRows: d.LagRows, PutWait: time.Duration(d.PutWait),
	})
	if err != nil {
		return fmt.Errorf("open delivery: %w", err)
	}
	s.onClose(s.delivery.Close)
	return nil
}

// openEngine starts DuckDB.
func (s *Server) openEngine(ctx context.Context) error {
	threads := s.cfg.Engine.Threads
	if threads == 0 {
		threads = runtime.NumCPU()
	}
	var err error
	s.engine, err = engine.Open(ctx, engine.Options{
		Tables: tables{s.catalog}, Tail: tails{s}, Files: s.files(), TempDir: s.dir("spill"), TempSizeMaxBytes: int64(s.cfg.Engine.Spill),
		MemoryLimitBytes: int64(s.cfg.Engine.Memory), Threads: threads,
		AllowedDirs: []string{s.dir("lake"), s.dir("cache"), s.dir("tail"), s.dir("staging"), s.dir("external")},
		Logger:      s.logger, Registerer: s.metrics,
	})
	if err != nil {
		return err
	}
	s.onClose(func(context.Context) error { return s.engine.Close() })
	return nil
}

// openWarehouse opens the views and SQL over them, and installs the pack.
func (s *Server) openWarehouse(ctx context.Context) error {
	// Of servers that share a catalog one installs at a time: the others then find
	// its tables, their rows and the views.
	if err := s.leaseInstallation(ctx); err != nil {
		return err
	}
	defer func() { _, _ = s.catalog.Lease(context.WithoutCancel(ctx), installation, 0) }()
	if err := s.openViews(ctx); err != nil {
		return err
	}
	if err := s.openExternal(ctx); err != nil {
		return err
	}
	s.warehouse = warehouse.New(warehouse.Options{Engine: s.engine, Catalog: s.catalog, Store: s.lake, Staging: s.dir("staging"),
		Views: s.views, External: s.external, Unfed: s.unfed, Logger: s.logger, Version: s.version, SearchPath: []string{s.pack.Namespace, "public"},
		StatementTimeout: time.Duration(s.cfg.SQL.StatementTimeout)})
	if err := s.installPack(ctx); err != nil {
		return err
	}
	return s.openCrawler(ctx)
}

// unfed lets a table be dropped when no stream feeds it.
func (s *Server) unfed(table catalog.Name, drop func() error) (string, error) {
	stream, err := s.delivery.Unfed(table, drop)
	return string(stream), err
}

// openDoors opens the listeners.
func (s *Server) openDoors(ctx context.Context) error {
	var tlsConfig *tls.Config
	if s.cfg.TLS.Cert != "" {
		pair, err := tls.LoadX509KeyPair(s.cfg.TLS.Cert, s.cfg.TLS.Key)
		if err != nil {
			return fmt.Errorf("tls: %w", err)
		}
		s.certificateEnds, s.certificateHash = endOf(pair), console.CertificateHash(pair.Certificate[0])
		tlsConfig = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	}
	if err := s.registerMetrics(); err != nil {
		return fmt.Errorf("register the server's metrics: %w", err)
	}
	listen := func(name, addr string) (net.Listener, error) {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return nil, fmt.Errorf("listen.%s: %w; choose another address or port 0", name, err)
		}
		s.onClose(func(context.Context) error { _ = l.Close(); return nil })
		return l, nil
	}
	awsListener, err := listen("aws", s.cfg.Listen.AWS)
	if err != nil {
		return err
	}
	sqlListener, err := listen("sql", s.cfg.Listen.SQL)
	if err != nil {
		return err
	}
	httpListener, err := listen("http", s.cfg.Listen.HTTP)
	if err != nil {
		return err
	}
	s.addresses = Addresses{AWS: awsListener.Addr().String(), SQL: sqlListener.Addr().String(), HTTP: httpListener.Addr().String(), PID: os.Getpid()}
	if err := s.openAWS(awsListener, tlsConfig); err != nil {
		return err
	}
	if err := s.openSQL(sqlListener, tlsConfig); err != nil {
		return err
	}
	if err := s.openHTTP(httpListener, tlsConfig); err != nil {
		return err
	}
	return s.publish()
}

func (s *Server) openAWS(l net.Listener, tlsConfig *tls.Config) error {
	verifier := auth.NewVerifier(s.credentials, nil)
	mux, err := awsapi.NewMux(awsapi.Options{Verifier: verifier, Logger: s.logger, Registerer: s.metrics,
		Region: s.cfg.Region, AccountID: accountID, InFlightBytesMax: int64(s.cfg.Delivery.InflightBytes)})
	if err != nil {
		return err
	}
	fh, err := firehose.New(firehose.Options{Streams: newStreams(s.delivery, s.destinations), Region: s.cfg.Region, AccountID: accountID, StreamsMax: s.cfg.Delivery.StreamsMax, Logger: s.logger, Registerer: s.metrics})
	if err != nil {
		return err
	}
	if err := mux.Register(fh.Service()); err != nil {
		return err
	}
	if err := mux.Register(s.glue().Service()); err != nil {
		return err
	}
	iceberg, err := s.openIceberg(verifier)
	if err != nil {
		return err
	}
	s.serveHTTP("aws", l, beside(mux, iceberg), tlsConfig)
	return nil
}

// serveHTTP serves handler on l until the server closes.
func (s *Server) serveHTTP(name string, l net.Listener, handler http.Handler, tlsConfig *tls.Config) {
	tlsConfig = tlsConfig.Clone() // ServeTLS adds its protocols to it
	srv := &http.Server{Handler: handler, TLSConfig: tlsConfig, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ConnContext: awsapi.ConnContext, ErrorLog: slog.NewLogLogger(s.logger.Handler(), slog.LevelDebug)}
	s.serving.Go(func() {
		var err error
		if tlsConfig != nil {
			err = srv.ServeTLS(l, "", "")
		} else {
			err = srv.Serve(l)
		}
		if !errors.Is(err, http.ErrServerClosed) {
			s.failed <- fmt.Errorf("%s listener: %w", name, err)
		}
	})
	s.onClose(func(ctx context.Context) error {
		if err := srv.Shutdown(ctx); err != nil {
			return errors.Join(fmt.Errorf("stop the %s listener: %w", name, err), srv.Close())
		}
		return nil
	})
}

func (s *Server) openSQL(l net.Listener, tlsConfig *tls.Config) error {
	users, err := newSQLUsers(s.credentials)
	if err != nil {
		return err
	}
	loop, err := loopback(s.cfg.Listen.SQL)
	if err != nil {
		return err
	}
	s.sql, err = pgwire.NewServer(pgwire.Options{Backend: backend{s.warehouse, users}, Credentials: users, Logger: s.logger, Registerer: s.metrics,
		TLS: tlsConfig, RequireTLS: !loop, MaxConnections: s.cfg.SQL.Connections})
	if err != nil {
		return err
	}
	sql := s.sql
	s.credentials.OnChange(func(c *auth.Credentials) {
		if n := sql.Evict(func(user string) bool { return mayConnect(c, user) }); n > 0 {
			s.logger.Info("SQL sessions of revoked users ended", "sessions", n)
		}
	})
	s.serving.Go(func() {
		if err := s.sql.Serve(l); err != nil && !errors.Is(err, net.ErrClosed) {
			s.failed <- fmt.Errorf("sql listener: %w", err)
		}
	})
	s.onClose(func(ctx context.Context) error { return s.sql.Shutdown(ctx) })
	return nil
}

// Wait returns when a listener fails or ctx ends.
func (s *Server) Wait(ctx context.Context) error {
	select {
	case err := <-s.failed:
		return err
	case <-ctx.Done():
		return nil
	}
}

// Close stops the server: no new work, then the last flush, then everything
// below it.
func (s *Server) Close(ctx context.Context) error {
	s.closeOnce.Do(func() {
		ctx, cancel := context.WithTimeout(ctx, stopWait)
		defer cancel()
		s.closeErr = s.takeDown(ctx)
	})
	return s.closeErr
}

func (s *Server) takeDown(ctx context.Context) error {
	if s.cache != nil { // else a flush could wait for S3 for minutes; the log keeps its records
		defer context.AfterFunc(ctx, s.cache.Shut)()
	}
	var errs []error
	for i := len(s.closeSteps) - 1; i >= 0; i-- {
		if err := s.closeSteps[i](ctx); err != nil {
			errs = append(errs, err)
		}
	}
	s.closeSteps = nil
	s.serving.Wait()
	return errors.Join(errs...)
}
