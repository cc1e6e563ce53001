package warehouse

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestSplit(t *testing.T) {
	for _, c := range []struct {
		sql  string
		want []string
	}{
		{"", nil},
		{" ;; ", nil},
		{"select 1", []string{"select 1"}},
		{"select 1; select 2;", []string{"select 1", "select 2"}},
		{"select ';'; select $$;$$; select $a$;$$;$a$", []string{"select ';'", "select $$;$$", "select $a$;$$;$a$"}},
		{"select 1 -- ; no\n; /* ; /* ; */ ; */ select 2", []string{"select 1", "select 2"}},
		{`select "a;b"; select E'\';'`, []string{`select "a;b"`, `select E'\';'`}},
		{"select (1;2)", []string{"select (1;2)"}},
	} {
		got, err := Split(c.sql)
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("Split(%q) = %q, %v; want %q", c.sql, got, err, c.want)
		}
	}
}

func TestTokenize(t *testing.T) {
	for _, c := range []struct{ sql, want string }{
		{"SELECT FooBar, \"FooBar\", \"a\"\"b\"", `select foobar, "FooBar", "a""b"`},
		{"a::INT4", "a::int4"},
		{`E'a\n\x41\u00e9\101\'b'`, "'a\nAéA''b'"},
		{"'it''s'", "'it''s'"},
		{"'a'\n  'b'", "'ab'"},
		{"$1+$23", "$1+$23"},
		{"$tag$it's$tag$", "'it''s'"},
		{"a/* x /* y */ */b", "a b"},
		{"a--b\n+c", "a +c"},
		{"1.5e-3+.5", "1.5e-3+.5"},
		{"a<-1", "a< -1"},
		{"a!~'b'", "a!~'b'"},
		{"a->>'b'", "a->>'b'"},
		{"x@-y", "x@-y"},
		{"Ünïcode", "Ünïcode"},
	} {
		tokens, err := tokenize(c.sql)
		if err != nil {
			t.Errorf("tokenize(%q): %v", c.sql, err)
			continue
		}
		if got := render(tokens); got != c.want {
			t.Errorf("tokenize(%q) renders %q, want %q", c.sql, got, c.want)
		}
	}
	for _, c := range []struct {
		sql, code string
		position  int
	}{
		{"select 'a", "42601", 8}, {`select "a`, "42601", 8}, {"/* /* */", "42601", 1}, {"$a$ x", "42601", 1}, {"1a", "42601", 1}, {`""`, "42601", 1},
		{"select \x00", "42601", 8}, {"\xff", "22021", 0}, {"x'00'", "0A000", 1}, {`E'\u12'`, "22025", 3}, {strings.Repeat("(", 201), "54001", 201}, {"é \\", "42601", 3},
	} {
		_, err := tokenize(c.sql)
		var e *Error
		if !errors.As(err, &e) || e.Code != c.code || e.Position != c.position {
			t.Errorf("tokenize(%q) = %v at %d; want %s at %d", c.sql, err, e.Position, c.code, c.position)
		}
	}
}

func FuzzTokenizer(f *testing.F) {
	for _, s := range []string{"select 'a' || $1::text -- x", `E'\n' "q" $$x$$ /* /* */ */ 1.5e3 <= a`, "a->>'b'", "U&'x'", "'a'\n'b'"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, sql string) {
		tokens, err := tokenize(sql)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		end := 0
		for _, tk := range tokens {
			if tk.start < end || tk.end < tk.start || tk.end > len(sql) {
				t.Fatalf("token %+v overlaps the one before, which ended at %d", tk, end)
			}
			end = tk.end
		}
		// What is rendered reads as the same tokens.
		text := render(tokens)
		again, err := tokenize(text)
		if err != nil {
			t.Fatalf("%q renders as %q, which fails: %v", sql, text, err)
		}
		if len(again) != len(tokens) {
			t.Fatalf("%q renders as %q: %d tokens became %d", sql, text, len(tokens), len(again))
		}
		for i := range again {
			if again[i].kind != tokens[i].kind || again[i].value != tokens[i].value {
				t.Fatalf("%q renders as %q: token %d %+v became %+v", sql, text, i, tokens[i], again[i])
			}
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"create table a.b (c numeric(18,4) not null encode zstd) partitioned by (d) tblproperties('a'='b')", "copy t (a,b) from stdin with (format csv, null '')",
		"insert into t (a) values (1)", "set local search_path to a, \"B\", 'c'", "prepare p (int) as select $1", "execute p(1, (2))", "begin isolation level serializable, read only",
		"select top 3 a from b minus select listagg(a, ',') within group (order by b) from c", "create materialized view v auto refresh yes as select 1", "drop table if exists a, b.c",
		"select convert(int, x), a operator(pg_catalog.~) b collate pg_catalog.default"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, sql string) {
		st, err := parseStatement(sql)
		var e *Error
		if err != nil && !errors.As(err, &e) {
			t.Fatalf("untyped error %v", err)
		}
		if q, ok := st.(queryStatement); err == nil && ok {
			if _, err := duckdbText(sql, q.tokens); err != nil && !errors.As(err, &e) {
				t.Fatalf("untyped error %v", err)
			}
		}
	})
}
