package auth

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapehouse/tapehouse/internal/fsys"
)

const (
	// PollInterval is how often a Store looks whether the file was changed: the
	// bound on how long a revoked key still works.
	PollInterval = time.Second
	// usageInterval is how often at most the last uses are written down.
	usageInterval = time.Minute
	// UsageFile is the name of the file with the last uses.
	UsageFile = "credentials-used.json"

	usageVersion = 1
)

// usage is UsageFile: when each secret was used last.
type usage struct {
	Version int                  `json:"version"`
	Keys    map[string]time.Time `json:"aws"` // by access key id
	Users   map[string]time.Time `json:"sql"` // by name
}

// readUsage returns an empty usage if there is no file yet.
func readUsage(files fsys.FS, dir string) (usage, error) {
	name := filepath.Join(dir, UsageFile)
	data, err := fsys.ReadFile(files, name)
	if errors.Is(err, fs.ErrNotExist) {
		return usage{}, nil
	}
	if err != nil {
		return usage{}, fmt.Errorf("read the last uses of credentials: %w", err)
	}
	var u usage
	if err := json.Unmarshal(data, &u); err != nil || u.Version != usageVersion {
		return usage{}, fmt.Errorf("%s is not of version %d of its format: remove it, and the last uses are noted anew", name, usageVersion)
	}
	return u, nil
}

// StoreOptions are what a Store needs beside its directory.
type StoreOptions struct {
	Logger     *slog.Logger          // nil discards
	Registerer prometheus.Registerer // nil registers nothing
	// Poll and WriteUsage are PollInterval and a minute if they are 0.
	Poll, WriteUsage time.Duration
}

// Store serves the credentials of a data directory to a running server, and
// takes a changed file over without a restart: within Poll, and at once where
// a key or a user is asked for that it does not know, so that what was just
// created works. A file that cannot be read, or not understood, is logged and
// leaves in force what was before.
//
// It notes when each secret was last used, in memory at every use and in
// UsageFile at most once in WriteUsage and when it is closed; a crash loses at
// most that. It is safe for concurrent use.
type Store struct {
	files      fsys.FS
	dir        string
	logger     *slog.Logger
	writeUsage time.Duration
	metrics    *storeMetrics
	current    atomic.Pointer[Credentials]

	mu      sync.Mutex // guards what follows
	seen    fs.FileInfo
	failure string // the last failure to read, so that it is logged once
	changed func(*Credentials)
	keys    map[string]*atomic.Int64
	users   map[string]*atomic.Int64
	written map[string]int64 // what stands in UsageFile, by kind and id

	stop chan struct{}
	done sync.WaitGroup
}

// OpenStore loads the credentials under dir, and makes them if there are none.
// The caller owns dir and closes the store.
func OpenStore(files fsys.FS, dir string, o StoreOptions) (*Store, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Poll == 0 {
		o.Poll = PollInterval
	}
	if o.WriteUsage == 0 {
		o.WriteUsage = usageInterval
	}
	s := &Store{files: files, dir: dir, logger: o.Logger, writeUsage: o.WriteUsage, stop: make(chan struct{}),
		keys: map[string]*atomic.Int64{}, users: map[string]*atomic.Int64{}, written: map[string]int64{}}
	c, err := LoadOrCreate(files, dir)
	if err != nil {
		return nil, err
	}
	u, err := readUsage(files, dir)
	if err != nil {
		s.logger.Warn("last uses of credentials are noted anew", "error", err)
	}
	for id, at := range u.Keys {
		s.keys[id] = clock(at)
		s.written["aws/"+id] = at.Unix()
	}
	for name, at := range u.Users {
		s.users[name] = clock(at)
		s.written["sql/"+name] = at.Unix()
	}
	if s.metrics, err = newStoreMetrics(o.Registerer, s); err != nil {
		return nil, fmt.Errorf("register credentials metrics: %w", err)
	}
	s.seen, _ = files.Stat(filepath.Join(dir, CredentialsFile)) // nil reads it again at the first poll
	s.install(c)
	s.done.Go(func() { s.watch(o.Poll) })
	return s, nil
}

func clock(at time.Time) *atomic.Int64 {
	c := &atomic.Int64{}
	c.Store(at.Unix())
	return c
}

// install puts credentials in force. REQUIRES: s.mu, or nobody else has s yet.
func (s *Store) install(c *Credentials) {
	keys, users := map[string]*atomic.Int64{}, map[string]*atomic.Int64{}
	for i := range c.Keys {
		k := &c.Keys[i]
		if k.used = s.keys[k.ID]; k.used == nil {
			k.used = &atomic.Int64{}
		}
		keys[k.ID] = k.used
	}
	for _, u := range c.Users {
		if users[u.Name] = s.users[u.Name]; users[u.Name] == nil {
			users[u.Name] = &atomic.Int64{}
		}
	}
	s.keys, s.users = keys, users // what was revoked is forgotten
	s.current.Store(c)
}

// Credentials returns what is in force. It is immutable: ask again rather than
// keep it.
func (s *Store) Credentials() *Credentials { return s.current.Load() }

// AccessKey implements Keys.
func (s *Store) AccessKey(id string) (AccessKey, bool) {
	if k, ok := s.current.Load().AccessKey(id); ok {
		return k, true
	}
	s.Refresh()
	return s.current.Load().AccessKey(id)
}

// UsedBy notes that the SQL user has proved who it is.
func (s *Store) UsedBy(user string) {
	s.mu.Lock()
	used := s.users[user]
	s.mu.Unlock()
	touch(used, time.Now())
}

// OnChange has fn called with what a changed file put in force, after it is. One
// fn at a time; it must not call the store but for Credentials.
func (s *Store) OnChange(fn func(*Credentials)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changed = fn
}

// Refresh takes over a changed file at once. It costs one stat where nothing
// has changed.
func (s *Store) Refresh() {
	s.mu.Lock()
	defer s.mu.Unlock()
	info, err := s.files.Stat(filepath.Join(s.dir, CredentialsFile))
	if err == nil && same(info, s.seen) {
		return
	}
	s.seen = info // nil if it is gone: what comes back is read
	var c *Credentials
	if err == nil {
		c, err = Load(s.files, s.dir)
	}
	if err != nil {
		s.metrics.failed()
		if s.failure != err.Error() {
			s.failure = err.Error()
			s.logger.Error("credentials not taken over; the former ones stay in force", "error", err)
		}
		return
	}
	s.failure = ""
	s.install(c)
	s.metrics.loaded()
	s.logger.Info("credentials taken over", "access_keys", len(c.Keys), "sql_users", len(c.Users))
	if s.changed != nil {
		s.changed(c)
	}
}

// same reports whether a and b describe one file that was not written between.
func same(a, b fs.FileInfo) bool {
	return b != nil && os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size() && a.Mode() == b.Mode()
}

// watch polls the file and writes the last uses until Close.
func (s *Store) watch(poll time.Duration) {
	look, write := time.NewTicker(poll), time.NewTicker(s.writeUsage)
	defer look.Stop()
	defer write.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-look.C:
			s.Refresh()
		case <-write.C:
			if err := s.saveUsage(); err != nil {
				s.logger.Warn("last uses of credentials not written", "error", err)
			}
		}
	}
}

// saveUsage writes UsageFile if anything was used since the last time.
func (s *Store) saveUsage() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := usage{Version: usageVersion, Keys: map[string]time.Time{}, Users: map[string]time.Time{}}
	now := map[string]int64{}
	changed := false
	collect := func(kind string, from map[string]*atomic.Int64, to map[string]time.Time) {
		for id, at := range from {
			if n := at.Load(); n > 0 {
				to[id] = time.Unix(n, 0).UTC()
				now[kind+id] = n
				changed = changed || s.written[kind+id] != n
			}
		}
	}
	collect("aws/", s.keys, u.Keys)
	collect("sql/", s.users, u.Users)
	if !changed {
		return nil
	}
	data, err := json.MarshalIndent(u, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the last uses of credentials: %w", err)
	}
	if err := fsys.WriteFileAtomic(s.files, filepath.Join(s.dir, UsageFile), append(data, '\n'), 0o600); err != nil {
		return err
	}
	s.written = now
	return nil
}

// Close stops watching and writes the last uses.
func (s *Store) Close() error {
	close(s.stop)
	s.done.Wait()
	return s.saveUsage()
}
