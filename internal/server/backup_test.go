package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tapehouse/tapehouse/internal/backup"
	"github.com/tapehouse/tapehouse/internal/calendar"
	"github.com/tapehouse/tapehouse/internal/console"
	"github.com/tapehouse/tapehouse/internal/exchange"
	"github.com/tapehouse/tapehouse/internal/market"
)

// TestBackupWhileRecordsComeIn: a restored backup has every record that was
// acknowledged before it was begun, each once, at another path as well; sealed
// dates verify there, and the sources go on.
func TestBackupWhileRecordsComeIn(t *testing.T) {
	cfg := testConfig(t)
	cfg.Log.SegmentBytes = 16 << 20
	s := open(t, cfg)
	date := calendar.Date(2026, time.November, 20)
	x, err := exchange.New(exchange.DefaultConfig(s.pack.Calendar, date, 1, 3_000))
	if err != nil {
		t.Fatal(err)
	}
	playAll(t, s, x, nil)
	const sealed = `SELECT source, count(*), sum(quantity), sum(price * quantity) FROM executions WHERE trade_date = '2026-11-20' GROUP BY source ORDER BY source`
	before := table(t, connect(t, s), sealed)
	if _, err := s.market.Seal(t.Context(), date, market.SealOptions{By: "test"}); err != nil {
		t.Fatal(err)
	}

	var acknowledged atomic.Int64
	stop, stopped := make(chan struct{}), make(chan error, 1)
	c := client(t, s)
	go func() {
		for seq := int64(1); ; seq += 20 {
			select {
			case <-stop:
				stopped <- nil
				return
			default:
			}
			docs := make([][]byte, 20)
			for i := range docs {
				docs[i] = mondayLeg(t, seq+int64(i))
			}
			if _, err := c.PutBatch(t.Context(), "executions", docs); err != nil {
				stopped <- err
				return
			}
			acknowledged.Store(seq + 19)
		}
	}()
	b, place := closeBackend{s}, t.TempDir()
	first, err := b.Backup(t.Context(), console.BackupRequest{To: place})
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(1100 * time.Millisecond) // ids have the second
	if err := s.delivery.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	least := acknowledged.Load()
	second, err := b.Backup(t.Context(), console.BackupRequest{To: place})
	if err != nil {
		t.Fatal(err)
	}
	close(stop)
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	if second.Copied >= second.Files || second.Files <= first.Files || first.Copied != first.Files {
		t.Errorf("first %+v, second %+v: want the second to copy what is new", first, second)
	}
	if _, err := b.Backup(t.Context(), console.BackupRequest{To: filepath.Join(cfg.Data, "lake", "b")}); !console.IsCode(err, console.CodeInvalid) {
		t.Errorf("a backup into the data directory: %v", err)
	}
	closeNow(t, s)

	from, shut, err := OpenBackup(t.Context(), cfg, place)
	if err != nil {
		t.Fatal(err)
	}
	defer shut()
	for _, point := range []string{second.ID, first.ID} {
		m, err := backup.Load(t.Context(), from, point)
		if err != nil {
			t.Fatal(err)
		}
		to := cfg
		to.Data = filepath.Join(t.TempDir(), "restored")
		if _, err := backup.Restore(t.Context(), from, m, to.Data, nil); err != nil {
			t.Fatal(err)
		}
		r := open(t, to)
		if got := table(t, connect(t, r), sealed); fmt.Sprint(got) != fmt.Sprint(before) {
			t.Errorf("%s: sealed %q, want %q", point, got, before)
		}
		if v, err := r.market.Verify(t.Context(), date, 0); err != nil || v.Rows == 0 {
			t.Errorf("%s: Verify = %+v, %v", point, v, err)
		}
		got := strings.Split(table(t, connect(t, r), `SELECT count(*), count(DISTINCT seq), coalesce(max(seq), 0) FROM executions WHERE source = 'BK'`)[0], "|")
		n, err := strconv.ParseInt(got[0], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if got[0] != got[1] || got[0] != got[2] {
			t.Errorf("%s: %q rows, distinct and last: want all the same", point, got)
		}
		if point == second.ID && n < least {
			t.Errorf("%d rows restored, %d were acknowledged before", n, least)
		}
		// The source sends what it is not sure of again, and goes on.
		var docs [][]byte
		for seq := max(1, n-9); seq <= n+20; seq++ {
			docs = append(docs, mondayLeg(t, seq))
		}
		put(t, client(t, r), "executions", docs...)
		want := fmt.Sprint(n + 20)
		if got := text(t, connect(t, r), `SELECT count(*) FROM executions WHERE source = 'BK'`); got != want {
			t.Errorf("%s: after the source went on %s rows, want %s", point, got, want)
		}
		closeNow(t, r)
	}
}

// mondayLeg is a leg of the trade date after the sealed one.
func mondayLeg(t *testing.T, seq int64) []byte {
	l := newLeg("BK", seq)
	l.At = "2026-11-23T15:00:00.123456789Z"
	return l.document(t)
}

// TestBackupDamage: what is not as the manifest says is not restored, and a backup
// that was interrupted does not exist.
func TestBackupDamage(t *testing.T) {
	cfg := testConfig(t)
	s := open(t, cfg)
	putLegs(t, s, "BK", 1, 100)
	if err := s.delivery.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	b, place := closeBackend{s}, t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Backup(ctx, console.BackupRequest{To: place}); err == nil {
		t.Fatal("an interrupted backup was made")
	}
	from, shut, err := OpenBackup(t.Context(), cfg, place)
	if err != nil {
		t.Fatal(err)
	}
	defer shut()
	if _, err := backup.Load(t.Context(), from, ""); !errors.Is(err, backup.ErrNotFound) {
		t.Fatalf("Load = %v, want ErrNotFound", err)
	}
	if _, err := b.Backup(t.Context(), console.BackupRequest{To: place}); err != nil {
		t.Fatal(err)
	}
	m, err := backup.Load(t.Context(), from, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := backup.Restore(t.Context(), from, m, cfg.Data, nil); !errors.Is(err, backup.ErrNotEmpty) {
		t.Errorf("restore over a data directory: %v", err)
	}
	for _, f := range m.Files {
		name := filepath.Join(place, filepath.FromSlash(f.Object))
		if f.Size == 0 || !strings.HasPrefix(f.Object, "tables/") && !strings.HasSuffix(f.Object, ".wal") && !strings.HasSuffix(f.Object, ".db") {
			continue
		}
		was, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		bad := append([]byte(nil), was...)
		bad[len(bad)/2] ^= 1
		if err := os.WriteFile(name, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(t.TempDir(), "r")
		if _, err := backup.Restore(t.Context(), from, m, dir, nil); !errors.Is(err, backup.ErrDamaged) {
			t.Errorf("%s with a flipped bit: %v", f.Object, err)
		}
		to := cfg
		to.Data = dir
		if s, err := Open(t.Context(), to, Options{}); err == nil {
			t.Errorf("%s: a server started on the damaged directory", f.Object)
			closeNow(t, s)
		}
		if err := os.WriteFile(name, was, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m.Files[0].Path = "../outside"
	if _, err := backup.Restore(t.Context(), from, m, filepath.Join(t.TempDir(), "r"), nil); !errors.Is(err, backup.ErrDamaged) {
		t.Errorf("a manifest that leads out: %v", err)
	}
}
