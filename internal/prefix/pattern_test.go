package prefix

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"
	"time"

	_ "time/tzdata"
)

func TestPatternFormats(t *testing.T) {
	newYork, err := time.LoadLocation("America/New_York")
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 11, 23, 14, 5, 9, 12_345_678, time.UTC) // 09:05:09 in New York
	for _, c := range []struct {
		pattern, want string
		zone          *time.Location
	}{
		{"yyyy/MM/dd/HH/", "2026/11/23/14/", time.UTC},
		{"yyyy/MM/dd/HH/", "2026/11/23/09/", newYork},
		{"'year='yyyy'/month='MM", "year=2026/month=11", time.UTC},
		{"yyyy-MM-dd'T'HH-mm-ss.SSS", "2026-11-23T14-05-09.012", time.UTC},
		{"yy uuu uuuuu MMM MMMM MMMMM E EEEE EEEEE", "26 2026 02026 Nov November N Mon Monday M", time.UTC},
		{"D DDD w W e QQQ q", "327 327 48 4 1 Q4 4", time.UTC},
		{"h K k a", "2 2 14 PM", time.UTC},
		{"''yy'''a'''", "'26'a'", time.UTC},
		{"VV z Z ZZZZ ZZZZZ O X XX XXX x", "America/New_York EST -0500 GMT-05:00 -05:00 GMT-5 -05 -0500 -05:00 -05", newYork},
		{"VV z Z ZZZZ ZZZZZ O X XX XXX x xx xxx", "UTC UTC +0000 GMT Z GMT Z Z Z +00 +0000 +00:00", time.UTC},
		{"A n N", "50709012 12345678 50709012345678", time.UTC},
	} {
		p, err := parsePattern(c.pattern, c.zone)
		if err != nil {
			t.Errorf("%s: %v", c.pattern, err)
			continue
		}
		if got := p.format(at.In(c.zone)); got != c.want {
			t.Errorf("%s: %q, want %q", c.pattern, got, c.want)
		}
	}
}

func TestPatternRefuses(t *testing.T) {
	saoPaulo, err := time.LoadLocation("America/Sao_Paulo")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		pattern, want string
	}{
		{"", "empty"},
		{"yyyy-bb", "unknown pattern letter: b"},
		{"ppH", "pads with spaces"},
		{"zzzz", "zzzz is not supported"},
		{"z", "no abbreviation"},
		{"B", "B is not supported"},
		{"HHH", "too many pattern letters: HHH; at most 2"},
		{"aa", "too many"},
		{"V", "count must be 2"},
		{"OO", "count must be 1 or 4"},
		{"cc", "cc"},
		{"SSSSSSSSSS", "too many"},
		{"yyyy'x", "within quotes"},
		{"yyyy#", "reserved"},
		{"yyyy]", "without '['"},
	} {
		_, err := parsePattern(c.pattern, saoPaulo)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.pattern, err, c.want)
		}
	}
}

// TestPatternAgainstJava holds patterns to the real DateTimeFormatter: what we
// accept gives Java's text, and what Java refuses we refuse.
func TestPatternAgainstJava(t *testing.T) {
	java, err := exec.LookPath("java")
	if err != nil {
		t.Skip("SKIPPED: java is not installed; DateTimeFormatter patterns were checked against the table only")
	}
	r := rand.New(rand.NewPCG(7, 7))
	var zones []*time.Location
	for _, name := range []string{"UTC", "America/New_York", "Asia/Tokyo", "Asia/Kolkata", "Europe/London", "America/St_Johns", "Pacific/Auckland"} {
		zone, err := time.LoadLocation(name)
		if err != nil {
			t.Fatal(err)
		}
		zones = append(zones, zone)
	}
	type question struct {
		zone    *time.Location
		at      time.Time
		pattern string
	}
	var questions []question
	ask := func(pattern string) {
		// Days around the ends of years and months, where weeks and zones differ.
		at := time.Unix(1_700_000_000+r.Int64N(400_000_000), r.Int64N(1_000_000_000))
		if r.IntN(3) == 0 {
			at = time.Date(2020+r.IntN(12), 12, 25+r.IntN(14), r.IntN(24), r.IntN(60), 0, 0, time.UTC)
		}
		questions = append(questions, question{zones[r.IntN(len(zones))], at, pattern})
	}
	const letters = "GuyYQqMLwWDdFEecgahKHkmsSAnNVzZOXxBpvbfijlorPRTUCIJ"
	for i := range letters {
		for count := 1; count <= 20; count++ {
			for range 6 {
				ask(strings.Repeat(letters[i:i+1], count))
			}
		}
	}
	pieces := []string{"yyyy", "MM", "dd", "HH", "'T'", "/", "-", "''", "'a''b'", "[", "]", "D", "MMM", "EEEE", "w", "W", "YYYY", "XXX", "'open", "SSS", "a", "h", "=", "_"}
	for range 1500 {
		var b strings.Builder
		for range 1 + r.IntN(6) {
			b.WriteString(pieces[r.IntN(len(pieces))])
		}
		ask(b.String())
	}
	var in bytes.Buffer
	for _, q := range questions {
		fmt.Fprintf(&in, "%s\t%d\t%d\t%s\n", q.zone, q.at.Unix(), q.at.Nanosecond(), q.pattern)
	}
	cmd := exec.Command(java, "testdata/Format.java")
	cmd.Stdin = &in
	out, err := cmd.Output()
	if err != nil {
		t.Skipf("SKIPPED: java does not run single-file programs here: %v", err)
	}
	answers := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if len(answers) != len(questions) {
		t.Fatalf("%d answers to %d questions", len(answers), len(questions))
	}
	agreed, refused, stricter := 0, 0, map[byte]bool{}
	for i, q := range questions {
		p, err := parsePattern(q.pattern, q.zone)
		switch {
		case err == nil && answers[i][0] == '=':
			if got := p.format(q.at.In(q.zone)); got != answers[i][1:] {
				t.Errorf("%s at %s: %q, Java says %q", q.pattern, q.at.In(q.zone).Format(time.RFC3339Nano), got, answers[i][1:])
			}
			agreed++
		case err == nil:
			t.Errorf("%s at %s: accepted, Java says %s", q.pattern, q.at.In(q.zone).Format(time.RFC3339), answers[i])
		case answers[i][0] == '=':
			long := strings.Contains("uyY", q.pattern[:1]) && len(q.pattern) > yearMax
			if long || strings.Trim(q.pattern, "[]") == "" { // as documented at pattern
				continue
			}
			stricter[q.pattern[0]] = true
		default:
			refused++
		}
	}
	for letter := range stricter {
		if !strings.ContainsRune("pBvz", rune(letter)) {
			t.Errorf("Java accepts a pattern with %c that we refuse", letter)
		}
	}
	t.Logf("%d patterns agreed, %d refused by both", agreed, refused)
	if agreed < 1000 || refused < 500 {
		t.Errorf("%d agreed and %d refused: the questions miss their purpose", agreed, refused)
	}
}
