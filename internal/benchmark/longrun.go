package benchmark

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tapehouse/tapehouse/internal/auth"
	"github.com/tapehouse/tapehouse/internal/calendar"
	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/console"
	"github.com/tapehouse/tapehouse/internal/fsys"
	"github.com/tapehouse/tapehouse/internal/lake"
	"github.com/tapehouse/tapehouse/packs"
)

// A long run is many trade dates in a row, each with a flush a minute: what a
// table gathers that is never looked after.
const (
	longDays    = 30
	longRecords = 5_000_000 // a date
	longFlushes = 390       // a date: a session's minutes
	// longRounds is how often a date maintenance runs: about every quarter of an
	// hour, where a server runs it every minute.
	longRounds = 26
	longOpens  = 5 // measurements of planning and of each query, of which the median counts
)

// longDay is what a date leaves.
type longDay struct {
	TradeDate     string  `json:"trade_date"`
	Rows          int64   `json:"rows"`  // of the table, all dates
	Files         int     `json:"files"` // live data files
	Snapshots     int     `json:"snapshots"`
	MetadataBytes int64   `json:"metadata_bytes"` // of the current metadata file, compressed
	PlanMillis    float64 `json:"plan_ms"`        // to open the table and list its files, nothing cached
	OneMillis     float64 `json:"query_one_ms"`   // a symbol of the last date
	AllMillis     float64 `json:"query_all_ms"`   // count and sum over the last date
	FlushMillis   float64 `json:"flush_ms"`       // median
}

// longRun reports date by date.
type longRun struct {
	Days []longDay `json:"days"`
}

func longrun(ctx context.Context, o Options, r *reporter) (_ any, err error) {
	days, records, flushes := orDefault(o.Days, longDays), orDefault(o.Records, longRecords), longFlushes
	records = max(records/flushes/batchSize, 1) * flushes * batchSize
	s, err := start(ctx, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if _, err := prepare(ctx, s, false); err != nil {
		return nil, err
	}
	pack, err := packs.Load(packs.Equities())
	if err != nil {
		return nil, err
	}
	client, err := s.client(1)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	u := s.credentials.Users[0]
	operator := console.NewClient(console.Endpoints{AWS: s.addresses.AWS, SQL: s.addresses.SQL, HTTP: s.addresses.HTTP}, auth.SQLUser{Name: u.Name, Password: u.Password})
	defer operator.Close()
	conn, err := s.sql(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing is left to lose

	r.printf("%d trade dates of %s records, %d flushes each\n", days, grouped(records), flushes)
	r.printf("%-10s %12s %7s %10s %12s %9s %9s %9s %9s\n", "date", "rows", "files", "snapshots", "metadata KiB", "plan ms", "one ms", "date ms", "flush ms")
	m := newMarket(1)
	var out longRun
	var rows, sequences int64
	date := calendar.Date(2026, time.March, 2)
	for day := range days {
		src := newSource(m, day, 1)
		year, month, d := date.Civil()
		src.at = time.Date(year, month, d, 15, 0, 0, 0, time.UTC).UnixNano()
		var took []time.Duration
		for flush := range flushes {
			for range records / flushes / batchSize {
				if _, err := client.PutBatch(ctx, stream, src.put()); err != nil {
					return nil, err
				}
			}
			began := time.Now()
			if _, err := operator.Flush(ctx); err != nil {
				return nil, err
			}
			took = append(took, time.Since(began))
			if (flush+1)%(flushes/longRounds) == 0 {
				if _, err := operator.Maintain(ctx); err != nil {
					return nil, err
				}
			}
		}
		rows += src.records()
		for n := src.first; n < src.next; n++ {
			sequences += n
		}
		one, err := measureDay(ctx, s, conn, date)
		if err != nil {
			return nil, err
		}
		one.Rows, one.FlushMillis = rows, quantilesOf(took).P50
		out.Days = append(out.Days, one)
		r.printf("%-10s %12s %7d %10d %12.1f %9.1f %9.1f %9.1f %9.1f\n", one.TradeDate, grouped(one.Rows), one.Files, one.Snapshots, float64(one.MetadataBytes)/1024,
			one.PlanMillis, one.OneMillis, one.AllMillis, one.FlushMillis)
		next, ok := pack.Calendar.Next(date)
		if !ok {
			break
		}
		date = next
	}
	var got, sum int64
	if err := conn.QueryRow(ctx, "SELECT count(*), sum(seq)::bigint FROM "+table).Scan(&got, &sum); err != nil {
		return nil, err
	}
	if got != rows || sum != sequences {
		return nil, fmt.Errorf("the table has %d rows with sequence numbers of %d in all, put were %d of %d", got, sum, rows, sequences)
	}
	return out, nil
}

// measureDay looks at the table from outside, and asks it.
func measureDay(ctx context.Context, s *subject, conn *pgx.Conn, date calendar.TradeDate) (longDay, error) {
	d := longDay{TradeDate: date.String()}
	var plan, one, all []time.Duration
	for range longOpens {
		began := time.Now()
		if err := d.plan(ctx, s); err != nil {
			return d, fmt.Errorf("plan: %w", err)
		}
		plan = append(plan, time.Since(began))
		for _, q := range []struct {
			sql  string
			took *[]time.Duration
		}{
			{"SELECT count(*), sum(quantity) FROM " + table + " WHERE trade_date = '" + d.TradeDate + "' AND symbol = (SELECT min(symbol) FROM " + table + " WHERE trade_date = '" + d.TradeDate + "')", &one},
			{"SELECT count(*), sum(quantity * price) FROM " + table + " WHERE trade_date = '" + d.TradeDate + "'", &all},
		} {
			began := time.Now()
			if _, err := conn.Exec(ctx, q.sql); err != nil {
				return d, fmt.Errorf("%s: %w", q.sql, err)
			}
			*q.took = append(*q.took, time.Since(began))
		}
	}
	d.PlanMillis, d.OneMillis, d.AllMillis = quantilesOf(plan).P50, quantilesOf(one).P50, quantilesOf(all).P50
	return d, nil
}

// plan opens the catalog as another process would and lists the table's files.
func (d *longDay) plan(ctx context.Context, s *subject) (err error) {
	data := filepath.Join(s.dir, "data")
	store, err := lake.OpenLocal(fsys.OS, filepath.Join(data, "lake"))
	if err != nil {
		return err
	}
	c, err := catalog.Open(ctx, catalog.Options{Dir: filepath.Join(data, "catalog"), Warehouse: store, ReadOnly: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	t, err := c.Load(ctx, catalog.Name{Namespace: schema, Table: "trades"})
	if err != nil {
		return err
	}
	files, err := c.Files(ctx, t, catalog.At{})
	if err != nil {
		return err
	}
	d.Files, d.Snapshots = len(files), len(t.Snapshots())
	names, err := filepath.Glob(filepath.Join(data, "lake", schema, "trades-*", "metadata", "*.metadata.json"))
	if err != nil || len(names) == 0 {
		return errors.Join(err, errors.New("the table has no metadata file"))
	}
	fi, err := os.Stat(slices.Max(names))
	if err != nil {
		return err
	}
	d.MetadataBytes = fi.Size()
	return nil
}
