package serde

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestJoda(t *testing.T) {
	for _, c := range []struct{ pattern, in, want string }{
		{"yyyy-MM-dd'T'HH:mm:ss.SSSZ", "2026-11-23T10:00:00.5-0530", "2026-11-23T15:30:00.5Z"},
		{"yyyyMMddHHmmss", "20261123100001", "2026-11-23T10:00:01Z"},
		{"yyyyMMddHHmmssSSSSSSSSS", "20261123100001123456789", "2026-11-23T10:00:01.123456789Z"},
		{"EEE, d MMM yyyy HH:mm:ss ZZ", "Mon, 23 Nov 2026 10:00:00 +01:00", "2026-11-23T09:00:00Z"},
		{"EEE, d MMM yyyy HH:mm:ss ZZ", "Tue, 23 Nov 2026 10:00:00 +01:00", ""},
		{"MMMM d, yyyy h:mm a", "november 3, 2026 12:05 AM", "2026-11-03T00:05:00Z"},
		{"MMMM d, yyyy h:mm a", "noVember 3, 2026 12:05 AM", ""},
		{"MMMM d, yyyy h:mm a", "NOV 3, 2026 12:05 am", "2026-11-03T00:05:00Z"},
		{"MMMM d, yyyy h:mm a", "Nov 3, 2026 12:05 aM", ""},
		{"M/d/yy k", "11/3/26 24", "2026-11-03T00:00:00Z"},
		{"M/d/yy", "11/3/50", "1950-11-03T00:00:00Z"},
		{"yyyy-D", "2024-366", "2024-12-31T00:00:00Z"},
		{"yyyy-D", "2026-366", ""},
		{"yyyy 'o''clock' KK a", "2026 o'clock 00 pm", "2026-01-01T12:00:00Z"},
		{"yyyy", "2026x", ""},
		{"yyyy-MM", "2026-13", ""},
		{"yyyy-MM-dd HH", "2026-11-23 24", ""},
		{"yyyy-MM-dd hh", "2026-11-23 00", ""},
		{"yyyy", "2999", ""},
	} {
		f, err := parseJoda(c.pattern)
		if err != nil {
			t.Error(err)
			continue
		}
		nanos, _, ok := f.parse([]byte(c.in))
		got := ""
		if ok {
			got = time.Unix(0, nanos).UTC().Format(time.RFC3339Nano)
		}
		if got != c.want {
			t.Errorf("%s %q: %q, want %q", c.pattern, c.in, got, c.want)
		}
	}
}

// TestAgainstJoda holds timestamp formats to the library that defines them.
func TestAgainstJoda(t *testing.T) {
	jar := os.Getenv("TAPEHOUSE_JODA_TIME_JAR")
	java, err := exec.LookPath("java")
	if err != nil || jar == "" {
		t.Skip("SKIPPED: no java, or TAPEHOUSE_JODA_TIME_JAR does not name joda-time:joda-time")
	}
	patterns := map[string]string{ // and the layout that writes what they read
		"yyyy-MM-dd'T'HH:mm:ss.SSS":   "2006-01-02T15:04:05.000",
		"yyyy-MM-dd HH:mm:ss":         "2006-01-02 15:04:05",
		"yyyyMMddHHmmss":              "20060102150405",
		"yyyyMMddHHmmssSSS":           "20060102150405.000",
		"dd/MMM/yyyy:HH:mm:ss Z":      "02/Jan/2006:15:04:05 -0700",
		"EEE MMM d HH:mm:ss yyyy":     "Mon Jan 2 15:04:05 2006",
		"MMMM d, yyyy h:mm a":         "January 2, 2006 3:04 PM",
		"yyyy-D":                      "2006-002",
		"y/M/d k":                     "2006/1/2 15",
		"yyyy-MM-dd'T'HH:mm:ssZZ":     "2006-01-02T15:04:05Z07:00",
		"YYYY.MM.dd K a":              "2006.01.02 3 PM",
		"yyyy-MM-ddHH:mm 'at' ''ss''": "2006-01-0215:04 at '05'",
	}
	r := rand.New(rand.NewPCG(11, 3))
	var in bytes.Buffer
	type question struct{ pattern, text string }
	var questions []question
	for _, pattern := range slices.Sorted(maps.Keys(patterns)) { // the same questions each time
		layout := patterns[pattern]
		for range 800 {
			zone := time.FixedZone("", (r.IntN(27)-13)*3600+r.IntN(2)*1800)
			text := time.Unix(r.Int64N(4_000_000_000), r.Int64N(1e9)).In(zone).Format(layout)
			if pattern == "yyyyMMddHHmmssSSS" {
				text = strings.Replace(text, ".", "", 1)
			}
			if r.IntN(3) == 0 { // almost the text
				b := []byte(text)
				b[r.IntN(len(b))] = "0123456789 -:/aZ+"[r.IntN(17)]
				text = string(b)
			}
			if r.IntN(20) == 0 {
				text = text[:r.IntN(len(text))]
			}
			questions = append(questions, question{pattern, text})
			fmt.Fprintf(&in, "%s\t%s\n", pattern, text)
		}
	}
	cmd := exec.Command(java, "-cp", jar, "testdata/Joda.java")
	cmd.Stdin = &in
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	answers := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if len(answers) != len(questions) {
		t.Fatalf("%d answers to %d questions", len(answers), len(questions))
	}
	agreed, refused, stricter := 0, 0, 0
	for i, q := range questions {
		f, err := parseJoda(q.pattern)
		if err != nil {
			t.Fatal(err)
		}
		nanos, why, ok := f.parse([]byte(q.text))
		switch {
		case ok && answers[i] == fmt.Sprintf("=%d", time.Unix(0, nanos).UnixMilli()):
			agreed++
		case !ok && answers[i][0] == '!':
			refused++
		case !ok && (why == tooLarge || strings.Contains(q.pattern, "E")): // as documented at jodaFormat
			stricter++
		default:
			t.Errorf("%s %q: %v %v, Joda says %s", q.pattern, q.text, time.Unix(0, nanos).UTC(), ok, answers[i])
		}
	}
	t.Logf("%d agreed, %d refused by both, %d by us alone", agreed, refused, stricter)
	if agreed < 4000 || refused < 400 {
		t.Errorf("%d agreed, %d refused: the texts miss their purpose", agreed, refused)
	}
}
