package transform

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func records(data ...string) []Record {
	out := make([]Record, len(data))
	for i, d := range data {
		out[i] = Record{ID: fmt.Sprintf("id-%d", i), ArrivedAt: time.UnixMilli(1_764_200_000_123).UTC(), Data: []byte(d)}
	}
	return out
}

// newHTTP makes a transformer that does not wait between retries.
func newHTTP(t testing.TB, o HTTPOptions) *HTTP {
	t.Helper()
	if o.Retries == 0 {
		o.Retries = DefaultRetries
	}
	if o.Retries < 0 {
		o.Retries = 0
	}
	h, err := NewHTTP(o)
	if err != nil {
		t.Fatal(err)
	}
	h.pause = func(ctx context.Context, _ int) error { return context.Cause(ctx) }
	t.Cleanup(func() { _ = h.Close() })
	return h
}

func serve(t testing.TB, fn http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(fn)
	t.Cleanup(s.Close)
	return s.URL
}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// describe is a result in one line.
func describe(r Result) string {
	switch r.Kind {
	case Ok:
		s := "Ok " + string(r.Data)
		if r.Keys != nil {
			s += fmt.Sprintf(" %v", r.Keys)
		}
		if r.Database+r.Table+r.Operation != "" {
			s += " " + r.Database + "." + r.Table + " " + r.Operation
		}
		return s
	case Dropped:
		return "Dropped"
	}
	return r.Code + ": " + r.Message
}

func TestCallIsTheContracts(t *testing.T) {
	var got struct {
		InvocationID      string `json:"invocationId"`
		DeliveryStreamARN string `json:"deliveryStreamArn"`
		Region            string `json:"region"`
		Records           []struct {
			RecordID string `json:"recordId"`
			Arrived  int64  `json:"approximateArrivalTimestamp"`
			Data     []byte `json:"data"`
		} `json:"records"`
	}
	var header http.Header
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		header = r.Header
		d := json.NewDecoder(r.Body)
		d.DisallowUnknownFields()
		if err := d.Decode(&got); err != nil || r.Method != http.MethodPost {
			t.Error(r.Method, err)
		}
		_, _ = io.WriteString(w, `{"records":[]}`)
	})
	h := newHTTP(t, HTTPOptions{URL: url + "/2015-03-31/functions/function/invocations", StreamARN: `arn:aws:firehose:eu-west-1:1:deliverystream/a"b`, Region: "eu-west-1"})
	in := records("{\"a\":1}\n", "\x00\xff")
	if _, err := h.Apply(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	first := got.InvocationID
	if got.DeliveryStreamARN != h.o.StreamARN || got.Region != "eu-west-1" || len(got.Records) != 2 || len(first) != 36 {
		t.Fatalf("%+v", got)
	}
	for i, r := range got.Records {
		if r.RecordID != in[i].ID || string(r.Data) != string(in[i].Data) || r.Arrived != 1_764_200_000_123 {
			t.Errorf("record %d: %+v", i, r)
		}
	}
	for k, want := range map[string]string{"Content-Type": "application/json", "X-Amz-Invocation-Type": "RequestResponse", "Accept-Encoding": "", "Authorization": ""} {
		if header.Get(k) != want {
			t.Errorf("%s: %q, want %q", k, header.Get(k), want)
		}
	}
	if _, err := h.Apply(t.Context(), in); err != nil || got.InvocationID != first {
		t.Errorf("the same records were sent as %s and %s: %v", first, got.InvocationID, err)
	}
	if _, err := h.Apply(t.Context(), in[:1]); err != nil || got.InvocationID == first {
		t.Errorf("other records were sent as %s, too: %v", first, err)
	}
}

// TestAnswers holds the reading of whole answers: two records id-0 and id-1
// were sent.
func TestAnswers(t *testing.T) {
	ok := func(id, data string) string {
		return `{"recordId":"` + id + `","result":"Ok","data":"` + b64(data) + `"}`
	}
	missing, second := MissingRecordID+": the answer leaves the record out", ok("id-1", "second")
	for _, tc := range []struct{ name, answer, first, second string }{
		{"as sent", `{"records":[` + ok("id-0", "a") + `,` + second + `]}`, "Ok a", "Ok second"},
		{"another order", `{"records":[` + second + `,` + ok("id-0", "a") + `]}`, "Ok a", "Ok second"},
		{"white space, unknown members", " {\n\"x\":[{}], \"records\" : [ " + ok("id-0", "a") + " ,\t" + `{"y":{"z":1},"recordId":"id-1","result":"Dropped","data":null} ] } `, "Ok a", "Dropped"},
		{"dropped without data", `{"records":[{"recordId":"id-0","result":"Dropped"},` + second + `]}`, "Dropped", "Ok second"},
		{"processing failed", `{"records":[{"recordId":"id-0","result":"ProcessingFailed","data":"eA=="},` + second + `]}`, ProcessingFailedStatus + ": ", "Ok second"},
		{"empty data", `{"records":[{"recordId":"id-0","result":"Ok","data":""},` + second + `]}`, "Ok ", "Ok second"},
		{"escaped", `{"records":[{"recordId":"\u0069d-0","result":"\u004fk","data":"Pz8\/"},` + second + `]}`, "Ok ???", "Ok second"},
		{"base64 in lines", `{"records":[{"recordId":"id-0","result":"Ok","data":"YW\nJj\n"},` + second + `]}`, "Ok abc", "Ok second"},
		{"none", `{"records":[]}`, missing, missing},
		{"one left out", `{"records":[` + second + `]}`, missing, "Ok second"},
		{"unknown id", `{"records":[` + ok("id-2", "a") + `,` + second + `]}`, missing, "Ok second"},
		{"no id", `{"records":[{"result":"Ok","data":"eA=="},` + second + `]}`, missing, "Ok second"},
		{"id of another type", `{"records":[{"recordId":0,"result":"Ok","data":"eA=="},` + second + `]}`, missing, "Ok second"},
		{"no object", `{"records":[null,"id-0",` + second + `]}`, missing, "Ok second"},
		{"twice", `{"records":[` + ok("id-0", "a") + `,` + second + `,` + ok("id-0", "b") + `]}`, DuplicatedRecordID + ": ", "Ok second"},
		{"three times", `{"records":[` + ok("id-0", "a") + `,` + ok("id-0", "a") + `,` + ok("id-0", "a") + `]}`, DuplicatedRecordID + ": ", missing},
		{"no result", `{"records":[{"recordId":"id-0","data":"eA=="},` + second + `]}`, InvalidReturnFormat + ": result is missing", "Ok second"},
		{"result in lower case", `{"records":[{"recordId":"id-0","result":"ok","data":"eA=="},` + second + `]}`, InvalidReturnFormat + `: result is "ok"`, "Ok second"},
		{"member in upper case", `{"records":[{"recordId":"id-0","Result":"Ok","data":"eA=="},` + second + `]}`, InvalidReturnFormat + ": result is missing", "Ok second"},
		{"no data", `{"records":[{"recordId":"id-0","result":"Ok"},` + second + `]}`, InvalidReturnFormat + ": result is Ok, and data", "Ok second"},
		{"data null", `{"records":[{"recordId":"id-0","result":"Ok","data":null},` + second + `]}`, InvalidReturnFormat + ": result is Ok, and data", "Ok second"},
		{"data no base64", `{"records":[{"recordId":"id-0","result":"Ok","data":"{}"},` + second + `]}`, InvalidReturnFormat + ": data is not base64", "Ok second"},
		{"data without padding", `{"records":[{"recordId":"id-0","result":"Ok","data":"eA"},` + second + `]}`, InvalidReturnFormat + ": data is not base64", "Ok second"},
		{"null", `null`, InvalidReturnFormat + ": the answer is not the contract's JSON", InvalidReturnFormat + ": "},
		{"array", `[]`, InvalidReturnFormat + ": ", InvalidReturnFormat + ": "},
		{"empty", ``, InvalidReturnFormat + ": ", InvalidReturnFormat + ": "},
		{"HTML", `<html>`, InvalidReturnFormat + ": ", InvalidReturnFormat + ": "},
		{"no records", `{"Records":[]}`, InvalidReturnFormat + ": the answer lacks the array", InvalidReturnFormat + ": "},
		{"records null", `{"records":null}`, InvalidReturnFormat + ": ", InvalidReturnFormat + ": "},
		{"records twice", `{"records":[` + second + `],"records":[]}`, InvalidReturnFormat + ": ", InvalidReturnFormat + ": "},
		{"torn", `{"records":[` + ok("id-0", "a") + `,` + second, InvalidReturnFormat + ": ", InvalidReturnFormat + ": "},
		{"something behind", `{"records":[` + ok("id-0", "a") + `,` + second + `]}x`, InvalidReturnFormat + ": ", InvalidReturnFormat + ": "},
		{"too deep", `{"x":` + strings.Repeat("[", 1e6), InvalidReturnFormat + ": ", InvalidReturnFormat + ": "},
		{"an error beside records", `{"errorMessage":"x","records":[` + ok("id-0", "a") + `,` + second + `]}`, "Ok a", "Ok second"},
	} {
		var calls atomic.Int32
		url := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			calls.Add(1)
			_, _ = io.WriteString(w, tc.answer)
		})
		got, err := newHTTP(t, HTTPOptions{URL: url}).Apply(t.Context(), records("1", "2"))
		if err != nil || len(got) != 2 {
			t.Errorf("%s: %v %v", tc.name, got, err)
			continue
		}
		for i, want := range []string{tc.first, tc.second} {
			d := describe(got[i])
			if d != want && (got[i].Kind != Failed || !strings.HasPrefix(d, want)) {
				t.Errorf("%s: record %d is %s, want %s", tc.name, i, d, want)
			}
			if got[i].Attempts != 1 {
				t.Errorf("%s: %d attempts", tc.name, got[i].Attempts)
			}
		}
		if calls.Load() != 1 {
			t.Errorf("%s: called %d times: an answer that came is not asked for again", tc.name, calls.Load())
		}
	}
}

func TestMetadata(t *testing.T) {
	many := make([]string, keysMax+1)
	for i := range many {
		many[i] = fmt.Sprintf(`"k%d":"v"`, i)
	}
	for _, tc := range []struct{ metadata, want string }{
		{`null`, "Ok x"},
		{`{}`, "Ok x"},
		{`{"partitionKeys":null,"otfMetadata":null,"other":[1]}`, "Ok x"},
		{`{"partitionKeys":{}}`, "Ok x"},
		{`{"partitionKeys":{"venue":"X\u004eAS","date":"2026/11/27"}}`, "Ok x map[date:2026/11/27 venue:XNAS]"},
		{`{"otfMetadata":{"destinationDatabaseName":"d","destinationTableName":"t","operation":"update","more":1}}`, "Ok x d.t update"},
		{`{"otfMetadata":{"destinationTableName":"t"},"partitionKeys":{"a":""}}`, "Ok x map[a:] .t "},
		{`{"otfMetadata":{"operation":null}}`, "Ok x"},
		{`[]`, InvalidReturnFormat + ": metadata is no object"},
		{`"x"`, InvalidReturnFormat + ": metadata is no object"},
		{`{"partitionKeys":[]}`, InvalidReturnFormat + ": metadata.partitionKeys is no object"},
		{`{"partitionKeys":{"a":1}}`, InvalidReturnFormat + ": metadata.partitionKeys.a must be a string"},
		{`{"partitionKeys":{"a":null}}`, InvalidReturnFormat + ": metadata.partitionKeys.a must be a string"},
		{`{"partitionKeys":{` + strings.Join(many, ",") + `}}`, InvalidReturnFormat + ": metadata.partitionKeys has more than 50 keys"},
		{`{"otfMetadata":{"destinationTableName":7}}`, InvalidReturnFormat + ": metadata.otfMetadata.destinationTableName must be a string"},
		{`{"otfMetadata":{"operation":"INSERT"}}`, InvalidReturnFormat + `: metadata.otfMetadata.operation is "INSERT": it must be insert, update or delete`},
	} {
		url := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = fmt.Fprintf(w, `{"records":[{"recordId":"id-0","result":"Ok","data":"eA==","metadata":%s}]}`, tc.metadata)
		})
		got, err := newHTTP(t, HTTPOptions{URL: url}).Apply(t.Context(), records("1"))
		if err != nil || describe(got[0]) != tc.want {
			t.Errorf("%s: %s %v, want %s", tc.metadata, describe(got[0]), err, tc.want)
		}
	}
}

// echo answers Ok with the data that came.
func echo(w http.ResponseWriter, r *http.Request) {
	var call struct {
		Records []map[string]any `json:"records"`
	}
	if err := json.NewDecoder(r.Body).Decode(&call); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	for _, x := range call.Records {
		delete(x, "approximateArrivalTimestamp")
		x["result"] = "Ok"
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"records": call.Records})
}

// TestFailedCalls breaks the first calls in one way each and counts them.
func TestFailedCalls(t *testing.T) {
	hijack := func(w http.ResponseWriter, text string) {
		c, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = rw.WriteString(text)
		_ = rw.Flush()
		if text == "" {
			_ = c.(*net.TCPConn).SetLinger(0) // a reset
		}
		_ = c.Close()
	}
	status := func(code int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(code)
			_, _ = io.WriteString(w, body)
		}
	}
	for _, tc := range []struct {
		name    string
		fault   http.HandlerFunc
		retried bool
		message string
	}{
		{"500", status(500, ""), true, "the function answered 500 Internal Server Error"},
		{"502 with an error", status(502, `{"errorMessage":"out of memory","errorType":"Runtime.Exit"}`), true, `answered 502 Bad Gateway: "Runtime.Exit: out of memory"`},
		{"503 with records", status(503, `{"records":[]}`), true, "answered 503"},
		{"429", status(429, ""), true, "answered 429 Too Many Requests"},
		{"busy runtime", status(400, ""), true, "answered 400 Bad Request"},
		{"400", status(400, "{}"), false, "answered 400 Bad Request"},
		{"403", status(403, `{"errorMessage":"no"}`), false, `answered 403 Forbidden: "no"`},
		{"404", status(404, "nothing"), false, "answered 404 Not Found"},
		{"redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		}, false, "answered 307, and redirects are not followed"},
		{"error header", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Amz-Function-Error", "Unhandled")
			_, _ = io.WriteString(w, `{"errorMessage":"division by zero","errorType":"ZeroDivisionError","stackTrace":[]}`)
		}, true, `the function failed ("Unhandled"): "ZeroDivisionError: division by zero"`},
		{"error header over records", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Amz-Function-Error", "Handled")
			_, _ = io.WriteString(w, `{"records":[]}`)
		}, true, `the function failed ("Handled")`},
		{"error body", status(200, `{"errorMessage":"x","errorType":"E","stackTrace":["a"]}`), true, `the function failed: "E: x"`},
		{"long error", status(200, `{"errorMessage":"`+strings.Repeat("x", 10_000)+`"}`), true, `x"…`},
		{"the runtime's time-out", status(200, `Task timed out after 3.00 seconds`), true, `"Task timed out after 3.00 seconds"`},
		{"reset", func(w http.ResponseWriter, _ *http.Request) { hijack(w, "") }, true, "the call failed: "},
		{"no HTTP", func(w http.ResponseWriter, _ *http.Request) { hijack(w, "hello\r\n\r\n") }, true, "the call failed: "},
		{"torn body", func(w http.ResponseWriter, _ *http.Request) {
			hijack(w, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"records\"")
		}, true, "the call failed: unexpected EOF"},
		{"huge headers", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X", strings.Repeat("x", 2*headerBytesMax))
		}, true, "the call failed: "},
		{"large answer, told", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(callBytesMax+1))
			w.WriteHeader(200)
		}, true, "the answer is larger than 6291456 bytes"},
		{"large answer, endless", func(w http.ResponseWriter, _ *http.Request) {
			b := []byte(strings.Repeat(" ", 1<<16))
			for {
				if _, err := w.Write(b); err != nil {
					return
				}
			}
		}, true, "the answer is larger than 6291456 bytes"},
		{"gzip", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = io.WriteString(w, "\x1f\x8b")
		}, true, `the answer is encoded as "gzip"`},
		{"silence", func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
		}, true, "the function did not answer within "},
		{"a drip of bytes", func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			for r.Context().Err() == nil {
				_, _ = io.WriteString(w, " ")
				w.(http.Flusher).Flush()
				time.Sleep(10 * time.Millisecond)
			}
		}, true, "the function did not answer within "},
	} {
		for _, failures := range []int32{1, 4} {
			var calls, elsewhere atomic.Int32
			url := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/elsewhere" {
					elsewhere.Add(1)
				}
				if calls.Add(1) <= failures {
					tc.fault(w, r)
					return
				}
				echo(w, r)
			})
			timeout := time.Minute
			if strings.Contains(tc.message, "did not answer") {
				timeout = 100 * time.Millisecond
				if failures == 1 {
					timeout = 2 * time.Second // the second call is answered, if slowly
				}
			}
			got, err := newHTTP(t, HTTPOptions{URL: url + "/2015-03-31/functions/f/invocations", Timeout: timeout}).Apply(t.Context(), records("a", "b"))
			if err != nil {
				t.Errorf("%s: %v", tc.name, err)
				continue
			}
			want, kind := failures+1, Ok
			if !tc.retried {
				want, kind = 1, Failed
			} else if failures == 4 {
				want, kind = 4, Failed
			}
			for i, r := range got {
				if r.Kind != kind || r.Attempts != int(want) {
					t.Errorf("%s, %d times: record %d is %s after %d attempts, want %d", tc.name, failures, i, describe(r), r.Attempts, want)
				}
				if kind == Failed && (r.Code != FunctionError || !strings.Contains(r.Message, tc.message)) {
					t.Errorf("%s: %s, want %s", tc.name, describe(r), tc.message)
				}
			}
			if calls.Load() != want || elsewhere.Load() != 0 {
				t.Errorf("%s, %d times: %d calls, want %d", tc.name, failures, calls.Load(), want)
			}
		}
	}
}

func TestRetriesAreConfigured(t *testing.T) {
	var calls atomic.Int32
	url := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		calls.Add(1)
		w.WriteHeader(500)
	})
	for retries, want := range map[int]int32{-1: 1, 1: 2, MaxRetries: MaxRetries + 1} {
		calls.Store(0)
		got, err := newHTTP(t, HTTPOptions{URL: url, Retries: retries}).Apply(t.Context(), records("a"))
		if err != nil || calls.Load() != want || got[0].Attempts != int(want) {
			t.Errorf("%d retries: %d calls, %v %v", retries, calls.Load(), got, err)
		}
	}
}

func TestPauseGrowsAndIsBounded(t *testing.T) {
	for retry, want := range map[int]time.Duration{1: backoffBase, 2: 2 * backoffBase, 4: 8 * backoffBase, 8: backoffMax, 9: backoffMax, MaxRetries: backoffMax} {
		if got := pauseMax(retry); got != want {
			t.Errorf("retry %d: %s, want %s", retry, got, want)
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(ErrClosed)
	if err := pause(ctx, MaxRetries); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

func TestNoServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + l.Addr().String()
	_ = l.Close()
	got, err := newHTTP(t, HTTPOptions{URL: url}).Apply(t.Context(), records("a"))
	if err != nil || got[0].Code != FunctionError || got[0].Attempts != 4 || strings.Contains(got[0].Message, url) {
		t.Errorf("%+v %v", got, err)
	}
}

func TestCancelAndClose(t *testing.T) {
	arrived := make(chan struct{}, 10)
	url := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		arrived <- struct{}{}
		<-r.Context().Done()
	})
	h := newHTTP(t, HTTPOptions{URL: url})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	apply := func(ctx context.Context) {
		got, err := h.Apply(ctx, records("a"))
		if got != nil {
			t.Errorf("results beside an error: %v", got)
		}
		done <- err
	}
	go apply(ctx)
	<-arrived
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	go apply(short)
	if err := <-done; !errors.Is(err, context.DeadlineExceeded) {
		t.Error("the caller's deadline is no failure of the function:", err)
	}
	for len(arrived) > 0 {
		<-arrived
	}
	go apply(t.Context())
	go apply(t.Context())
	<-arrived
	<-arrived
	closed := make(chan struct{})
	go func() { _ = h.Close(); close(closed) }()
	for range 2 {
		if err := <-done; !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	}
	<-closed
	if _, err := h.Apply(t.Context(), records("a")); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if err := h.Close(); err != nil {
		t.Error(err)
	}
}

func TestCallsAreCutToSize(t *testing.T) {
	var sizes []int
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		sizes = append(sizes, int(r.ContentLength))
		echo(w, r)
	})
	h := newHTTP(t, HTTPOptions{URL: url})
	// Many small records: their envelope is most of the call.
	in := make([]Record, 90_000)
	for i := range in {
		in[i] = Record{ID: fmt.Sprintf("%062d", i), Data: []byte(`{}`)}
	}
	got, err := h.Apply(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	if len(sizes) < 2 {
		t.Fatalf("calls of %v bytes", sizes)
	}
	for _, n := range sizes {
		if n > callBytesMax {
			t.Errorf("a call of %d bytes", n)
		}
	}
	for i, r := range got {
		if r.Kind != Ok || string(r.Data) != "{}" {
			t.Fatalf("record %d: %s", i, describe(r))
		}
	}
	// The largest record fits, one that cannot fails alone.
	sizes = nil
	big := []Record{{ID: "a", Data: make([]byte, MaxRecordBytes)}, {ID: "b", Data: make([]byte, callBytesMax)}, {ID: "c", Data: []byte("x")}}
	got, err = h.Apply(t.Context(), big)
	if err != nil || got[0].Kind != Ok || got[1].Code != FunctionError || got[1].Attempts != 0 || got[2].Kind != Ok || len(sizes) != 2 {
		t.Errorf("%v %v in calls of %v bytes", describe(got[1]), err, sizes)
	}
	if got, err := h.Apply(t.Context(), nil); err != nil || len(got) != 0 {
		t.Error(got, err)
	}
	if _, err := h.Apply(t.Context(), []Record{{ID: "a"}, {ID: "a"}}); !errors.Is(err, errDuplicateID) {
		t.Error(err)
	}
}

func TestTLSIsVerified(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(echo))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	got, err := newHTTP(t, HTTPOptions{URL: s.URL, Retries: -1}).Apply(t.Context(), records("a"))
	if err != nil || got[0].Code != FunctionError || !strings.Contains(got[0].Message, "certificate") {
		t.Errorf("%v %v", got, err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err = newHTTP(t, HTTPOptions{URL: s.URL, RootCAs: pool, TokenFile: token}).Apply(t.Context(), records("a"))
	if err != nil || describe(got[0]) != "Ok a" {
		t.Errorf("%v %v", got, err)
	}
}

func TestTokenIsReadAnew(t *testing.T) {
	var got string
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		got = r.Header.Get("Authorization")
		echo(w, r)
	})
	token := filepath.Join(t.TempDir(), "token")
	write := func(s string) {
		if err := os.WriteFile(token, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("one")
	h := newHTTP(t, HTTPOptions{URL: url, TokenFile: token})
	for _, tc := range [][2]string{{"one", "one"}, {"two\n", "two"}, {"", "two"}, {"a b", "two"}, {strings.Repeat("x", tokenBytesMax+1), "two"}, {"three", "three"}} {
		write(tc[0])
		if _, err := h.Apply(t.Context(), records("a")); err != nil || got != "Bearer "+tc[1] {
			t.Errorf("%q: sent %q, %v", tc[0], got, err)
		}
	}
}

func TestHTTPOptionsAreChecked(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("x y"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, o := range map[string]HTTPOptions{
		"cannot be read":                {URL: "http://[::1"},
		"must be http or https":         {URL: "file:///etc/passwd"},
		"a host":                        {URL: "http:///x"},
		"no fragment":                   {URL: "http://a/#x"},
		"carries credentials":           {URL: "https://user:pass@a/"},
		"want 0 to 300":                 {URL: "http://a/", Retries: 301},
		"-1 retries":                    {URL: "http://a/", Retries: -1},
		"time-out":                      {URL: "http://a/", Timeout: time.Hour},
		"want at most 3145728":          {URL: "http://a/", BatchBytesMax: MaxBatchBytes + 1},
		"unencrypted":                   {URL: "http://a/", TokenFile: token},
		"one word":                      {URL: "https://a/", TokenFile: token},
		"no such file":                  {URL: "http://localhost/", TokenFile: token + "x"},
		`"gopher://a" must be http or `: {URL: "gopher://a"},
	} {
		_, err := NewHTTP(o)
		if !errors.Is(err, ErrOptions) || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %s", o, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "pass") && strings.Contains(o.URL, "user") {
			t.Errorf("the error shows a password: %v", err)
		}
	}
	h, err := NewHTTP(HTTPOptions{URL: "http://a/"})
	if err != nil || h.BatchBytesMax() != DefaultBatchBytes || h.o.Timeout != DefaultTimeout || h.o.Retries != 0 {
		t.Errorf("%+v %v", h, err)
	}
}

func TestMetricsOfCalls(t *testing.T) {
	reg := prometheus.NewRegistry()
	m, err := NewMetrics(reg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewMetrics(reg); err == nil {
		t.Error("metrics were registered twice")
	}
	var calls atomic.Int32
	url := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		if calls.Add(1) == 1 {
			w.WriteHeader(500)
			return
		}
		_, _ = io.WriteString(w, `{"records":[{"recordId":"id-0","result":"Ok","data":"eHg="},{"recordId":"id-1","result":"Dropped"},{"recordId":"nobody","result":"Dropped"}]}`)
	})
	if _, err := newHTTP(t, HTTPOptions{URL: url, Metrics: m, Stream: "s"}).Apply(t.Context(), records("1", "2", "3")); err != nil {
		t.Fatal(err)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, x := range f.GetMetric() {
			name := strings.TrimPrefix(strings.TrimPrefix(f.GetName(), "tapehouse_transform_"), "tapehouse_firehose_")
			for _, l := range x.GetLabel() {
				name += " " + l.GetValue()
			}
			got[name] = x.GetCounter().GetValue() + float64(x.GetHistogram().GetSampleCount()+x.GetSummary().GetSampleCount())
		}
	}
	want := map[string]float64{"bytes_total s": 2, "calls_total error s": 1, "calls_total ok s": 1, "records_total dropped s": 1, "records_total failed s": 1,
		"records_total ok s": 1, "seconds s": 2, "unknown_records_total s": 1,
		"execute_processing_attempts_total s": 2, "execute_processing_success_total s": 1, "execute_processing_duration_seconds s": 2}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// A hostile answer costs no more memory than its bound allows.
func TestAnswerMemoryIsBounded(t *testing.T) {
	element := `{"recordId":"id-0","result":"Ok","data":"` + strings.Repeat("QUJD", 1000) + `"},`
	body := []byte(`{"records":[` + strings.Repeat(element, callBytesMax/len(element)-1) + `null]}`)
	in, results := records("a"), make([]Result, 1)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	decodeAnswer(body, in, results)
	runtime.ReadMemStats(&after)
	if results[0].Code != DuplicatedRecordID {
		t.Error(describe(results[0]))
	}
	if n := after.TotalAlloc - before.TotalAlloc; n > 2*callBytesMax {
		t.Errorf("%d bytes allocated for an answer of %d", n, len(body))
	}
}

// FuzzDecodeAnswer holds the scanner to encoding/json, and the results to the
// rule that every record has one.
func FuzzDecodeAnswer(f *testing.F) {
	for _, s := range []string{
		`{"records":[{"recordId":"id-0","result":"Ok","data":"eA==","metadata":{"partitionKeys":{"a":"b"},"otfMetadata":{"operation":"insert"}}},{"recordId":"id-1","result":"Dropped"}]}`,
		`{"records":[{"recordId":"id-1","result":"ProcessingFailed","data":"\u0041"}]}`, `{"errorMessage":"x","errorType":"y"}`, `null`, `{"records":[[1e5,-0.1,true,null,"\ud800"]]}`, "{\"records\":[\"\xff\"]}",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		in := records("a", "b")
		results := make([]Result, 2)
		strays, said := decodeAnswer(body, in, results)
		again := make([]Result, 2)
		if n, _ := decodeAnswer(body, in, again); n != strays || said == nil && !reflect.DeepEqual(results, again) {
			t.Fatal("decoded twice, it differs")
		}
		var oracle map[string]json.RawMessage
		valid := json.Unmarshal(body, &oracle) == nil && oracle != nil
		if said != nil {
			if !valid {
				t.Fatalf("an error read from what is no object: %v", said)
			}
			return
		}
		for i, r := range results {
			switch r.Kind {
			case Ok:
				if !valid || r.Data == nil {
					t.Fatalf("record %d is Ok, from %q", i, body)
				}
			case Failed:
				if r.Code == "" || r.Message == "" {
					t.Fatalf("record %d fails without a reason: %+v", i, r)
				}
			case Dropped:
				if !valid {
					t.Fatalf("record %d is dropped, from %q", i, body)
				}
			default:
				t.Fatalf("%+v", r)
			}
		}
	})
}

// FuzzScanner: what the scanner takes for JSON is what encoding/json takes.
func FuzzScanner(f *testing.F) {
	for _, s := range []string{`{"a":[1,2.5e-3,"\u00e9\n",null,true,false,{}]}`, `[01]`, `-`, `"\x"`, `{"a":1,}`, "\"\x1f\"", `[[[[]]]]`, ` 1 `, `1 2`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if strings.Count(string(b), "[")+strings.Count(string(b), "{") >= depthMax {
			return
		}
		s := &scanner{b: b}
		s.space()
		if got, want := s.skip(1) && s.end(), json.Valid(b); got != want {
			t.Fatalf("%q: %t, want %t", b, got, want)
		}
	})
}

// Concurrent Applies share a transformer; each record gets its own answer.
func TestConcurrentCalls(t *testing.T) {
	h := newHTTP(t, HTTPOptions{URL: serve(t, echo)})
	var group sync.WaitGroup
	for g := range 8 {
		group.Go(func() {
			for n := range 10 {
				in := records(fmt.Sprint(g), fmt.Sprint(n), "x")
				got, err := h.Apply(t.Context(), in)
				if err != nil {
					t.Error(err)
					return
				}
				for i := range in {
					if string(got[i].Data) != string(in[i].Data) {
						t.Errorf("%s for %s", describe(got[i]), in[i].Data)
					}
				}
			}
		})
	}
	group.Wait()
}

func BenchmarkAnswer(b *testing.B) {
	in := tradeBatch(3300)
	var body bytes.Buffer
	body.WriteString(`{"records":[`)
	size := 0
	for i := range in {
		if i > 0 {
			body.WriteByte(',')
		}
		size += len(in[i].Data)
		_, _ = fmt.Fprintf(&body, `{"recordId":"%s","result":"Ok","data":"%s"}`, in[i].ID, base64.StdEncoding.EncodeToString(in[i].Data))
	}
	body.WriteString(`]}`)
	results := make([]Result, len(in))
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for b.Loop() {
		decodeAnswer(body.Bytes(), in, results)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(in)), "ns/record")
}

func BenchmarkCall(b *testing.B) {
	in := tradeBatch(3300)
	c := call{"arn:aws:firehose:us-east-1:000000000000:deliverystream/trades", "us-east-1"}
	b.ReportAllocs()
	for b.Loop() {
		c.body(in)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(in)), "ns/record")
}
