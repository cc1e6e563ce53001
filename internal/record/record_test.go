package record

import (
	"math/rand/v2"
	"testing"

	"github.com/google/uuid"
)

func TestIDsWriteTheSameIDs(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 1000 {
		k := Key{Incarnation: uuid.New(), Shard: Shard(r.Uint32())}
		ids := NewIDs(k)
		o := Offset(r.Uint64() >> r.IntN(64))
		want := ID{Key: k, Offset: o}
		got := string(ids.AppendText([]byte("x"), o))
		if got != "x"+want.String() {
			t.Fatalf("%s, want %s", got[1:], want)
		}
		back, err := ParseID(got[1:])
		if err != nil || back != want {
			t.Fatalf("%v %v, want %v", back, err, want)
		}
	}
}

func BenchmarkIDs(b *testing.B) {
	ids := NewIDs(Key{Incarnation: uuid.New()})
	var out []byte
	o := Offset(0)
	for b.Loop() {
		out = ids.AppendText(out[:0], o)
		o++
	}
}

func BenchmarkID(b *testing.B) {
	id := ID{Key: Key{Incarnation: uuid.New()}}
	var out []byte
	for b.Loop() {
		out = id.AppendText(out[:0])
		id.Offset++
	}
}
