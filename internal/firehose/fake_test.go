package firehose

import (
	"context"
	"io"
	"log/slog"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	_ "time/tzdata" // as in the programs

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapehouse/tapehouse/internal/auth"
	"github.com/tapehouse/tapehouse/internal/awsapi"
	"github.com/tapehouse/tapehouse/internal/record"
)

var testKey = auth.AccessKey{Name: "test", ID: "AKIATESTTESTTESTTEST", Secret: "a secret of the test, long enough", Policy: auth.Administrator}

// fakeStreams keeps streams and documents in memory. It is the model of what
// the front door may expect of Streams.
type fakeStreams struct {
	mu        sync.Mutex
	streams   map[record.StreamName]*fakeStream
	max       int
	putErr    error                 // returned by Put
	updateErr error                 // returned by Update
	failing   func(doc []byte) bool // documents that are not stored
}

type fakeStream struct {
	info StreamInfo
	key  record.Key
	docs []string
}

func newFake() *fakeStreams {
	return &fakeStreams{streams: map[record.StreamName]*fakeStream{}, max: 100}
}

func (f *fakeStreams) Create(_ context.Context, c StreamConfig) (StreamInfo, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.streams[c.Name] != nil {
		return StreamInfo{}, ErrInUse
	}
	if len(f.streams) >= f.max {
		return StreamInfo{}, &Refusal{ErrLimit, "You have already consumed your firehose quota of 100 hoses."}
	}
	if _, table := c.Table(); table == "missing" {
		return StreamInfo{}, &Refusal{ErrInvalid, "The table equities.missing does not exist: create it by SQL first."}
	}
	s := &fakeStream{info: StreamInfo{Config: c, Status: StatusActive, Version: 1, CreatedAt: time.UnixMilli(1764000000123), UpdatedAt: time.UnixMilli(1764000000123)}}
	s.key.Incarnation[0] = byte(len(f.streams) + 1)
	f.streams[c.Name] = s
	return s.info, nil
}

func (f *fakeStreams) Describe(_ context.Context, name record.StreamName) (StreamInfo, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := f.streams[name]; s != nil {
		return s.info, nil
	}
	return StreamInfo{}, ErrNotFound
}

func (f *fakeStreams) Update(_ context.Context, name record.StreamName, version int64, c StreamConfig) (StreamInfo, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.streams[name]
	switch {
	case s == nil:
		return StreamInfo{}, ErrNotFound
	case f.updateErr != nil:
		return StreamInfo{}, f.updateErr
	case s.info.Version != version:
		return StreamInfo{}, ErrConcurrent
	}
	c.Tags = s.info.Config.Tags
	s.info.Config, s.info.Version, s.info.UpdatedAt = c, version+1, s.info.CreatedAt.Add(time.Minute)
	return s.info, nil
}

func (f *fakeStreams) ChangeTags(_ context.Context, name record.StreamName, change func([]Tag) ([]Tag, error)) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.streams[name]
	if s == nil {
		return ErrNotFound
	}
	tags, err := change(s.info.Config.Tags)
	if err == nil {
		s.info.Config.Tags = tags
	}
	return err
}

func (f *fakeStreams) List(_ context.Context, after string, limit int) ([]record.StreamName, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var names []record.StreamName
	for n := range f.streams {
		if string(n) > after {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	if len(names) > limit {
		return names[:limit], true, nil
	}
	return names, false, nil
}

func (f *fakeStreams) Delete(_ context.Context, name record.StreamName, _ bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.streams[name] == nil {
		return ErrNotFound
	}
	delete(f.streams, name)
	return nil
}

func (f *fakeStreams) Put(_ context.Context, name record.StreamName, p *PutRequest) (PutResult, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.streams[name]
	if s == nil {
		return nil, ErrNotFound
	}
	if f.putErr != nil {
		return nil, f.putErr
	}
	r := &fakeResult{}
	for i := range p.Docs.Len() {
		doc := p.Docs.Doc(i)
		if f.failing != nil && f.failing(doc) {
			r.failed++
			r.ids = append(r.ids, record.ID{})
			r.failure = append(r.failure, FailureUnavailable)
			continue
		}
		r.ids = append(r.ids, record.ID{Key: s.key, Offset: record.Offset(len(s.docs))})
		r.failure = append(r.failure, "")
		s.docs = append(s.docs, string(doc))
	}
	return r, nil
}

func (f *fakeStreams) docs(name string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.streams[record.StreamName(name)].docs)
}

type fakeResult struct {
	ids     []record.ID
	failure []string
	failed  int
}

func (r *fakeResult) Failed() int { return r.failed }
func (r *fakeResult) Failure(i int) (string, string) {
	return r.failure[i], "Slow down."
}
func (r *fakeResult) AppendRecordID(dst []byte, i int) []byte { return r.ids[i].AppendText(dst) }

func newHandler(t testing.TB, streams Streams) (*Handler, *prometheus.Registry) {
	t.Helper()
	registry := prometheus.NewRegistry()
	h, err := New(Options{Streams: streams, Region: "us-east-1", AccountID: "000000000000", Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), Registerer: registry})
	if err != nil {
		t.Fatal(err)
	}
	return h, registry
}

// call runs one operation without HTTP.
func call(t testing.TB, h *Handler, operation, body string) (string, error) {
	t.Helper()
	c := &awsapi.Call{Operation: operation, RequestID: "r", Body: append(make([]byte, 0, len(body)+awsapi.SlackBytes), body...)}
	err := h.Service().Operations[operation](t.Context(), c)
	return string(c.Out), err
}

// serve starts the AWS port over streams and returns its URL.
func serve(t testing.TB, streams Streams, now func() time.Time) string {
	t.Helper()
	h, registry := newHandler(t, streams)
	mux, err := awsapi.NewMux(awsapi.Options{
		Verifier: auth.NewVerifier(&auth.Credentials{Keys: []auth.AccessKey{testKey}}, now),
		Logger:   slog.New(slog.NewTextHandler(io.Discard, nil)), Registerer: registry,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := mux.Register(h.Service()); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL
}

const roleARN = "arn:aws:iam::000000000000:role/tapehouse"

// createBody is a valid CreateDeliveryStream.
func createBody(name string) string {
	return `{"DeliveryStreamName":"` + name + `","DeliveryStreamType":"DirectPut","IcebergDestinationConfiguration":{` +
		`"RoleARN":"` + roleARN + `","CatalogConfiguration":{"CatalogARN":"arn:aws:glue:us-east-1:000000000000:catalog"},` +
		`"DestinationTableConfigurationList":[{"DestinationDatabaseName":"equities","DestinationTableName":"executions"}],` +
		`"BufferingHints":{"SizeInMBs":64,"IntervalInSeconds":60},` +
		`"S3Configuration":{"RoleARN":"` + roleARN + `","BucketARN":"arn:aws:s3:::lake"}}}`
}

func swap(s, from, to string) string {
	if !strings.Contains(s, from) {
		panic("nothing to replace: " + from)
	}
	return strings.Replace(s, from, to, 1)
}
