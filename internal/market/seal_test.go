package market

import (
	"testing"
)

func TestCompleteDaySealsAndVerifies(t *testing.T) {
	h := newHouse(t)
	h.play(4000, nil, nil)
	c := h.seal()
	if c.Version != 1 || c.Tag != "eod-2026-11-20" {
		t.Fatalf("%+v", c)
	}
	v := h.verify(0)
	t.Logf("%d tables, %d rows, %d figures", v.Tables, v.Rows, v.Figures)
}

func TestStatementsAndExplain(t *testing.T) {
	h := newHouse(t)
	h.play(4000, nil, nil)
	h.seal()
	r, err := h.market.Statements(t.Context(), tradeDate, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", r.Manifest)
	again, err := h.market.Statements(t.Context(), tradeDate, 0)
	if err != nil || !again.Identical || r.Identical {
		t.Fatalf("%+v %v", again, err)
	}
	e, err := h.market.ExplainCharge(t.Context(), r.Manifest.Statements[0].ID, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", e)
}
