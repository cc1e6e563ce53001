package serde

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"
)

// expectedSums are the figures of testdata/read.py, from arrow-go's rows.
func expectedSums(t *testing.T, rows []string) string {
	t.Helper()
	var i, l, ts, a big.Int
	m, n, k := new(big.Rat), new(big.Rat), new(big.Rat)
	x, y, arrays, maps, u := 0, 0, 0, 0, 0
	add := func(sum *big.Int, v json.Number) {
		if v == "" {
			return
		}
		z, ok := new(big.Int).SetString(string(v), 10)
		if !ok {
			t.Fatal(v)
		}
		sum.Add(sum, z)
	}
	for _, row := range rows {
		var r struct {
			I, L json.Number
			M, N *string
			X, Y *string
			TS   *time.Time
			A    []*json.Number
			K    []struct{ Value *string }
			Z    *struct{ Q []*struct{ U *string } }
		}
		if err := json.Unmarshal([]byte(row), &r); err != nil {
			t.Fatal(err)
		}
		add(&i, r.I)
		add(&l, r.L)
		for _, d := range []struct {
			sum *big.Rat
			s   *string
		}{{m, r.M}, {n, r.N}} {
			if d.s != nil {
				v, _ := new(big.Rat).SetString(*d.s)
				d.sum.Add(d.sum, v)
			}
		}
		if r.X != nil {
			x += len(*r.X)
		}
		if r.Y != nil {
			b, err := base64.StdEncoding.DecodeString(*r.Y)
			if err != nil {
				t.Fatal(err)
			}
			y += len(b)
		}
		if r.TS != nil {
			ts.Add(&ts, big.NewInt(r.TS.UnixMicro()))
		}
		if r.A != nil {
			arrays++
			for _, v := range r.A {
				if v != nil {
					add(&a, *v)
				}
			}
		}
		if r.K != nil {
			maps++
			for _, e := range r.K {
				if e.Value != nil {
					v, _ := new(big.Rat).SetString(*e.Value)
					k.Add(k, v)
				}
			}
		}
		if r.Z != nil && len(r.Z.Q) > 0 && r.Z.Q[0] != nil && r.Z.Q[0].U != nil {
			u++
		}
	}
	return strings.Join([]string{fmt.Sprint(len(rows)), i.String(), l.String(), m.FloatString(9), n.FloatString(4), fmt.Sprint(x), fmt.Sprint(y), ts.String(), a.String(), fmt.Sprint(arrays), k.FloatString(2), fmt.Sprint(maps), fmt.Sprint(u)}, " ")
}
