package market

import (
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/tapehouse/tapehouse/internal/engine"
)

func TestCertificateIsSelfProving(t *testing.T) {
	c := &Certificate{Format: certificateFormat, TradeDate: "2026-11-20", Version: 1, SealedBy: "a <b> & c"}
	body := must[[]byte](t)(c.seal())
	got := must[*Certificate](t)(ParseCertificate(body))
	if got.Hash != c.Hash || len(c.Hash) != 64 {
		t.Fatalf("%+v", got)
	}
	var mismatch *MismatchError
	for _, bad := range []string{strings.Replace(string(body), "2026", "2027", 1), string(body[:len(body)-1]) + " }", strings.Replace(string(body), `"version":1`, `"version":01`, 1)} {
		if _, err := ParseCertificate([]byte(bad)); err == nil || strings.Contains(bad, "2027") && !errors.As(err, &mismatch) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// The row hash, computed a second time in Go by the text of the protocol.
func TestRowHashByTheBook(t *testing.T) {
	h := newHouse(t)
	h.play(1000, nil, nil)
	c := h.seal()
	ctx := t.Context()
	st := must[states](t)(h.market.sealedStates(ctx, c))
	pin := h.market.pinDate(st, tradeDate)
	defer pin.Release()
	for _, p := range c.Tables {
		s := st[strings.TrimPrefix(p.Table, "equities.")]
		sum, rows := new(big.Int), int64(0)
		var columns []string
		for _, f := range s.schema.Fields {
			columns = append(columns, engine.QuoteIdentifier(f.Name))
		}
		check(t, h.market.query(ctx, pin, "SELECT "+strings.Join(columns, ", ")+" FROM "+s.quoted(), func(row []any) error {
			var items []string
			for _, v := range row {
				switch v := v.(type) {
				case nil:
					items = append(items, "~")
				case string:
					items = append(items, fmt.Sprintf("%d:%s", len(v), v))
				case engine.Date:
					items = append(items, fmt.Sprint(int32(v)))
				case engine.TimestampTZ:
					items = append(items, fmt.Sprint(int64(v)))
				case engine.Decimal:
					items = append(items, v.String())
				default:
					items = append(items, fmt.Sprint(v))
				}
			}
			digest := md5.Sum([]byte(strings.Join(items, ",")))
			slices.Reverse(digest[:]) // little-endian
			sum.Add(sum, new(big.Int).SetBytes(digest[:]))
			rows++
			return nil
		}))
		sum.Mod(sum, new(big.Int).Lsh(big.NewInt(1), 128))
		if got := hex.EncodeToString(sum.FillBytes(make([]byte, 16))); got != p.RowHash || rows != p.Rows {
			t.Errorf("%s: %d rows %s, certificate %d rows %s", p.Table, rows, got, p.Rows, p.RowHash)
		}
	}
}

func FuzzParseCertificate(f *testing.F) {
	c := &Certificate{Format: certificateFormat, TradeDate: "2026-11-20", Version: 1}
	body, err := c.seal()
	check(f, err)
	f.Add(body)
	f.Add([]byte(`{"format":1,"hash":""}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseCertificate(b)
		if err == nil && !strings.HasSuffix(string(b), `,"hash":"`+c.Hash+`"}`) {
			t.Fatalf("accepted %q", b)
		}
	})
}

func FuzzParseStatementID(f *testing.F) {
	f.Add("2026-11-20/v1/M001")
	f.Add("2026-11-20/v1/a/b")
	f.Fuzz(func(t *testing.T, id string) {
		d, version, member, err := ParseStatementID(id)
		if err == nil && statementID(&Certificate{TradeDate: d.String(), Version: version}, member) != id && !strings.Contains(id, "/v0") && !strings.Contains(id, "/v+") {
			t.Fatalf("%q reads as %s v%d %s", id, d, version, member)
		}
	})
}
