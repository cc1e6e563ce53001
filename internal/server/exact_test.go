package server

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/big"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// exactLegs are execution legs over many magnitudes: prices from $0.0001 to what
// numeric(18,4) holds, shares from 1 to a thousand million, on both sides of
// the changes to and from daylight saving time.
func exactLegs(n int) []leg {
	r := rand.New(rand.NewPCG(20261123, 7))
	opens := []time.Time{ // 04:00 to 20:00 in New York
		time.Date(2026, 3, 6, 9, 0, 0, 0, time.UTC), time.Date(2026, 3, 9, 8, 0, 0, 0, time.UTC),
		time.Date(2026, 10, 30, 8, 0, 0, 0, time.UTC), time.Date(2026, 11, 2, 9, 0, 0, 0, time.UTC),
	}
	legs := make([]leg, n)
	for i := range legs {
		l := newLeg("EXACT", int64(i+1))
		l.Symbol = fmt.Sprintf("SYM%02d", r.IntN(23))
		l.MPID = []string{"ALDR", "BRKW", "CNYN", "DLTA", "EMBR"}[r.IntN(5)]
		digits := r.IntN(18) + 1
		price := r.Int64N(pow10(digits))
		if i%1000 == 7 {
			price = pow10(18) - 1
		}
		l.Price = fmt.Sprintf("%d.%04d", price/10000, price%10000)
		l.Quantity = 1 + r.Int64N(pow10(1+r.IntN(9)))
		at := opens[r.IntN(len(opens))].Add(time.Duration(r.Int64N(int64(12 * time.Hour))))
		l.At = at.Format(time.RFC3339Nano)
		legs[i] = l
	}
	return legs
}

func pow10(n int) int64 {
	v := int64(1)
	for range n {
		v *= 10
	}
	return v
}

// unscaled is a price's integer of $0.0001.
func unscaled(t *testing.T, price string) *big.Int {
	t.Helper()
	v, ok := new(big.Int).SetString(strings.Replace(price, ".", "", 1), 10)
	if !ok {
		t.Fatalf("price %q", price)
	}
	return v
}

// decimal is r at scale digits, rounded half away from zero.
func decimal(r *big.Rat, scale int) string {
	n := new(big.Int).Mul(r.Num(), new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(scale)), nil))
	n.Mul(n, big.NewInt(2))
	if n.Sign() < 0 {
		n.Sub(n, r.Denom())
	} else {
		n.Add(n, r.Denom())
	}
	n.Quo(n, new(big.Int).Mul(r.Denom(), big.NewInt(2)))
	text := fmt.Sprintf("%0*s", scale+1, new(big.Int).Abs(n).String())
	if scale > 0 {
		text = text[:len(text)-scale] + "." + text[len(text)-scale:]
	}
	if n.Sign() < 0 {
		text = "-" + text
	}
	return text
}

// sums are what the documents themselves add up to.
type sums struct {
	legs, shares, notional, prices *big.Int // notional and prices in $0.0001
	low, high                      *big.Int
	mpids                          map[string]bool
}

func (s *sums) add(t *testing.T, l leg) {
	price, quantity := unscaled(t, l.Price), big.NewInt(l.Quantity)
	if s.legs == nil {
		*s = sums{new(big.Int), new(big.Int), new(big.Int), new(big.Int), price, price, map[string]bool{}}
	}
	s.legs.Add(s.legs, big.NewInt(1))
	s.shares.Add(s.shares, quantity)
	s.notional.Add(s.notional, new(big.Int).Mul(price, quantity))
	s.prices.Add(s.prices, price)
	if price.Cmp(s.low) < 0 {
		s.low = price
	}
	if price.Cmp(s.high) > 0 {
		s.high = price
	}
	s.mpids[l.MPID] = true
}

// row is sums as SQL shows them: see exactColumns.
func (s *sums) row() string {
	dollars := func(v *big.Int) string { return decimal(new(big.Rat).SetFrac(v, big.NewInt(10000)), 4) }
	per := func(v, n *big.Int, scale int) string {
		return decimal(new(big.Rat).SetFrac(v, new(big.Int).Mul(n, big.NewInt(10000))), scale)
	}
	return strings.Join([]string{s.legs.String(), s.shares.String(), dollars(s.notional), dollars(s.low), dollars(s.high), strconv.Itoa(len(s.mpids)),
		per(s.prices, s.legs, 4), per(s.notional, s.shares, 4)}, "|")
}

// aggregates hold in PostgreSQL as they do here; averages and quotients have
// Redshift's scales, which PostgreSQL's do not, and are rounded for it.
const aggregates = `count(*), sum(quantity), sum(price * quantity), min(price), max(price), count(DISTINCT mpid)`

func TestSumsAreExact(t *testing.T) {
	s := open(t, testConfig(t))
	conn := connect(t, s)
	legs := exactLegs(4000)
	c := client(t, s)
	var docs [][]byte
	for i, l := range legs {
		docs = append(docs, l.document(t))
		if i == len(legs)/2 { // half of it in the table, half in the tail
			put(t, c, "executions", docs...)
			docs = nil
			if err := s.delivery.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	put(t, c, "executions", docs...)

	all, groups := &sums{}, map[string]*sums{}
	for _, l := range legs {
		all.add(t, l)
		key := l.Symbol + "|" + l.Side
		if groups[key] == nil {
			groups[key] = &sums{}
		}
		groups[key].add(t, l)
	}
	const exact = aggregates + `, avg(price), sum(price * quantity) / sum(quantity)`
	if got := table(t, conn, "SELECT "+exact+" FROM executions")[0]; got != all.row() {
		t.Errorf("\n got %s\nwant %s", got, all.row())
	}
	var want []string
	for key, g := range groups {
		want = append(want, key+"|"+g.row())
	}
	sort.Strings(want)
	if got := table(t, conn, "SELECT symbol, side, "+exact+" FROM executions GROUP BY symbol, side ORDER BY symbol, side"); !slices.Equal(got, want) {
		t.Errorf("\n got %q\nwant %q", got, want)
	}

	// Quotients of each row, at the scale that Redshift documents for them.
	for _, q := range []struct {
		sql   string
		scale int
		exact func(price, quantity *big.Int) *big.Rat
	}{
		{"price / quantity", 24, func(p, n *big.Int) *big.Rat { return new(big.Rat).SetFrac(p, new(big.Int).Mul(n, big.NewInt(10000))) }},
		{"price / 7", 15, func(p, _ *big.Int) *big.Rat { return new(big.Rat).SetFrac(p, big.NewInt(70000)) }},
		{"quantity / 0.3", 4, func(_, n *big.Int) *big.Rat {
			return new(big.Rat).SetFrac(new(big.Int).Mul(n, big.NewInt(10)), big.NewInt(3))
		}},
		{"-price / 0.0007", 6, func(p, _ *big.Int) *big.Rat { return new(big.Rat).SetFrac(new(big.Int).Neg(p), big.NewInt(7)) }},
		{"round(price * 1.005, 2)", 2, func(p, _ *big.Int) *big.Rat {
			return new(big.Rat).SetFrac(new(big.Int).Mul(p, big.NewInt(1005)), big.NewInt(10_000_000))
		}},
	} {
		got := table(t, conn, "SELECT "+q.sql+" FROM executions ORDER BY seq")
		_, fraction, _ := strings.Cut(got[0], ".")
		if len(fraction) != q.scale {
			t.Errorf("%s has scale %d, want %d", q.sql, len(fraction), q.scale)
		}
		for i, l := range legs {
			if want := decimal(q.exact(unscaled(t, l.Price), big.NewInt(l.Quantity)), len(fraction)); got[i] != want {
				t.Fatalf("%s of leg %d: %s, want %s (price %s, quantity %d)", q.sql, i+1, got[i], want, l.Price, l.Quantity)
			}
		}
	}

	// The same by the extended protocol's binary forms.
	rows, err := conn.Query(t.Context(), "SELECT seq, price, quantity, executed_at FROM executions WHERE seq > $1 ORDER BY seq", int64(0))
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	i := 0
	for ; rows.Next(); i++ {
		var seq, quantity int64
		var price pgtype.Numeric
		var at time.Time
		if err := rows.Scan(&seq, &price, &quantity, &at); err != nil {
			t.Fatal(err)
		}
		l := legs[i]
		sent, err := time.Parse(time.RFC3339Nano, l.At)
		if err != nil {
			t.Fatal(err)
		}
		value := new(big.Rat).SetInt(price.Int)
		scale := new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(max(price.Exp, -price.Exp))), nil))
		if price.Exp < 0 {
			value.Quo(value, scale)
		} else {
			value.Mul(value, scale)
		}
		if seq != l.Seq || quantity != l.Quantity || value.FloatString(4) != l.Price || !at.Equal(sent.Truncate(time.Microsecond)) {
			t.Fatalf("leg %d: %d %v %d %s", l.Seq, seq, price, quantity, at)
		}
	}
	if err := rows.Err(); err != nil || i != len(legs) {
		t.Fatalf("%d of %d legs: %v", i, len(legs), err)
	}
	t.Run("PostgreSQL", func(t *testing.T) { compareWithPostgreSQL(t, conn) })
}

// compareWithPostgreSQL copies the legs to a real PostgreSQL, by COPY at both
// ends, and asks both the same.
func compareWithPostgreSQL(t *testing.T, conn *pgx.Conn) {
	pg := postgreSQL(t)
	const columns = "source, seq, match_number, leg, symbol, mpid, side, fee_code, quantity, price, executed_at, trade_date"
	execute1(t, pg, `CREATE TABLE executions (source text, seq bigint, match_number bigint, leg int, symbol text, mpid text, side text, fee_code text,
		quantity bigint, price numeric(18,4), executed_at timestamptz, trade_date date)`)
	var copied bytes.Buffer
	tag, err := conn.PgConn().CopyTo(t.Context(), &copied, "COPY (SELECT "+columns+" FROM executions) TO STDOUT")
	if err != nil {
		t.Fatal(err)
	}
	back, err := pg.PgConn().CopyFrom(t.Context(), &copied, "COPY executions ("+columns+") FROM STDIN")
	if err != nil || back.RowsAffected() != tag.RowsAffected() {
		t.Fatalf("%s here, %s there: %v", tag, back, err)
	}
	same := func(sql string) {
		t.Helper()
		here, there := table(t, conn, sql), table(t, pg, sql)
		if !slices.Equal(here, there) {
			for i := range min(len(here), len(there)) {
				if here[i] != there[i] {
					t.Errorf("%s\nrow %d here  %s\nPostgreSQL %s", sql, i+1, here[i], there[i])
					return
				}
			}
			t.Errorf("%s: %d rows here, %d in PostgreSQL", sql, len(here), len(there))
		}
	}
	same("SELECT " + aggregates + " FROM executions")
	same("SELECT symbol, side, " + aggregates + " FROM executions GROUP BY 1, 2 ORDER BY 1, 2")
	same("SELECT trade_date, " + aggregates + " FROM executions GROUP BY trade_date ORDER BY trade_date")
	same("SELECT mpid, sum(CASE WHEN side = 'B' THEN price * quantity ELSE 0 END) FROM executions GROUP BY mpid HAVING count(*) > 1 ORDER BY 1")
	same("SELECT round(sum(price * quantity) / sum(quantity), 4), round(avg(price), 4) FROM executions")
	same("SELECT round(price * 0.0123, 2), round(price, -2), trunc(price, 1), ceil(price), floor(price), abs(-price), -price FROM executions ORDER BY seq")
	same("SELECT sum(price) OVER (PARTITION BY symbol ORDER BY seq ROWS 3 PRECEDING) FROM executions ORDER BY seq")
	same("SELECT CAST(price * quantity AS numeric(38,2)) FROM executions ORDER BY seq")
	for _, zone := range []string{"America/New_York", "Asia/Kolkata", "UTC"} {
		execute1(t, conn, "SET TimeZone = '"+zone+"'")
		execute1(t, pg, "SET TimeZone = '"+zone+"'")
		same("SELECT executed_at, CAST(executed_at AS date), executed_at::text, date_trunc('hour', executed_at) FROM executions ORDER BY seq")
		same("SELECT min(executed_at), max(executed_at), count(DISTINCT executed_at) FROM executions")
		// Around both changes of New York's clocks, and where text has no fraction.
		same(`SELECT timestamptz '2026-03-08 06:59:59.999999+00', timestamptz '2026-03-08 07:00:00+00', timestamptz '2026-11-01 05:59:59.5+00',
			timestamptz '2026-11-01 06:00:00.000001+00', timestamptz '2026-11-01 01:30:00', timestamptz '2026-03-08 03:00:00', timestamptz '1970-01-01 00:00:00+00'`)
	}
}

// postgreSQL starts a PostgreSQL server of the test's own, reachable by a unix
// socket alone.
func postgreSQL(t *testing.T) *pgx.Conn {
	t.Helper()
	const untested = "SKIPPED: %s: sums and times were not compared with PostgreSQL's"
	bins, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	slices.Sort(bins)
	bin := ""
	if len(bins) > 0 {
		bin = bins[len(bins)-1]
	} else if path, err := exec.LookPath("initdb"); err == nil {
		bin = filepath.Dir(path)
	} else {
		t.Skipf(untested, "no PostgreSQL server on this machine")
	}
	dir, err := os.MkdirTemp("", "tapehouse-pg") // t.TempDir's names are too long for a socket, and closed to others
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	name, attributes := "postgres", &syscall.SysProcAttr{}
	if os.Getuid() == 0 { // PostgreSQL refuses to run as root
		u, err := user.Lookup("postgres")
		if err != nil {
			t.Skipf(untested, "root has no user postgres to run it as")
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		if err := os.Chown(dir, uid, gid); err != nil {
			t.Fatal(err)
		}
		attributes.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	command := func(program string, args ...string) *exec.Cmd {
		cmd := exec.Command(filepath.Join(bin, program), args...)
		cmd.Dir, cmd.SysProcAttr, cmd.Env = dir, attributes, []string{"LC_ALL=C.UTF-8", "PATH=" + os.Getenv("PATH"), "HOME=" + dir}
		return cmd
	}
	data := filepath.Join(dir, "data")
	if out, err := command("initdb", "-D", data, "-A", "trust", "-U", name, "-E", "UTF8", "--no-sync").CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	server := command("postgres", "-D", data, "-k", dir, "-c", "listen_addresses=", "-c", "fsync=off", "-c", "shared_buffers=16MB", "-c", "max_connections=5")
	var log bytes.Buffer
	server.Stdout, server.Stderr = io.Discard, &log
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Signal(syscall.SIGINT) // a fast shutdown
		_ = server.Wait()
	})
	var last error
	for range 200 {
		conn, err := pgx.Connect(t.Context(), "host="+dir+" user="+name+" dbname=postgres")
		if err == nil {
			t.Cleanup(func() { _ = conn.Close(context.Background()) })
			return conn
		}
		last = err
		time.Sleep(50 * time.Millisecond)
	}
	_ = server.Process.Kill()
	t.Fatalf("PostgreSQL did not start: %v\n%s", last, log.String())
	return nil
}
