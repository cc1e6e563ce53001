package delivery

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/tapehouse/tapehouse/internal/columnar"
)

// layouts are a table's compiled schemas. New records are decoded by the
// present one; what the log holds is read by the one that it was written under.
type layouts struct {
	current atomic.Pointer[columnar.Layout]

	mu  sync.RWMutex
	all map[uint32]*columnar.Layout // by fingerprint

	keyed *keyLayouts // of a table with keys, else nil; guarded by mu
}

func (y *layouts) present() *columnar.Layout { return y.current.Load() }

// adopt compiles the schemas of a state that are not known yet, and makes the
// present one of it current.
func (y *layouts) adopt(c columnar.Calendar, st State) error {
	o := columnar.Options{Calendar: c, Sequence: st.Sequence, Partition: st.Partition}
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.all == nil {
		y.all = map[uint32]*columnar.Layout{}
	}
	for _, former := range st.Schemas {
		l, err := columnar.Compile(former, o)
		if err != nil { // the table had it before it was fed: no frame was written under it
			continue
		}
		if y.all[l.Fingerprint()] == nil {
			y.all[l.Fingerprint()] = l
		}
		_ = y.pair(y.all[l.Fingerprint()], o) // likewise
	}
	l, err := columnar.Compile(st.Schema, o)
	if err != nil {
		return err
	}
	if known := y.all[l.Fingerprint()]; known != nil {
		l = known // with its memory
	}
	if err := y.pair(l, o); err != nil {
		return err
	}
	y.all[l.Fingerprint()] = l
	y.current.Store(l)
	return nil
}

func (y *layouts) of(fingerprint uint32) *columnar.Layout {
	y.mu.RLock()
	defer y.mu.RUnlock()
	return y.all[fingerprint]
}

// decoders are one goroutine's decoders of a table's payloads.
type decoders struct {
	l *tableLane
	m map[uint32]*columnar.Decoder
}

func (l *tableLane) newDecoders() *decoders {
	return &decoders{l, map[uint32]*columnar.Decoder{}}
}

// present decodes new documents.
func (d *decoders) present() *columnar.Decoder {
	return d.by(d.l.layouts.present())
}

func (d *decoders) by(y *columnar.Layout) *columnar.Decoder {
	x := d.m[y.Fingerprint()]
	if x == nil {
		x = y.NewDecoder()
		d.m[y.Fingerprint()] = x
	}
	return x
}

// of is the decoder of a payload.
func (d *decoders) of(payload []byte) (*columnar.Decoder, error) {
	fingerprint, ok := columnar.PayloadFingerprint(payload)
	if !ok {
		return nil, columnar.ErrPayload
	}
	y := d.l.layouts.of(fingerprint)
	if y == nil {
		return nil, &columnar.LayoutError{Have: fingerprint, Want: d.l.layouts.present().Fingerprint()}
	}
	return d.by(y), nil
}

// renew looks whether the table has got another schema, and adopts it: puts
// that begin from then on are decoded by it.
func (l *tableLane) renew(ctx context.Context) error {
	st, err := l.dest.State(ctx, l.key)
	if err != nil {
		return fmt.Errorf("look at the table's schema: %w", err)
	}
	if st.Schema.ID == l.layouts.present().Schema().ID {
		return nil
	}
	if err := l.layouts.adopt(l.m.o.Calendar, st); err != nil {
		return err
	}
	l.m.o.Logger.Info("the table's schema was changed", "stream", l.s.name, "table", l.table.String(), "schema_id", st.Schema.ID)
	return nil
}
