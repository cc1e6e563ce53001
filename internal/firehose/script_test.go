package firehose

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/tapehouse/tapehouse/internal/awsapi"
)

// TestScripts runs testdata/*.script: each command is an operation, its input
// a body, its output the answer or the error.
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		if !strings.HasSuffix(path, ".script") {
			return
		}
		h, _ := newHandler(t, newFake())
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			out, err := call(t, h, d.Cmd, d.Input)
			var e *awsapi.Error
			switch {
			case errors.As(err, &e):
				return e.Error() + "\n"
			case err != nil:
				t.Fatal(err)
			case out == "":
				return "ok\n"
			}
			var b bytes.Buffer
			if err := json.Indent(&b, []byte(out), "", "  "); err != nil {
				t.Fatal(err)
			}
			return b.String() + "\n"
		})
	})
}
