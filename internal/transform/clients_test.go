package transform

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tapehouse/tapehouse/internal/readertest"
)

// bootstrapEnv makes the test binary a Lambda function's custom runtime.
const bootstrapEnv = "TAPEHOUSE_TEST_LAMBDA_BOOTSTRAP"

func TestMain(m *testing.M) {
	if os.Getenv(bootstrapEnv) != "" {
		if err := bootstrap("http://" + os.Getenv("AWS_LAMBDA_RUNTIME_API") + "/2018-06-01/runtime/invocation/"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// bootstrap answers a runtime's invocations: records pass, unless their data
// ask for something else.
func bootstrap(api string) error {
	for {
		next, err := http.Get(api + "next")
		if err != nil {
			return err
		}
		var call struct {
			Records []struct {
				ID   string `json:"recordId"`
				Data []byte `json:"data"`
			} `json:"records"`
		}
		err = json.NewDecoder(next.Body).Decode(&call)
		_ = next.Body.Close()
		if err != nil {
			return err
		}
		path, answer := "/response", map[string]any{}
		var out []any
		for _, r := range call.Records {
			x := map[string]any{"recordId": r.ID, "result": "Ok", "data": bytes.ToUpper(r.Data), "metadata": map[string]any{"partitionKeys": map[string]string{"k": "v"}}}
			switch string(r.Data) {
			case "drop":
				x = map[string]any{"recordId": r.ID, "result": "Dropped"}
			case "fail":
				x = map[string]any{"recordId": r.ID, "result": "ProcessingFailed", "data": r.Data}
			case "raise":
				path, answer = "/error", map[string]any{"errorMessage": "it was asked for", "errorType": "Asked"}
			case "sleep":
				time.Sleep(10 * time.Second)
			}
			out = append(out, x)
		}
		if path == "/response" {
			answer["records"] = out
		}
		body, err := json.Marshal(answer)
		if err != nil {
			return err
		}
		done, err := http.Post(api+next.Header.Get("Lambda-Runtime-Aws-Request-Id")+path, "application/json", bytes.NewReader(body))
		if err != nil {
			return err
		}
		_ = done.Body.Close()
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// emulate runs a function in AWS's own runtime interface emulator, and returns
// its URL:
//
//	go install github.com/aws/aws-lambda-runtime-interface-emulator/cmd/aws-lambda-rie@latest
func emulate(t *testing.T, env []string, command ...string) string {
	t.Helper()
	emulator, err := exec.LookPath("aws-lambda-rie")
	if err != nil {
		t.Skip("SKIPPED: aws-lambda-rie is not installed")
	}
	address := freeAddress(t)
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, emulator, append([]string{"--runtime-interface-emulator-address", address, "--runtime-api-address", freeAddress(t)}, command...)...)
	cmd.Env = append(append(os.Environ(), "AWS_LAMBDA_FUNCTION_TIMEOUT=2"), env...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 5 * time.Second
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("the emulator said:\n%s", output.String())
		}
	})
	for start := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", address)
		if err == nil {
			_ = c.Close()
			break
		}
		if time.Since(start) > 20*time.Second {
			t.Fatal(err)
		}
	}
	return "http://" + address + "/2015-03-31/functions/function/invocations"
}

// pythonFunction is a transformation as people write them for Data Firehose.
const pythonFunction = `
import base64, json
def handler(event, context):
    out = []
    for r in event["records"]:
        data = json.loads(base64.b64decode(r["data"]))
        if data.get("drop"):
            out.append({"recordId": r["recordId"], "result": "Dropped", "data": r["data"]})
            continue
        data["stream"] = event["deliveryStreamArn"].rsplit("/", 1)[-1]
        data["arrived"] = r["approximateArrivalTimestamp"] > 0
        out.append({"recordId": r["recordId"], "result": "Ok", "data": base64.b64encode(json.dumps(data).encode()).decode("utf-8"),
                    "metadata": {"partitionKeys": {"symbol": data["symbol"]}}})
    return {"records": out}
`

// TestPythonFunction calls a Python function as Lambda runs it: by AWS's client of
// the runtime interface.
func TestPythonFunction(t *testing.T) {
	python := os.Getenv(readertest.PythonEnv)
	if python == "" || exec.Command(python, "-c", "import awslambdaric").Run() != nil {
		t.Skipf("SKIPPED: %s does not name a Python with awslambdaric: no Python function was called", readertest.PythonEnv)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "app.py"), []byte(pythonFunction), 0o600); err != nil {
		t.Fatal(err)
	}
	url := emulate(t, []string{"PYTHONPATH=" + dir}, python, "-m", "awslambdaric", "app.handler")
	h := newHTTP(t, HTTPOptions{URL: url, Retries: 1, StreamARN: "arn:aws:firehose:us-east-1:000000000000:deliverystream/trades", Region: "us-east-1"})
	in := records(`{"symbol":"ACME","price":"12.5000"}`, `{"symbol":"X","drop":true}`, `{"symbol":"naïve"}`)
	for i := range in {
		in[i].ArrivedAt = time.UnixMilli(1_795_787_939_464)
	}
	got, err := h.Apply(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{`Ok {"symbol": "ACME", "price": "12.5000", "stream": "trades", "arrived": true} map[symbol:ACME]`, "Dropped",
		`Ok {"symbol": "na\u00efve", "stream": "trades", "arrived": true} map[symbol:naïve]`}
	for i, r := range got {
		if d := describe(r); d != want[i] {
			t.Errorf("record %d: %s, want %s", i, d, want[i])
		}
	}
	// A function that raises: its words reach the error output.
	if got, err = h.Apply(t.Context(), records(`no JSON`)); err != nil || got[0].Kind != Failed || !strings.Contains(got[0].Message, "JSONDecodeError") {
		t.Errorf("%v %v", got, err)
	}
}

func TestRuntimeEmulator(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	h := newHTTP(t, HTTPOptions{URL: emulate(t, []string{bootstrapEnv + "=1"}, self), Retries: 1})
	check := func(in []Record, want ...string) {
		t.Helper()
		got, err := h.Apply(t.Context(), in)
		if err != nil || len(got) != len(want) {
			t.Errorf("%v %v", got, err)
			return
		}
		for i, r := range got {
			if d := describe(r); d != want[i] && (r.Kind != Failed || !strings.HasPrefix(d, want[i])) {
				t.Errorf("record %d: %s, want %s", i, d, want[i])
			}
		}
	}
	check(records("a\n", "drop", "fail"), "Ok A\n map[k:v]", "Dropped", ProcessingFailedStatus)
	check(records("b", "raise"), FunctionError+`: the function failed: "Asked: it was asked for"`, FunctionError)
	// One runtime takes one call at a time; concurrent ones take turns.
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() { check(records("x"), "Ok X map[k:v]") })
	}
	group.Wait()
	big := make([]Record, 20)
	want := make([]string, len(big))
	for i := range big {
		big[i] = Record{ID: fmt.Sprint(i), Data: bytes.Repeat([]byte("x"), 100_000)}
		want[i] = "Ok " + strings.Repeat("X", 100_000) + " map[k:v]"
	}
	check(big, want...)
	h.o.Retries = 0
	check(records("sleep"), FunctionError+`: the function failed: "Task timed out after 2.00 seconds"`)
}
