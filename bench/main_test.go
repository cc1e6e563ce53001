package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestLogBesideNATS(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), []string{"log", "--seconds", "1", "--runs", "1", "--dir", t.TempDir()}, &out); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if !strings.Contains(out.String(), ": ratio ") {
		t.Error(out.String())
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{nil, {"nonsense"}, {"log", "--nonsense"}} {
		if err := run(t.Context(), args, &bytes.Buffer{}); err == nil {
			t.Errorf("%q: no error", args)
		}
	}
}
