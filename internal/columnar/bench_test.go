package columnar

import (
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"
)

const benchBatch = 500 // records of a full PutRecordBatch

func benchArenas(n int) (arenas [][]byte, ends [][]int32) {
	g := newGenerator(1)
	for range n {
		var a []byte
		var e []int32
		for range benchBatch {
			a = g.append(a)
			e = append(e, int32(len(a)))
		}
		arenas = append(arenas, append(a, make([]byte, Slack)...)[:len(a)])
		ends = append(ends, e)
	}
	return arenas, ends
}

// clock returns the process's CPU time: on a busy machine it says more than the
// wall clock.
func clock() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func perRecord(b *testing.B, records int, since time.Duration) {
	b.ReportMetric(float64(clock()-since)/float64(records), "cpu-ns/record")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(records), "ns/record")
}

func BenchmarkDecode(b *testing.B) {
	arenas, ends := benchArenas(64)
	d := compile(b, tradeSchema(), "trade_date").NewDecoder()
	b.SetBytes(int64(len(arenas[0])))
	b.ReportAllocs()
	start, i := clock(), 0
	for b.Loop() {
		batch := d.Decode(arenas[i&63], ends[i&63], 1)
		if batch.Rows != benchBatch || !batch.Exact {
			b.Fatal(batch.Rejects)
		}
		batch.Release()
		i++
	}
	perRecord(b, i*benchBatch, start)
}

// BenchmarkDecodeGeneral has every record's members in another order, so that
// the scanner can learn none.
func BenchmarkDecodeGeneral(b *testing.B) {
	arena, ends := trades(benchBatch, 1)
	r := rand.New(rand.NewPCG(2, 2))
	var shuffled []byte
	var at []int32
	for _, doc := range split(arena, ends) {
		members := strings.Split(string(doc[1:len(doc)-1]), ",")
		r.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
		shuffled = append(shuffled, "{"+strings.Join(members, ",")+"}"...)
		at = append(at, int32(len(shuffled)))
	}
	shuffled = append(shuffled, make([]byte, Slack)...)[:len(shuffled)]
	d := compile(b, tradeSchema(), "trade_date").NewDecoder()
	b.ReportAllocs()
	start, i := clock(), 0
	for b.Loop() {
		batch := d.Decode(shuffled, at, 1)
		if batch.Rows != benchBatch || !batch.Exact {
			b.Fatal(batch.Rejects)
		}
		batch.Release()
		i++
	}
	perRecord(b, i*benchBatch, start)
}

func BenchmarkHash(b *testing.B) {
	arenas, ends := benchArenas(1)
	batch := compile(b, tradeSchema(), "trade_date").NewDecoder().Decode(arenas[0], ends[0], 1)
	start, i := clock(), 0
	for b.Loop() {
		batch.hashRows()
		i++
	}
	perRecord(b, i*benchBatch, start)
}

func BenchmarkPayload(b *testing.B) {
	arenas, ends := benchArenas(64)
	d := compile(b, tradeSchema(), "trade_date").NewDecoder()
	var batches []*Batch
	for i := range arenas {
		batches = append(batches, d.Decode(arenas[i], ends[i], 1))
	}
	var out []byte
	b.ReportAllocs()
	start, i := clock(), 0
	for b.Loop() {
		_, out = batches[i&63].AppendPayload(out[:0])
		i++
	}
	perRecord(b, i*benchBatch, start)
	b.ReportMetric(float64(len(out))/benchBatch, "B/record")
}

func BenchmarkReplay(b *testing.B) {
	arenas, ends := benchArenas(1)
	d := compile(b, tradeSchema(), "trade_date").NewDecoder()
	kind, payload := d.Decode(arenas[0], ends[0], 1).AppendPayload(nil)
	b.ReportAllocs()
	start, i := clock(), 0
	for b.Loop() {
		batch, err := d.DecodePayload(kind, payload, benchBatch, 1)
		if err != nil {
			b.Fatal(err)
		}
		batch.Release()
		i++
	}
	perRecord(b, i*benchBatch, start)
}

func BenchmarkBuildFlush(b *testing.B) {
	arenas, ends := benchArenas(64)
	l := compile(b, tradeSchema(), "trade_date")
	d := l.NewDecoder()
	var batches []*Batch
	for i := range arenas {
		batches = append(batches, d.Decode(arenas[i], ends[i], int64(i)))
	}
	builder := l.NewBuilder()
	size := 0
	b.ReportAllocs()
	start, i := clock(), 0
	for b.Loop() {
		for _, batch := range batches {
			builder.Append(batch)
		}
		parts, err := builder.Flush()
		if err != nil {
			b.Fatal(err)
		}
		size = len(parts[0].Data)
		i++
	}
	n := benchBatch * len(batches)
	perRecord(b, i*n, start)
	b.ReportMetric(float64(size)/float64(n), "B/record")
}
