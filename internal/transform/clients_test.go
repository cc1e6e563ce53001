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
	"strings"
	"sync"
	"testing"
	"time"
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

// TestRuntimeEmulator calls a function in AWS's own runtime interface emulator:
//
//	go install github.com/aws/aws-lambda-runtime-interface-emulator/cmd/aws-lambda-rie@latest
func TestRuntimeEmulator(t *testing.T) {
	emulator, err := exec.LookPath("aws-lambda-rie")
	if err != nil {
		t.Skip("SKIPPED: aws-lambda-rie is not installed")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	address := freeAddress(t)
	ctx, cancel := context.WithCancel(t.Context())
	cmd := exec.CommandContext(ctx, emulator, "--runtime-interface-emulator-address", address, "--runtime-api-address", freeAddress(t), self)
	cmd.Env = append(os.Environ(), bootstrapEnv+"=1", "AWS_LAMBDA_FUNCTION_TIMEOUT=2")
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 5 * time.Second
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cancel()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("the emulator said:\n%s", output.String())
		}
	}()
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
	h := newHTTP(t, HTTPOptions{URL: "http://" + address + "/2015-03-31/functions/function/invocations", Retries: 1})
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
