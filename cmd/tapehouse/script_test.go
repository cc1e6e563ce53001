package main

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
)

// tookRE is what differs from run to run.
var tookRE = regexp.MustCompile(`in \d+\.\d s`)

// TestScript runs the program without its process: help, usage errors and exit
// codes are an interface, so they are held exactly.
func TestScript(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("s3.yaml", []byte("lake: {url: 's3://lake/tape'}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var long []string
	datadriven.RunTest(t, scriptPath, func(t *testing.T, d *datadriven.TestData) string {
		if d.Cmd != "run" {
			t.Fatalf("%s: unknown directive", d.Pos)
		}
		var out, errs bytes.Buffer
		code := run(t.Context(), strings.Fields(d.Input), strings.NewReader(""), &out, &errs)
		text := out.String()
		if errs.Len() > 0 {
			text += "stderr:\n" + errs.String()
		}
		text += fmt.Sprintf("exit %d\n", code)
		for line := range strings.Lines(out.String()) {
			if strings.Contains(d.Input, "--help") && !strings.HasPrefix(d.Input, "bench") && len([]rune(strings.TrimRight(line, "\n"))) > 84 {
				long = append(long, d.Pos+": "+line)
			}
		}
		return tookRE.ReplaceAllString(text, "in … s")
	})
	for _, line := range long {
		t.Errorf("a line of help is too long: %s", line)
	}
}
