package prefix

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/tapehouse/tapehouse/internal/lake"
)

var at = time.Date(2026, 8, 27, 10, 30, 5, 0, time.UTC)

func mustParse(t testing.TB, text string, kind Kind, zone string) *Expression {
	t.Helper()
	e, err := Parse(text, kind, zone)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestName(t *testing.T) {
	const suffix = "trades-3-2026-08-27-10-30-05-"
	customer, region := Key{FromQuery, "customer"}, Key{FromLambda, "region"}
	for _, c := range []struct {
		text   string
		kind   Kind
		zone   string
		values map[Key]string
		want   string // without the UUID
	}{
		{"", Data, "", nil, "2026/08/27/10/" + suffix},
		{"legacy", Data, "", nil, "legacy2026/08/27/10/" + suffix},
		{"raw/", Data, "Asia/Tokyo", nil, "raw/2026/08/27/19/trades-3-2026-08-27-19-30-05-"},
		{"year=!{timestamp:yyyy}/month=!{timestamp:MM}/", Data, "", nil, "year=2026/month=08/" + suffix},
		{"!{timestamp:'year='yyyy'/month='MM}/", Data, "", nil, "year=2026/month=08/" + suffix},
		{"c=!{partitionKeyFromQuery:customer}/r=!{partitionKeyFromLambda:region}/", Data, "", map[Key]string{customer: "A 1", region: "eu/west"}, "c=A~201/r=eu/west/" + suffix},
		{"c=!{partitionKeyFromQuery:customer}/!{timestamp:HH}/", Data, "", map[Key]string{customer: ".~é"}, "c=~2E~7E~C3~A9/10/" + suffix},
		{"", Error, "", nil, "processing-failed/2026/08/27/10/" + suffix},
		{"errors/", Error, "", nil, "errors/processing-failed/2026/08/27/10/" + suffix},
		{"errors/!{firehose:error-output-type}/", Error, "", nil, "errors/processing-failed/" + suffix},
		{"e/!{firehose:error-output-type}/!{firehose:error-output-type}-!{timestamp:dd}/", Error, "", nil, "e/processing-failed/processing-failed-27/" + suffix},
	} {
		e := mustParse(t, c.text, c.kind, c.zone)
		o := Object{Stream: "trades", Version: 3, OldestAt: at, Seed: Seed{1, 2, 3}, Values: c.values, Extension: ".gz"}
		if c.kind == Error {
			o.ErrorType = "processing-failed"
		}
		got, err := e.Name(o)
		if err != nil {
			t.Errorf("%q: %v", c.text, err)
			continue
		}
		want := regexp.MustCompile("^" + regexp.QuoteMeta(c.want) + `[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\.gz$`)
		if !want.MatchString(got) {
			t.Errorf("%q: %s, want %s…", c.text, got, c.want)
		}
		if again, _ := e.Name(o); again != got {
			t.Errorf("%q: %s, then %s", c.text, got, again)
		}
	}
}

func TestErrorDefaultFollowsThePrefix(t *testing.T) {
	e := mustParse(t, "myFirehosePrefix/", Data, "").ErrorDefault()
	got, err := e.Name(Object{Stream: "s", Version: 1, OldestAt: at, ErrorType: "format-conversion-failed"})
	if err != nil || !strings.HasPrefix(got, "myFirehosePrefix/format-conversion-failed/2026/08/27/10/s-1-2026-") {
		t.Errorf("%s %v", got, err)
	}
}

func TestRandomStrings(t *testing.T) {
	e := mustParse(t, "!{firehose:random-string}/!{firehose:random-string}/!{timestamp:yyyy}/", Data, "")
	form := regexp.MustCompile(`^([0-9a-z]{11})/([0-9a-z]{11})/2026/`)
	seen := map[string]bool{}
	for n := range 200 {
		o := Object{Stream: "s", Version: 1, OldestAt: at, Seed: Seed{9}.Object(n)}
		name, err := e.Name(o)
		m := form.FindStringSubmatch(name)
		if err != nil || m == nil {
			t.Fatalf("%s %v", name, err)
		}
		for _, s := range m[1:] {
			if seen[s] {
				t.Errorf("%s twice", s)
			}
			seen[s] = true
		}
	}
	if a, b := NewSeed(), NewSeed(); a == b || a == (Seed{}) {
		t.Error("two new seeds are equal")
	}
}

// TestNamesAreForEver pins names: a plan logged by this version is carried out by
// later ones.
func TestNamesAreForEver(t *testing.T) {
	e := mustParse(t, "!{firehose:random-string}/", Data, "America/New_York")
	got, err := e.Name(Object{Stream: "trades", Version: 1, OldestAt: at, Seed: Seed{0xab}.Object(2), Extension: ".x(1)"})
	const want = "va3r7zxjv3b/2026/08/27/06/trades-1-2026-08-27-06-30-05-8544d74e-218a-4be1-bfc5-600413439c6d.x~281~29"
	if err != nil || got != want {
		t.Errorf("%s %v, want %s", got, err, want)
	}
}

func TestParseRefuses(t *testing.T) {
	for _, c := range []struct {
		text string
		kind Kind
		zone string
		want string
	}{
		{"a/!{timestamp:yyyy", Data, "", `no "}" ends`},
		{"a/!{yyyy}/", Data, "", "has no namespace"},
		{"a/!{time:yyyy}/", Data, "", `namespace "time"`},
		{"a/!{firehose:uuid}/", Data, "", "random-string and error-output-type"},
		{"a/!{firehose:error-output-type}/", Data, "", "only be used in ErrorOutputPrefix"},
		{"a/!{partitionKeyFromQuery:x}/", Error, "", "use them in Prefix only"},
		{"a/!{partitionKeyFromQuery:}/", Data, "", "names no partition key"},
		{"!{timestamp:b}/", Data, "", "unknown pattern letter: b"},
		{"!{timestamp:HH:mm}/", Data, "", `character ':'`},
		{"!{timestamp:yyyy''}/", Data, "", `character '\''`},
		{"my prefix/", Data, "", `character ' '`},
		{"é/", Data, "", `character 'é'`},
		{"/a/", Data, "", "empty segment"},
		{"a//b/", Data, "", "empty segment"},
		{"a/!{timestamp:/yyyy}", Data, "", "empty segment"},
		{"a/.b/", Data, "", "begins with '.'"},
		{"../", Data, "", "begins with '.'"},
		{strings.Repeat("a/", 250) + "bbbbb", Data, "", "above the limit of 512"},
		{strings.Repeat("a", 1025), Data, "", "above the limit of 1024"},
		{strings.Repeat("a", 256) + "/", Data, "", "leaves no room"},
		{strings.Repeat("a", 100) + "!{timestamp:yyyy}", Data, "", "leaves no room"},
		{"a/", Data, "Mars/Olympus", "CustomTimeZone"},
		{"a/", Data, "Local", "CustomTimeZone"},
	} {
		e, err := Parse(c.text, c.kind, c.zone)
		if err == nil || !errors.Is(err, ErrInvalid) || errors.Is(err, ErrRecord) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.60q: %v %v, want %q", c.text, e, err, c.want)
		}
	}
}

func TestCheckPair(t *testing.T) {
	for _, c := range []struct{ data, errorOutput, want string }{
		{"a/", "", ""},
		{"a/", "errors/", ""},
		{"a/!{timestamp:yyyy}/", "", "can't be null or empty when Prefix contains expressions"},
		{"a/!{timestamp:yyyy}/", "errors/", ""},
		{"a/!{timestamp:yyyy}/", "e/!{timestamp:yyyy}/", "must contain !{firehose:error-output-type}"},
		{"a/", "e/!{firehose:random-string}/", "must contain !{firehose:error-output-type}"},
		{"a/!{timestamp:yyyy}/", "e/!{firehose:error-output-type}/", ""},
	} {
		var errorOutput *Expression
		if c.errorOutput != "" {
			errorOutput = mustParse(t, c.errorOutput, Error, "")
		}
		err := CheckPair(mustParse(t, c.data, Data, ""), errorOutput)
		if c.want == "" && err != nil || c.want != "" && (!errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%q with %q: %v, want %q", c.data, c.errorOutput, err, c.want)
		}
	}
}

func TestPartitionRefuses(t *testing.T) {
	e := mustParse(t, "!{partitionKeyFromQuery:a}/x!{partitionKeyFromQuery:b}/", Data, "")
	a, b := Key{FromQuery, "a"}, Key{FromQuery, "b"}
	for _, c := range []struct {
		values map[Key]string
		want   string
	}{
		{map[Key]string{a: "1", b: "2"}, ""},
		{map[Key]string{a: "1"}, "partition key b is missing"},
		{map[Key]string{a: "", b: "2"}, "partition key a is empty"},
		{map[Key]string{a: "/1", b: "2"}, "empty segment"},
		{map[Key]string{a: "1/", b: "2"}, "empty segment"},
		{map[Key]string{a: "1//2", b: "2"}, "empty segment"},
		{map[Key]string{a: strings.Repeat("é", 300), b: "2"}, "above the limit"},
		{map[Key]string{a: strings.Repeat("a", 256), b: "2"}, "256 characters"},
		{map[Key]string{a: strings.Repeat("a/", 200) + "a", b: strings.Repeat("é", 40)}, "above the limit of 512"},
	} {
		_, err := e.Partition(c.values)
		if c.want == "" && err != nil || c.want != "" && (!errors.Is(err, ErrRecord) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%.60v: %v, want %q", c.values, err, c.want)
		}
	}
}

func TestExtension(t *testing.T) {
	for _, s := range []string{"", ".gz", ".custom.log", ".a!-_*'()"} {
		if err := CheckExtension(s); err != nil {
			t.Error(err)
		}
	}
	for _, s := range []string{"gz", ".", ".GZ", ".a/b", "." + strings.Repeat("a", 60), ".a b"} {
		if err := CheckExtension(s); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %v", s, err)
		}
	}
}

// FuzzName: what Parse and Partition accept has a name that the lake accepts, at any
// time; whatever the values, they stay behind the text before them; and different
// values never share a name.
func FuzzName(f *testing.F) {
	f.Add("c=!{partitionKeyFromQuery:a}/d=!{partitionKeyFromLambda:b}/", "../../etc", "x\x00y", int64(1_787_000_000), "Asia/Tokyo")
	f.Add("!{timestamp:yyyy/MM/dd/EEEE}/!{partitionKeyFromQuery:a}", ".", "~2E", int64(0), "")
	f.Add("p/!{firehose:random-string}!{partitionKeyFromQuery:a}!{partitionKeyFromLambda:b}", "a/b", "~", int64(1e10), "Europe/London")
	f.Fuzz(func(t *testing.T, text, a, b string, seconds int64, zone string) {
		e, err := Parse(text, Data, zone)
		if err != nil {
			return
		}
		values := map[Key]string{{FromQuery, "a"}: a, {FromLambda, "b"}: b}
		group, err := e.Partition(values)
		if err != nil {
			return
		}
		// Ten years, in which every width occurs.
		oldest := time.Unix(1_700_000_000+(seconds%315_360_000+315_360_000)%315_360_000, 999_999_999)
		o := Object{Stream: strings.Repeat("s", 64), Version: 1 << 30, OldestAt: oldest, Values: values, Extension: "." + strings.Repeat("x", extensionBytesMax-1)}
		name, err := e.Name(o)
		if err != nil {
			t.Fatalf("Partition accepted %q, Name says %v", values, err)
		}
		if err := lake.CheckName(name); err != nil {
			t.Fatal(err)
		}
		if literal, _, found := strings.Cut(text, "!{"); found && !strings.HasPrefix(name, literal) {
			t.Fatalf("%q reaches out of %q", name, literal)
		}
		if len(e.Keys()) == 1 {
			k := e.Keys()[0]
			other := map[Key]string{k: values[k] + "."}
			group2, err := e.Partition(other)
			if err != nil {
				return
			}
			if group2 == group {
				t.Fatalf("%q and %q are one partition", values[k], other[k])
			}
		}
	})
}

func TestEscapeKeepsValuesApart(t *testing.T) {
	seen := map[string]string{}
	alphabet := []string{"", ".", "/", "~", "2", "E", "\x00", "é", "a"}
	for _, x := range alphabet {
		for _, y := range alphabet {
			for _, z := range alphabet {
				for _, w := range alphabet {
					value := x + y + z + w
					var b strings.Builder
					escapeValue(&b, value)
					if was, ok := seen[b.String()]; ok && was != value {
						t.Fatalf("%q and %q both become %q", was, value, b.String())
					}
					seen[b.String()] = value
				}
			}
		}
	}
}

func ExampleExpression_Name() {
	e, err := Parse("trades/!{timestamp:yyyy-MM-dd}/mpid=!{partitionKeyFromQuery:mpid}/", Data, "America/New_York")
	if err != nil {
		panic(err)
	}
	name, err := e.Name(Object{
		Stream: "legs", Version: 1, OldestAt: time.Date(2026, 11, 24, 2, 0, 0, 0, time.UTC),
		Values: map[Key]string{{FromQuery, "mpid"}: "ACME"}, Extension: ".gz",
	})
	fmt.Println(name, err)
	// Output: trades/2026-11-23/mpid=ACME/legs-1-2026-11-23-21-00-00-7f16aea9-8be2-4fb8-91ce-86d7c1a6975c.gz <nil>
}
