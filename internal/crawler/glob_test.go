package crawler

import (
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestGlob(t *testing.T) {
	for _, c := range []struct {
		pattern string
		yes, no string // names, parted by spaces
	}{
		{"*.csv", "a.csv .csv", "a/b.csv a.csv.gz"},
		{"**.csv", "a.csv a/b/c.csv", "a.csv.gz"},
		{"tmp/**", "tmp/a tmp/a/b", "tmp a/tmp/b"},
		{"**/tmp/**", "a/tmp/b a/b/tmp/c/d", "tmp/b"},
		{"a?c", "abc aéc", "ac a/c abbc"},
		{"[abc]x", "ax bx", "dx /x x"},
		{"[a-c0-9]x", "bx 5x", "dx"},
		{"[!a-c]x", "dx", "ax /x"},
		{"[]a]", "] a", "b"},
		{"{a,b*}.csv", "a.csv b.csv bcd.csv", "c.csv ab.csv"},
		{"{a,{b,c}d}x", "ax bdx cdx", "bx dx"},
		{"{,a}b", "b ab", "aab"},
		{`\*.csv`, "*.csv", "a.csv"},
		{"month=0[2-4]/**", "month=02/x month=04/y/z", "month=05/x"},
		{"/a/*", "a/b", "/a/b a/b/c"},
	} {
		g, err := compileGlob(c.pattern)
		if err != nil {
			t.Errorf("%s: %v", c.pattern, err)
			continue
		}
		for _, name := range strings.Fields(c.yes) {
			if !g.match(name) {
				t.Errorf("%s does not match %s", c.pattern, name)
			}
		}
		for _, name := range strings.Fields(c.no) {
			if g.match(name) {
				t.Errorf("%s matches %s", c.pattern, name)
			}
		}
	}
	for _, bad := range []string{"", "[a", "{a", "{a,b", `a\`, "[z-a]", strings.Repeat("{", 50), strings.Repeat("a", 2000), "\xff"} {
		if _, err := compileGlob(bad); !errors.Is(err, ErrInvalid) {
			t.Errorf("%.20q: %v, want ErrInvalid", bad, err)
		}
	}
}

// TestGlobIsLinear: patterns that make backtracking matchers run for ever.
func TestGlobIsLinear(t *testing.T) {
	g, err := compileGlob(strings.Repeat("**a*", 200) + "b")
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if g.match(strings.Repeat("a", 1000)) {
		t.Error("it matches")
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
}

// FuzzGlob holds patterns without sets and braces against regular expressions.
func FuzzGlob(f *testing.F) {
	f.Add("a/**/*.c?v", "a/b/c.csv")
	f.Add("{a,b}[!c]", "ad")
	f.Add("***", "x/y")
	f.Fuzz(func(t *testing.T, pattern, name string) {
		g, err := compileGlob(pattern)
		if err != nil {
			return
		}
		got := g.match(name)
		if strings.ContainsAny(pattern, `[{\`) || strings.HasPrefix(pattern, "/") || !utf8.ValidString(name) || len(pattern)*len(name) > 1<<16 {
			return
		}
		var b strings.Builder
		b.WriteString(`(?s)\A`)
		for rest := pattern; rest != ""; {
			r, n := utf8.DecodeRuneInString(rest)
			switch {
			case strings.HasPrefix(rest, "**"):
				b.WriteString(".*")
				n = len(rest) - len(strings.TrimLeft(rest, "*"))
			case r == '*':
				b.WriteString("[^/]*")
			case r == '?':
				b.WriteString("[^/]")
			default:
				b.WriteString(regexp.QuoteMeta(rest[:n]))
			}
			rest = rest[n:]
		}
		b.WriteString(`\z`)
		re, err := regexp.Compile(b.String())
		if err != nil {
			return
		}
		if want := re.MatchString(name); got != want {
			t.Errorf("%q on %q: %t, the regular expression says %t", pattern, name, got, want)
		}
	})
}
