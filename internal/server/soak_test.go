package server

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tapehouse/tapehouse/internal/delivery"
	"github.com/tapehouse/tapehouse/internal/producer"
)

// soakFor is how long the soak puts load on its servers.
const soakFor = 10 * time.Second

// soakSource is a producer's own books. It outlives servers: what is not
// acknowledged it sends again.
type soakSource struct {
	name  string
	rand  *rand.Rand
	sent  int64        // highest sequence number ever sent
	acked atomic.Int64 // every number up to it was acknowledged
	again int64        // records sent a second time
}

// batch makes the next put: what is outstanding, or new records, and now and
// then records that are long acknowledged.
func (p *soakSource) batch() (docs [][]byte, last int64) {
	acked := p.acked.Load()
	if p.rand.IntN(4) == 0 && acked > 0 {
		from := 1 + p.rand.Int64N(acked)
		for seq := from; seq <= min(from+p.rand.Int64N(50), acked); seq++ {
			docs = append(docs, soakLeg(p.name, seq))
			p.again++
		}
	}
	last = p.sent
	if last == acked {
		last += 1 + p.rand.Int64N(200)
	}
	for seq := acked + 1; seq <= last; seq++ {
		docs = append(docs, soakLeg(p.name, seq))
	}
	p.sent = last
	return docs, last
}

// soakLeg is cheap to make and to check: its quantity is 100 + seq mod 7.
func soakLeg(source string, seq int64) []byte {
	return fmt.Appendf(nil, `{"source":%q,"session":"s","epoch":1,"seq":%d,"match_number":%d,"leg":%d,"symbol":"SYM%d","mpid":"ALDR","side":%q,"fee_code":"add","quantity":%d,"price":"%d.%04d","executed_at":"2026-11-20T15:%02d:00Z"}`,
		source, seq, (seq+1)/2, 2-seq%2, seq%5, []string{"S", "B"}[seq%2], 100+seq%7, 10+seq%90, seq%10000, seq%60)
}

// soakLife is one server's life and what goes on in it.
type soakLife struct {
	t      *testing.T
	s      *Server
	ctx    context.Context
	ending atomic.Bool // from now on everything may fail
}

// failed reports err unless the server is being taken down.
func (l *soakLife) failed(what string, err error) bool {
	if err != nil && !l.ending.Load() {
		l.t.Errorf("%s: %v", what, err)
	}
	return err != nil
}

func (l *soakLife) produce(p *soakSource) {
	k := l.s.Credentials().Keys[0]
	c, err := producer.New(producer.Config{Endpoint: "http://" + l.s.Addresses().AWS, Region: l.s.cfg.Region, AccessKey: k.ID, Secret: k.Secret})
	if l.failed("producer", err) {
		return
	}
	defer c.Close()
	for l.ctx.Err() == nil && !l.ending.Load() {
		docs, last := p.batch()
		if _, err := c.PutBatch(l.ctx, "executions", docs); l.failed("put", err) {
			return
		}
		p.acked.Store(last)
		time.Sleep(time.Duration(p.rand.IntN(4)) * time.Millisecond)
	}
}

func (l *soakLife) connect() (*pgx.Conn, error) {
	u := l.s.Credentials().Users[0]
	return pgx.Connect(l.ctx, "postgres://"+u.Name+":"+u.Password+"@"+l.s.Addresses().SQL+"/tapehouse")
}

// read looks at the sources in one transaction after the other. seen is what it
// saw last, over all lives.
func (l *soakLife) read(sources []*soakSource, seen map[string]int64) (transactions int) {
	conn, err := l.connect()
	if l.failed("connect", err) {
		return 0
	}
	defer conn.Close(context.Background()) //nolint:errcheck // the server may be gone
	for l.ctx.Err() == nil && !l.ending.Load() {
		if l.failed("read", l.readOnce(conn, sources, seen)) {
			return transactions
		}
		transactions++
	}
	return transactions
}

func (l *soakLife) readOnce(conn *pgx.Conn, sources []*soakSource, seen map[string]int64) error {
	acked := map[string]int64{}
	for _, p := range sources {
		acked[p.name] = p.acked.Load()
	}
	if _, err := conn.Exec(l.ctx, "BEGIN"); err != nil {
		return err
	}
	groups, err := rowsOf(l.ctx, conn, `SELECT source, count(*), count(DISTINCT seq), min(seq), max(seq), sum(quantity), sum(100 + mod(seq, 7)) FROM executions GROUP BY source ORDER BY source`)
	if err != nil {
		return err
	}
	total, err := rowsOf(l.ctx, conn, `SELECT count(*), sum(quantity), sum(price * quantity), sum(CASE WHEN side = 'B' THEN quantity ELSE 0 END) FROM executions`)
	if err != nil {
		return err
	}
	symbols, err := rowsOf(l.ctx, conn, `SELECT sum(n), sum(q), sum(v), sum(b) FROM
		(SELECT symbol, count(*) n, sum(quantity) q, sum(price * quantity) v, sum(CASE WHEN side = 'B' THEN quantity ELSE 0 END) b FROM executions GROUP BY symbol) x`)
	if err != nil {
		return err
	}
	view, err := rowsOf(l.ctx, conn, `SELECT sum(volume) FROM equities.symbol_daily_stats`)
	if err != nil {
		return err
	}
	if _, err := conn.Exec(l.ctx, "COMMIT"); err != nil {
		return err
	}
	var all int64
	for _, row := range groups {
		f := strings.Split(row, "|")
		n, err := strconv.ParseInt(f[1], 10, 64)
		if err != nil {
			return err
		}
		all += n
		// Without a hole from 1, none twice, nothing acknowledged missing, nothing
		// that was seen gone.
		if f[2] != f[1] || f[3] != "1" || f[4] != f[1] || f[5] != f[6] || n < acked[f[0]] || n < seen[f[0]] {
			l.t.Errorf("%s; acknowledged were %d, seen %d", row, acked[f[0]], seen[f[0]])
		}
		seen[f[0]] = n
		delete(acked, f[0])
	}
	for name, n := range acked {
		if n > 0 {
			l.t.Errorf("%s: %d acknowledged, none visible", name, n)
		}
	}
	if len(total) != 1 || len(symbols) != 1 || total[0] != symbols[0] && all > 0 || !strings.HasPrefix(total[0], fmt.Sprintf("%d|", all)) {
		l.t.Errorf("one transaction saw %d rows, then %q, then %q", all, total, symbols)
	}
	if bought := total[0][strings.LastIndexByte(total[0], '|')+1:]; len(view) != 1 || view[0] != bought {
		l.t.Errorf("the view's volume is %q, its table's %s", view, bought)
	}
	return nil
}

// churn flushes, and makes, fills and deletes streams. A stream's table is kept.
func (l *soakLife) churn(r *rand.Rand, life int) {
	conn, err := l.connect()
	if l.failed("connect", err) {
		return
	}
	defer conn.Close(context.Background()) //nolint:errcheck // the server may be gone
	k := l.s.Credentials().Keys[0]
	c, err := producer.New(producer.Config{Endpoint: "http://" + l.s.Addresses().AWS, Region: l.s.cfg.Region, AccessKey: k.ID, Secret: k.Secret})
	if l.failed("producer", err) {
		return
	}
	defer c.Close()
	for i := 0; l.ctx.Err() == nil && !l.ending.Load(); i++ {
		if l.failed("flush", l.s.delivery.Flush(l.ctx)) {
			return
		}
		name := fmt.Sprintf("churn_%d_%d", life, i)
		if _, err := conn.Exec(l.ctx, "CREATE TABLE equities."+name+" (n bigint NOT NULL)"); l.failed("create table", err) {
			return
		}
		rows := 0
		for range 1 + r.IntN(2) { // a stream of the same name is another incarnation
			if l.failed("create stream", c.CreateStream(l.ctx, producer.StreamSpec{Name: name, Database: "equities", Table: name})) {
				return
			}
			if _, err := c.PutBatch(l.ctx, name, [][]byte{[]byte(`{"n":1}`), []byte(`{"n":2}`)}); l.failed("put", err) {
				return
			}
			rows += 2
			if _, err := conn.Exec(l.ctx, "DROP TABLE equities."+name); err == nil {
				l.t.Errorf("%s was dropped under its stream", name)
			}
			if l.failed("delete stream", c.Call(l.ctx, "DeleteDeliveryStream", map[string]string{"DeliveryStreamName": name}, nil)) {
				return
			}
			var n int
			if l.failed("count", conn.QueryRow(l.ctx, "SELECT count(*) FROM equities."+name).Scan(&n)) {
				return
			}
			if n != rows {
				l.t.Errorf("%s: %d rows of %d", name, n, rows)
			}
		}
		time.Sleep(time.Duration(r.IntN(30)) * time.Millisecond)
	}
}

// TestSoak lets producers that resend, readers that check, flushes and streams
// that come and go work on servers that are closed, or crash, every second or two.
func TestSoak(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: the soak takes ten seconds, and -short was given")
	}
	soak(t, testConfig(t), soakFor)
}

func soak(t *testing.T, cfg Config, soakFor time.Duration) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	cfg.Log.SegmentBytes = 16 << 20
	cfg.Delivery.CheckpointInterval = Duration(300 * time.Millisecond)
	cfg.Log.Retention = Duration(time.Second)
	cfg.Maintain.Interval, cfg.Maintain.Grace = Duration(500*time.Millisecond), Duration(5*time.Second)
	var sources []*soakSource
	for i := range 3 {
		sources = append(sources, &soakSource{name: fmt.Sprintf("P%d", i), rand: rand.New(rand.NewPCG(seed, uint64(10+i)))})
	}
	seen := []map[string]int64{{}, {}}
	transactions := make([]int, len(seen))
	end := time.Now().Add(soakFor)
	lives, crashes := 0, 0
	for ; time.Now().Before(end); lives++ {
		s := open(t, cfg)
		ctx, cancel := context.WithCancel(t.Context())
		l := &soakLife{t: t, s: s, ctx: ctx}
		var work sync.WaitGroup
		for _, p := range sources {
			work.Go(func() { l.produce(p) })
		}
		for i := range seen {
			work.Go(func() { transactions[i] += l.read(sources, seen[i]) })
		}
		churned := rand.New(rand.NewPCG(seed, uint64(100+lives)))
		work.Go(func() { l.churn(churned, lives) })
		time.Sleep(time.Second + time.Duration(r.Int64N(int64(time.Second))))
		l.ending.Store(true)
		if r.IntN(2) == 0 { // nothing of memory reaches the disk any more
			crashes++
			s.delivery.Abandon()
		}
		// The server is taken down under its clients.
		if err := s.Close(t.Context()); err != nil && !errors.Is(err, delivery.ErrClosed) {
			t.Errorf("close: %v", err)
		}
		cancel()
		work.Wait()
		if t.Failed() {
			t.FailNow()
		}
	}
	// Each producer sends what it does not know the fate of, and then all of it is
	// there, once, before and after one more restart.
	s := open(t, cfg)
	want, records, again := []string{}, int64(0), int64(0)
	for _, p := range sources {
		for p.acked.Load() < p.sent {
			docs, last := p.batch()
			put(t, client(t, s), "executions", docs...)
			p.acked.Store(last)
		}
		want = append(want, fmt.Sprintf("%s|%d|%d|%d", p.name, p.sent, p.sent, p.sent))
		records, again = records+p.sent, again+p.again
	}
	const all = `SELECT source, count(*), count(DISTINCT seq), max(seq) FROM executions GROUP BY source ORDER BY source`
	for range 2 {
		if got := table(t, connect(t, s), all); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("rows %q, want %q", got, want)
		}
		if lines := errorOutput(t, s); len(lines) != 0 {
			t.Errorf("%d lines in the error output, the first: %+v", len(lines), lines[0])
		}
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
		s = open(t, cfg)
	}
	t.Logf("%d lives, of which %d crashed; %d records, %d sent again; %d transactions read", lives, crashes, records, again, transactions[0]+transactions[1])
}
