package hive

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

// keysOfTests has a key of each kind of type.
var keysOfTests = []Column{{Name: "symbol", Type: "string"}, {Name: "n", Type: "int"}, {Name: "price", Type: "decimal(38,10)"}, {Name: "trade_date", Type: "date"},
	{Name: "at", Type: "timestamp"}, {Name: "date", Type: "varchar(10)"}, {Name: "ratio", Type: "double"}, {Name: "big", Type: "BIGINT"}}

var partitionOfTests = []string{"AAPL", "9", "0.1", "2026-11-20", "2026-11-20 09:30:00.000000001", "2026-11-20", "0.5", "9223372036854775807"}

func TestExpression(t *testing.T) {
	null := append([]string{}, partitionOfTests...)
	for i := range null {
		null[i] = DefaultPartition
	}
	bad := []string{"", "nine", "1/3", "20th", "today", "", "", "1e3"}
	for _, c := range []struct {
		text              string
		given, null, isIn bool // for the partition, for nulls, and for values that their types have not
	}{
		{"", true, true, true},
		{"  \n ", true, true, true},
		{"symbol = 'AAPL'", true, false, false},
		{"SYMBOL='AAPL' and N=9", true, false, false},
		{"`symbol` = \"AAPL\"", true, false, false},
		{`"symbol" = 'AAPL'`, true, false, false},
		{"'AAPL' = symbol", true, false, false},
		{"symbol = 'aapl'", false, false, false},
		{"symbol <> 'aapl'", true, false, true},
		{"symbol != 'it''s'", true, false, true},
		{"n < 10", true, false, false}, // as text it would not be
		{"n > 10", false, false, false},
		{"10 > n", true, false, false},
		{"8.5 < n AND n < 9.5", true, false, false},
		{"n = 9.0", true, false, false},
		{"n = '9'", true, false, false},
		{"n = 009", true, false, false},
		{"n >= -9.", true, false, false},
		{"n = 99999999999999999999", false, false, false},
		{"n < 99999999999999999999", true, false, false},
		{"price = 0.1", true, false, false}, // exactly: a float of 0.1 is not 1/10
		{"price = 0.1000000000", true, false, false},
		{"price > 0.09999999999999999999", true, false, false},
		{"price <> 0.10000000000000000001", true, false, false},
		{"big = 9223372036854775807", true, false, false},
		{"big = 9223372036854775806", false, false, false}, // as floats they are the same
		{"big < 9223372036854775808", true, false, false},
		{"trade_date = '2026-11-20'", true, false, false},
		{"trade_date > DATE '2026-09-30'", true, false, false},
		{"trade_date BETWEEN '2026-11-01' AND '2026-11-30'", true, false, false},
		{"trade_date not between '2026-11-01' and '2026-11-30'", false, false, false},
		{"at > '2026-11-20 09:30:00'", true, false, false},
		{"at = TIMESTAMP '2026-11-20T09:30:00.000000001'", true, false, false},
		{"at < '2026-11-21'", true, false, false},
		{"date = '2026-11-20'", true, false, false},
		{"symbol IN ('MSFT', 'AAPL')", true, false, false},
		{"symbol NOT IN ('MSFT')", true, false, true},
		{"n in (1, 9, '10')", true, false, false},
		{"symbol LIKE 'A%'", true, false, false},
		{"symbol LIKE '_APL'", true, false, false},
		{"symbol LIKE '%A%P%L'", true, false, false},
		{"symbol LIKE 'A'", false, false, false},
		{"symbol NOT LIKE 'A%'", false, false, true},
		{`symbol LIKE 'A\%'`, false, false, false},
		{"symbol IS NULL", false, true, false},
		{"symbol IS NOT NULL", true, false, true},
		{"ratio IS NOT NULL", true, false, true}, // its values compare with nothing
		{"NOT symbol = 'AAPL'", false, false, true},
		{"NOT n = 8", true, false, false}, // NOT of what is unknown is unknown
		{"NOT NOT n = 9", true, false, false},
		{"n = 8 OR symbol IS NULL", false, true, false},
		{"n = 9 OR n = 8 AND n = 7", true, false, false}, // AND binds closer
		{"(n = 9 OR n = 8) AND n = 7", false, false, false},
		{"NOT (n = 8 OR symbol = 'x')", true, false, false},
		{"NOT n = 8 AND NOT n = 7", true, false, false},
		{"symbol = 2026", false, false, false},
	} {
		e, err := ParseExpression(c.text, keysOfTests)
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		if got := [3]bool{e.Matches(partitionOfTests), e.Matches(null), e.Matches(bad)}; got != [3]bool{c.given, c.null, c.isIn} {
			t.Errorf("%s: %v, want %v", c.text, got, [3]bool{c.given, c.null, c.isIn})
		}
	}
	e, err := ParseExpression("n IS NULL AND symbol = 'a'", keysOfTests)
	if err != nil || !e.Matches([]string{"a"}) {
		t.Errorf("a value that is missing is not null: %v", err)
	}
}

func TestExpressionRefusals(t *testing.T) {
	for text, want := range map[string]string{
		"venue = 'X'":            `at character 1: "venue" is not a partition key: want one of symbol, n, price`,
		"symbol = 'x":            "at character 10: a ' is not closed",
		"symbol":                 "at character 7: it ends where an operator",
		"symbol =":               "at character 9: it ends where a literal should stand",
		"symbol = 'x' 'y'":       `at character 14: "y" stands where AND, OR or the end should`,
		"symbol == 'x'":          `at character 9: "=" stands where a literal should`,
		"é = 1":                  `at character 1: "é" is not a partition key`,
		"symbol = 'é' ; n = 1":   `at character 14: ';' is no part of an expression`,
		"symbol > 5":             "at character 10: the key symbol is text, which has another order than numbers: put 5 into quotes",
		"symbol BETWEEN 1 AND 2": "at character 16: the key symbol is text",
		"n = 'nine'":             `at character 5: "nine" is no value of the key n, which has the type int: want a number`,
		"n = 1e3":                `at character 6: 'e' follows a number: put text into quotes`,
		"n = 1.2.3":              `"1.2.3" is not a number`,
		"n = n":                  "a key is compared with a literal, not with another key",
		"n = NULL":               "nothing compares with NULL: use IS NULL",
		"n LIKE '9%'":            "LIKE is for text, and the key n has the type int",
		"trade_date = 20261120":  `"20261120" is no value of the key trade_date, which has the type date: want a date as 2026-11-20`,
		"n = DATE '2026-11-20'":  "a date does not compare with the key n, which has the type int",
		"ratio = 0.5":            "the key ratio has the type double, whose values are not compared",
		"0.5 = ratio":            "the key ratio has the type double, whose values are not compared",
		"n IN ()":                `")" stands where a literal should`,
		"n IN (1":                "it ends where ) should stand",
		"n BETWEEN 1":            "it ends where AND should stand",
		"n IS 1":                 `"1" stands where NULL should`,
		"(n = 1":                 "it ends where ) should stand",
		"n = 1)":                 `")" stands where AND, OR or the end should`,
		"AND n = 1":              `"AND" is not a partition key`,
		"n = 1 AND":              "it ends where a partition key should stand",
		"1 = 1":                  "a comparison needs a partition key",
		"n NOT = 1":              `"=" stands where an operator`,
		strings.Repeat("(", 200) + "n = 1" + strings.Repeat(")", 200): "it is nested deeper than 100",
		strings.Repeat("NOT ", 200) + "n = 1":                         "it is nested deeper than 100",
		"n = 1 --" + strings.Repeat("é", 2041):                        "at character 2049: it has 2049 characters, the limit is 2048",
		"symbol = '\xff'":                                             "it is not valid UTF-8",
	} {
		_, err := ParseExpression(text, keysOfTests)
		var e *ExpressionError
		if !errors.As(err, &e) || !errors.Is(err, ErrExpression) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80s: %v, want … %s …", text, err, want)
		}
	}
	if _, err := ParseExpression("n = 1", nil); err == nil || !strings.Contains(err.Error(), "none, for the table has no partition keys") {
		t.Error(err)
	}
	if _, err := ParseExpression(strings.Repeat("n=1 OR ", 291)+"n=1", keysOfTests); err != nil {
		t.Error("an expression of nearly the limit:", err)
	}
}

// FuzzExpression holds that any text is either refused with a place within it or
// judged, that brackets change nothing, and that twice NOT is nothing.
func FuzzExpression(f *testing.F) {
	for _, s := range []string{"symbol = 'A' AND (n > 1 OR NOT price <= 0.1)", "trade_date BETWEEN '2026-01-01' AND DATE '2026-12-31'", "symbol NOT LIKE '%\\_' OR at IS NOT NULL", "n IN (1,2,'3')", "'x' <> `symbol`", "9 < n"} {
		f.Add(s, "AAPL", "9")
	}
	f.Fuzz(func(t *testing.T, text, a, b string) {
		if len(a)+len(b) > 2000 { // LIKE takes the product of the lengths
			return
		}
		values := []string{a, b, b, a, a, a, b, b}
		e, err := ParseExpression(text, keysOfTests)
		if err != nil {
			var x *ExpressionError
			if !errors.As(err, &x) || x.Character < 1 || x.Character > utf8.RuneCountInString(text)+1 {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		got := e.Matches(values)
		if strings.TrimSpace(text) == "" || len(text) > ExpressionCharactersMax-20 {
			return
		}
		for _, again := range []string{"(" + text + ")", "NOT NOT (" + text + ")"} {
			e, err := ParseExpression(again, keysOfTests)
			if err != nil {
				if strings.Contains(err.Error(), "nested deeper") {
					return
				}
				t.Fatalf("%q: %v", again, err)
			}
			if e.Matches(values) != got {
				t.Fatalf("%q: %v, but %q not", text, got, again)
			}
		}
	})
}
