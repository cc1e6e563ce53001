package server

import (
	"strings"
	"testing"
	"time"
)

// A column that is added to a stream's table while records flow is filled by
// the records that come after, and what the log holds from before stays
// readable: across a flush, a restart and a merge of small files.
func TestColumnAddedToAFedTable(t *testing.T) {
	c := testConfig(t)
	s := open(t, c)
	conn := connect(t, s)
	aws := client(t, s)
	doc := func(seq int64, member string) []byte {
		return []byte(strings.Replace(string(newLeg("ME1-EXE", seq).document(t)), `{`, `{`+member, 1))
	}
	put(t, aws, "executions", doc(1, ""), doc(2, `"venue":"early",`))
	execute1(t, conn, "ALTER TABLE equities.executions ADD COLUMN venue varchar")
	const query = "SELECT count(*) || ' ' || count(venue) || ' ' || coalesce(max(venue), '-') FROM equities.executions"
	if got := text(t, conn, query); got != "2 0 -" {
		t.Fatal(got)
	}
	// The stream knows of it within a moment.
	seq := int64(3)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		put(t, aws, "executions", doc(seq, `"venue":"X",`))
		seq++
		if got := text(t, conn, query); strings.HasSuffix(got, "X") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the new column stays empty")
		}
	}
	check := func(when string) {
		t.Helper()
		got := strings.Fields(text(t, conn, query))
		if len(got) != 3 || got[0] != text(t, conn, "SELECT count(DISTINCT seq) FROM equities.executions") || got[2] != "X" || got[1] == "0" {
			t.Errorf("%s: %v", when, got)
		}
	}
	check("in the tail")
	if err := s.delivery.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	check("in the table")
	put(t, aws, "executions", doc(seq, `"venue":"X",`), doc(1, ""))
	s.delivery.Abandon() // as in a crash
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	s = open(t, c)
	conn = connect(t, s)
	check("after a restart")
}
