package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/tapehouse/tapehouse/internal/catalog"
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
		if sameProcessing(cfg.Processing, next.Processing) {
			next.Processing = cfg.Processing
		}
		if err := s.changeable(&cfg, &next); err != nil || next.Objects == nil {
			return next, err
		}
		return next, next.Objects.Succeed(cfg.Objects)
	})
	if err != nil {
		return firehose.StreamInfo{}, streamError(err)
	}
	return streamInfo(cfg)
}

// sameProcessing reports whether two definitions do the same. Their bytes may
// differ: Terraform sends the parameters with every update, in another order
// each time, and the defaults among them.
func sameProcessing(a, b json.RawMessage) bool {
	if len(a) == 0 || len(b) == 0 {
		return len(a) == len(b)
	}
	var x, y processing
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return false
	}
	xs, err := x.Processors.Steps()
	if err != nil {
		return false
	}
	ys, err := y.Processors.Steps()
	return err == nil && x.Routes == y.Routes && reflect.DeepEqual(xs, ys)
}

// changeable refuses what no change of a stream can do.
func (s streams) changeable(old, next *delivery.Config) error {
	refuse := func(format string, args ...any) error {
		return &firehose.Refusal{Kind: firehose.ErrInvalid, Message: fmt.Sprintf(format, args...)}
	}
	if (old.Objects == nil) != (next.Objects == nil) {
		return refuse("The destination's type cannot be changed: create another delivery stream.")
	}
	if old.Objects == nil && !maps.EqualFunc(old.Keys, next.Keys, slices.Equal) {
		return refuse("UniqueKeys cannot be changed, and a table that has them neither added nor taken away: what the stream holds was folded by them. Create another delivery stream, once this one is deleted.")
	}
	for _, st := range s.d.s.pack.Streams {
		if st.Name == old.Name && (len(next.Tables) != 1 || next.Tables[0] != catalog.Name{Namespace: old.Namespace, Table: st.Table}) {
			return refuse("The stream feeds the table %s.%s of the pack %s, whose close counts on it: create another stream for other tables.", old.Namespace, st.Table, s.d.s.pack.Name)
		}
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
