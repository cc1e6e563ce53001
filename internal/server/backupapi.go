package server

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"

	"github.com/tapehouse/tapehouse/internal/backup"
	"github.com/tapehouse/tapehouse/internal/console"
	"github.com/tapehouse/tapehouse/internal/fsys"
	"github.com/tapehouse/tapehouse/internal/lake"
)

// backups makes one backup at a time.
type backups struct {
	mu      sync.Mutex
	running bool
	at      backup.Progress
}

// begin reports whether no other backup is being made.
func (b *backups) begin() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.running {
		return false
	}
	b.running, b.at = true, backup.Progress{}
	return true
}

func (b *backups) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.running = false
}

func (b *backups) progress(p backup.Progress) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.at = p
}

// Backup implements console.Backend.
func (s closeBackend) Backup(ctx context.Context, q console.BackupRequest) (console.Backup, error) {
	if !s.backups.begin() {
		return console.Backup{}, console.Errorf(console.CodeConflict, "a backup is being made: wait for its end")
	}
	defer s.backups.end()
	if inside, err := filepath.Rel(s.cfg.Data, q.To); err == nil && !strings.HasPrefix(q.To, "s3://") && filepath.IsLocal(inside) {
		return console.Backup{}, console.Errorf(console.CodeInvalid, "%s lies in the data directory: a backup belongs on another disk", q.To)
	}
	to, shut, err := OpenBackup(ctx, s.cfg, q.To)
	if err != nil {
		return console.Backup{}, console.Errorf(console.CodeInvalid, "%v", err)
	}
	defer shut()
	r, err := backup.Take(ctx, backup.Source{Data: s.cfg.Data, Program: s.version, Catalog: s.catalog, Log: s.log, Lake: s.lake, LocalLake: s.cfg.Lake.URL == "",
		Staging: s.dir("staging"), Hold: s.maintainer.Hold, Logger: s.logger}, to, backup.Options{WithLake: q.WithLake, WithoutCredentials: q.WithoutCredentials, Progress: s.backups.progress})
	if err != nil {
		s.logger.Error("backup failed", "to", q.To, "error", err)
		return console.Backup{}, err
	}
	s.logger.Info("backup made", "to", q.To, "id", r.ID, "files", r.Files, "bytes", r.Bytes, "copied", r.Copied, "copied_bytes", r.CopiedBytes, "took", r.Took)
	return console.Backup{To: q.To, ID: r.ID, TakenAt: r.TakenAt, Files: r.Files, Bytes: r.Bytes, Copied: r.Copied, CopiedBytes: r.CopiedBytes,
		Elsewhere: r.Elsewhere, Seconds: r.Took.Seconds()}, nil
}

// BackupStatus implements console.Backend.
func (s closeBackend) BackupStatus(context.Context) (console.BackupStatus, error) {
	s.backups.mu.Lock()
	defer s.backups.mu.Unlock()
	p := s.backups.at
	return console.BackupStatus{Running: s.backups.running, Files: p.Files, FilesAll: p.FilesAll, Bytes: p.Bytes}, nil
}

// OpenBackup opens where backups lie: an absolute path, or s3://bucket/prefix with
// the credentials and the endpoint of the configuration's lake. shut ends it.
func OpenBackup(ctx context.Context, cfg Config, where string) (_ lake.Store, shut func(), err error) {
	if !strings.HasPrefix(where, "s3://") {
		if !filepath.IsAbs(where) {
			return nil, nil, fmt.Errorf("%q: want an absolute path, or s3://bucket/prefix", where)
		}
		local, err := lake.OpenLocal(fsys.OS, where)
		return local, func() {}, err
	}
	bucket, prefix, err := lake.ParseS3URL(where)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, lakeStartWait)
	defer cancel()
	store, err := lake.OpenS3(ctx, (&Server{cfg: cfg}).s3Options(bucket, prefix))
	if err != nil {
		return nil, nil, err
	}
	if err := store.Check(ctx); err != nil {
		store.Shut()
		return nil, nil, err
	}
	return store, store.Shut, nil
}
