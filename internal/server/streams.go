package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/tapehouse/tapehouse/internal/delivery"
	"github.com/tapehouse/tapehouse/internal/firehose"
	"github.com/tapehouse/tapehouse/internal/record"
)

// deleteWait is how long a delete waits for what was acknowledged to be
// delivered: less than the 60 s after which AWS's clients give up.
const deleteWait = 45 * time.Second

// Update implements firehose.Streams.
func (s streams) Update(ctx context.Context, name record.StreamName, version int64, c firehose.StreamConfig) (firehose.StreamInfo, error) {
	c.Name = name
	cfg, err := s.m.Update(ctx, name, version, func(cfg delivery.Config) (delivery.Config, error) {
		info, err := streamInfo(cfg)
		if err != nil {
			return cfg, err
		}
		c.Tags = info.Config.Tags
		next, err := s.d.config(ctx, c)
		if err != nil {
			return cfg, err
		}
		return next, changeable(&cfg, &next)
	})
	if err != nil {
		return firehose.StreamInfo{}, streamError(err)
	}
	return streamInfo(cfg)
}

// changeable refuses what cannot change while a stream runs: what it feeds, and
// what its records go through.
func changeable(old, next *delivery.Config) error {
	refuse := func(format string, args ...any) error {
		return &firehose.Refusal{Kind: firehose.ErrInvalid, Message: fmt.Sprintf(format, args...)}
	}
	switch {
	case (old.Objects == nil) != (next.Objects == nil):
		return refuse("The destination's type cannot be changed: create another delivery stream.")
	case old.Objects == nil && (old.Namespace != next.Namespace || old.Table != next.Table || len(old.Tables) > 0 && !old.CreateTables && !slices.Equal(old.Tables, next.Tables)):
		return refuse("The stream feeds the table %s.%s, which cannot be changed: create another stream for %s.%s.", old.Namespace, old.Table, next.Namespace, next.Table)
	case old.Objects == nil && !maps.EqualFunc(old.Keys, next.Keys, slices.Equal):
		return refuse("UniqueKeys cannot be changed: what the stream holds was folded by them. Create another delivery stream, once this one is deleted.")
	case !bytes.Equal(old.Processing, next.Processing):
		return refuse("ProcessingConfiguration cannot be changed: create another delivery stream, and let producers put there.")
	case old.Evolve != next.Evolve || old.CreateTables != next.CreateTables:
		return refuse("SchemaEvolutionConfiguration and TableCreationConfiguration cannot be changed: create another delivery stream.")
	case (old.Backup == nil) != (next.Backup == nil):
		return refuse("S3BackupMode cannot be changed: create another delivery stream.")
	}
	return nil
}

// ChangeTags implements firehose.Streams.
func (s streams) ChangeTags(ctx context.Context, name record.StreamName, change func([]firehose.Tag) ([]firehose.Tag, error)) error {
	_, err := s.m.Update(ctx, name, 0, func(cfg delivery.Config) (delivery.Config, error) {
		info, err := streamInfo(cfg)
		if err != nil {
			return cfg, err
		}
		if info.Config.Tags, err = change(info.Config.Tags); err != nil {
			return cfg, err
		}
		cfg.API, err = json.Marshal(info.Config)
		return cfg, err
	})
	return streamError(err)
}

// Delete implements firehose.Streams. The request's end does not end it: its
// client may have given up waiting, and asks again.
func (s streams) Delete(ctx context.Context, name record.StreamName, _ bool) error {
	if _, err := s.m.Stream(name); err != nil {
		return streamError(err)
	}
	if !s.deletions.begin(name) {
		return nil // it is being deleted
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.deleteWait)
	defer cancel()
	err := s.m.Delete(ctx, name)
	s.deletions.end(name, err)
	if errors.Is(err, context.DeadlineExceeded) {
		return &firehose.Refusal{Kind: firehose.ErrUnavailable, Message: fmt.Sprintf(
			"Firehose %s is not deleted: what it has acknowledged could not be delivered within %s. Mend its destination and delete it again.", name, s.deleteWait)}
	}
	return streamError(err)
}

// deletions are the deletes that are under way, and those that failed since
// the start of the server.
type deletions struct {
	mu      sync.Mutex
	streams map[record.StreamName]error // nil while under way
}

// begin reports whether no delete of the stream is under way.
func (d *deletions) begin(name record.StreamName) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err, ok := d.streams[name]; ok && err == nil {
		return false
	}
	if d.streams == nil {
		d.streams = map[record.StreamName]error{}
	}
	d.streams[name] = nil
	return true
}

func (d *deletions) end(name record.StreamName, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil || errors.Is(err, delivery.ErrNotFound) {
		delete(d.streams, name)
		return
	}
	d.streams[name] = err
}

// status is the place in its life of a stream that is there.
func (d *deletions) status(name record.StreamName) (firehose.Status, *firehose.Failure) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch err, ok := d.streams[name]; {
	case !ok:
		return firehose.StatusActive, nil
	case err == nil:
		return firehose.StatusDeleting, nil
	default:
		details := err.Error()
		return firehose.StatusDeletingFailed, &firehose.Failure{Type: "UNKNOWN_ERROR", Details: details[:min(len(details), 1024)]} // what the model takes
	}
}
