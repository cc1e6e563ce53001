package lake

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/tapehouse/tapehouse/internal/s3test"
)

// short time-outs, for tests in which time-outs happen.
func impatient(o *S3Options) { o.AttemptTimeout = 250 * time.Millisecond }

const giveUp = 400 * time.Millisecond

func TestParseS3URL(t *testing.T) {
	for _, c := range []struct{ url, bucket, prefix string }{
		{"s3://lake", "lake", ""}, {"s3://lake/", "lake", ""}, {"s3://my.lake-1/a/b", "my.lake-1", "a/b"}, {"s3://lake//a/", "lake", "a"},
	} {
		if bucket, prefix, err := ParseS3URL(c.url); err != nil || bucket != c.bucket || prefix != c.prefix {
			t.Errorf("ParseS3URL(%q) = %q, %q, %v", c.url, bucket, prefix, err)
		}
	}
	for _, url := range []string{"", "lake", "/tmp/lake", "https://lake/x", "s3://", "s3://Lake", "s3://x", "s3://lake/a b", "s3://lake/../x", "s3://lake/.a", "s3://lake/" + strings.Repeat("x", 121)} {
		if bucket, prefix, err := ParseS3URL(url); err == nil {
			t.Errorf("ParseS3URL(%q) = %q, %q", url, bucket, prefix)
		}
	}
}

func TestOpenS3Refuses(t *testing.T) {
	good := S3Options{Bucket: "lake", Region: "us-east-1", AccessKeyID: "a", SecretAccessKey: "b"}
	for name, change := range map[string]func(*S3Options){
		"bucket": func(o *S3Options) { o.Bucket = "" }, "prefix": func(o *S3Options) { o.Prefix = "a b" }, "region": func(o *S3Options) { o.Region = "" },
		"secret": func(o *S3Options) { o.SecretAccessKey = "" }, "part": func(o *S3Options) { o.PartBytes = 1 << 20 },
	} {
		o := good
		change(&o)
		if _, err := OpenS3(t.Context(), o); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestS3Credentials: with a key of its own the store reads neither environment
// nor files; without, the default chain does.
func TestS3Credentials(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "from-environment")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	t.Setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(t.TempDir(), "none"))
	for _, c := range []struct{ given, want string }{{"own", "own"}, {"", "from-environment"}} {
		o := S3Options{Bucket: "lake", Region: "us-east-1", AccessKeyID: c.given}
		if c.given != "" {
			o.SecretAccessKey = "secret"
		}
		s, err := OpenS3(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		have, err := s.client.Options().Credentials.Retrieve(t.Context())
		if err != nil || have.AccessKeyID != c.want {
			t.Errorf("given %q: %q, %v", c.given, have.AccessKeyID, err)
		}
		if s.client.Options().BaseEndpoint != nil {
			t.Errorf("endpoint %q comes from the environment", *s.client.Options().BaseEndpoint)
		}
	}
}

func TestBackoff(t *testing.T) {
	b := backoff{50 * time.Millisecond, 5 * time.Second}
	for n := range 40 {
		most := 5 * time.Second
		if n < 7 {
			most = 50 * time.Millisecond << n
		}
		var sum time.Duration
		for range 500 {
			w := b.wait(n)
			if w <= 0 || w > most {
				t.Fatalf("attempt %d waits %s, at most %s", n, w, most)
			}
			sum += w
		}
		if mean := sum / 500; mean < most*4/10 || mean > most*6/10 {
			t.Errorf("attempt %d waits %s in the mean of at most %s: not full jitter", n, mean, most)
		}
	}
}

// TestRequestTimesOut: each attempt has its time, the number of attempts is
// bounded, and the caller's context ends both attempts and waits.
func TestRequestTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &S3{o: S3Options{Attempts: 3, AttemptTimeout: 2 * time.Second}, metrics: newS3Metrics(nil), backoff: backoff{time.Millisecond, time.Millisecond}}
		s.o.Logger = slog.New(slog.DiscardHandler)
		s.life, s.shut = context.WithCancel(t.Context())
		n := 0
		hang := func(ctx context.Context) error { n++; <-ctx.Done(); return ctx.Err() }
		start := time.Now()
		err := s.request(t.Context(), "Test", 3<<20, hang)
		if took := time.Since(start).Round(time.Second); n != 3 || took != 15*time.Second || !strings.Contains(err.Error(), "3 attempts") {
			t.Errorf("%d attempts in %s: %v", n, took, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if err := s.request(ctx, "Test", 0, hang); !errors.Is(err, context.DeadlineExceeded) || n != 5 {
			t.Errorf("%d attempts: %v", n-3, err)
		}
		boom := permanentError{errors.New("boom")}
		if err := s.request(t.Context(), "Test", 0, func(context.Context) error { n++; return boom }); !errors.Is(err, boom) || n != 6 {
			t.Errorf("a failure for good was tried %d times: %v", n-5, err)
		}
		time.AfterFunc(time.Second, s.Shut)
		for want := 7; want < 9; want++ { // while it waits, and after
			if err := s.request(t.Context(), "Test", 0, hang); !errors.Is(err, ErrShut) || n != want {
				t.Errorf("a shut store made %d attempts: %v", n-6, err)
			}
		}
	})
}

// TestLostAnswers: a put that was carried out without its answer is recognised
// as this put's, and a foreign object never is.
func TestLostAnswers(t *testing.T) {
	server := s3test.Start(t)
	p := s3test.StartProxy(t, server.Endpoint, giveUp)
	s := openS3(t, server, p.Endpoint, "lost", impatient)
	once := func(f s3test.Fault, operation string) *bool {
		fired := new(bool)
		var mu sync.Mutex
		p.Plan(func(r s3test.Request) s3test.Fault {
			mu.Lock()
			defer mu.Unlock()
			if !*fired && r.Is(operation) {
				*fired = true
				return f
			}
			return s3test.None
		})
		return fired
	}
	for _, size := range []int{1000, partBytesMin + 1000} {
		commit := "PutObject"
		if size > partBytesMin {
			commit = "CompleteMultipartUpload"
		}
		for f := s3test.LostAnswer; f <= s3test.LateRequest; f++ {
			name := fmt.Sprintf("%s/%d", f, size)
			data := random(uint64(f), size)
			fired := once(f, commit)
			if err := s.Put(t.Context(), name, bytes.NewReader(data), int64(size)); err != nil || !*fired {
				t.Errorf("%s: %v (injected: %v)", name, err, *fired)
			}
			p.Plan(nil)
			p.Settle()
			if b, err := s.Get(t.Context(), name); err != nil || !bytes.Equal(b, data) {
				t.Errorf("%s: %d bytes, %v", name, len(b), err)
			}
			// The same content by another put is another's object.
			fired = once(f, commit)
			if err := s.Put(t.Context(), name, bytes.NewReader(data), int64(size)); !errors.Is(err, ErrExists) || !*fired {
				t.Errorf("%s, again: %v (injected: %v)", name, err, *fired)
			}
			p.Plan(nil)
			p.Settle()
		}
	}
	if n := testutil.ToFloat64(s.metrics.recovered); n < 3 {
		t.Errorf("%v puts were recovered, want at least those of PutObject whose answer was lost", n)
	}
	if n := uploads(t, s); n != 0 {
		t.Errorf("%d uploads are left", n)
	}
}

// uploads counts the unfinished uploads below the prefix.
func uploads(t *testing.T, s *S3) int {
	t.Helper()
	out, err := s.client.ListMultipartUploads(t.Context(), &s3.ListMultipartUploadsInput{Bucket: &s.o.Bucket, Prefix: nonEmpty(s.prefix)})
	if err != nil {
		t.Fatal(err)
	}
	return len(out.Uploads)
}

// TestFaults puts, from two stores at once and under the same names, through a
// network that fails, and then looks at the server itself: what was
// acknowledged is there, byte for byte; what was said to exist does, and is
// the other's; nothing is there in part.
func TestFaults(t *testing.T) {
	server := s3test.Start(t)
	rounds, share := 4, 0.45
	if testing.Short() {
		rounds = 2
	}
	for seed := range uint64(rounds) {
		faults := s3test.Quick()
		if seed%2 == 1 {
			faults = s3test.All()
		}
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			faultRound(t, server, seed, share, faults)
		})
	}
}

type outcome struct {
	name string
	data []byte
	err  error
}

func faultRound(t *testing.T, server *s3test.Server, seed uint64, share float64, faults []s3test.Fault) {
	prefix := fmt.Sprintf("faults-%d", seed)
	p := s3test.StartProxy(t, server.Endpoint, giveUp)
	p.Plan(s3test.Random(seed, share, faults...))
	var mu sync.Mutex
	var outcomes []outcome
	var wg sync.WaitGroup
	dir := t.TempDir()
	for writer := range 2 {
		s := openS3(t, server, p.Endpoint, prefix, func(o *S3Options) {
			impatient(o)
			o.Attempts = 3 // so that some puts fail for good
		})
		for worker := range 3 {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(seed, uint64(10*writer+worker)))
				for i := range 10 {
					size := 1 + r.IntN(100_000)
					if i%5 == 4 {
						size = partBytesMin + r.IntN(2*partBytesMin)
					}
					o := outcome{name: fmt.Sprintf("data/%d-%d", worker, i), data: random(r.Uint64(), size)}
					switch i % 3 {
					case 0:
						o.err = s.Put(t.Context(), o.name, iotestReader(o.data), int64(size))
					case 1:
						o.err = s.PutAll(t.Context(), []Object{{o.name, o.data}})
					default:
						path := filepath.Join(dir, fmt.Sprintf("%d-%d-%d", writer, worker, i))
						if err := os.WriteFile(path, o.data, 0o600); err != nil {
							t.Error(err)
						}
						o.err = s.PutFile(t.Context(), o.name, path)
					}
					mu.Lock()
					outcomes = append(outcomes, o)
					mu.Unlock()
				}
			})
		}
	}
	wg.Wait()
	p.Settle()
	direct := openS3(t, server, server.Endpoint, prefix, nil)
	put := map[string][][]byte{}
	acknowledged := map[string][]byte{}
	var done, exists, failed int
	for _, o := range outcomes {
		put[o.name] = append(put[o.name], o.data)
		if o.err == nil {
			done++
			if acknowledged[o.name] != nil {
				t.Errorf("%s was acknowledged twice", o.name)
			}
			acknowledged[o.name] = o.data
		}
	}
	there := map[string]bool{}
	if err := direct.List(t.Context(), "", func(i Info) error {
		there[i.Name] = true
		b, err := direct.Get(t.Context(), i.Name)
		if err != nil {
			t.Errorf("%s cannot be read: %v", i.Name, err)
			return nil
		}
		for _, whole := range put[i.Name] {
			if bytes.Equal(b, whole) {
				return nil
			}
		}
		t.Errorf("%s is torn: %d bytes", i.Name, len(b))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for name, data := range acknowledged {
		if b, err := direct.Get(t.Context(), name); err != nil || !bytes.Equal(b, data) {
			t.Errorf("%s was acknowledged with %d bytes, has %d: %v", name, len(data), len(b), err)
		}
	}
	for _, o := range outcomes {
		switch {
		case o.err == nil:
		case errors.Is(o.err, ErrExists):
			exists++
			if !there[o.name] {
				t.Errorf("%s was said to exist, and does not", o.name)
				continue
			}
			if b, err := direct.Get(t.Context(), o.name); err != nil || bytes.Equal(b, o.data) {
				t.Errorf("%s was said to be another's, and is this put's: %v", o.name, err)
			}
		default:
			failed++
		}
	}
	t.Logf("%d acknowledged, %d existed, %d failed, %d faults", done, exists, failed, p.Injected())
	if p.Injected() < 20 || done == 0 || exists == 0 {
		t.Errorf("the round proves little: %d faults, %d acknowledged, %d existed", p.Injected(), done, exists)
	}
	// Reading through the same network gives the truth or an error.
	reader := openS3(t, server, p.Endpoint, prefix, impatient)
	for name := range there {
		want, err := direct.Get(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := reader.Get(t.Context(), name); err == nil && !bytes.Equal(b, want) {
			t.Errorf("%s reads wrong through faults", name)
		}
	}
	p.Plan(nil)
	p.Settle()
	// What failed puts left of their parts can be swept.
	if _, err := direct.AbortLeftovers(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if n := uploads(t, direct); n != 0 {
		t.Errorf("%d uploads are left after the sweep", n)
	}
}

// iotestReader hides everything but Read.
func iotestReader(b []byte) io.Reader { return struct{ io.Reader }{bytes.NewReader(b)} }

// TestDeleteAndListUnderFaults: both are repeated until they are done.
func TestDeleteAndListUnderFaults(t *testing.T) {
	server := s3test.Start(t)
	direct := openS3(t, server, server.Endpoint, "many", func(o *S3Options) { o.TransfersMax = 16 })
	var objects []Object
	for i := range 2300 {
		objects = append(objects, Object{Name: fmt.Sprintf("d%d/o-%04d", i%7, i)})
	}
	if err := direct.PutAll(t.Context(), objects); err != nil {
		t.Fatal(err)
	}
	p := s3test.StartProxy(t, server.Endpoint, giveUp)
	s := openS3(t, server, p.Endpoint, "many", func(o *S3Options) { o.Attempts = 20 })
	p.Plan(s3test.Random(1, 0.5, s3test.InternalErr, s3test.SlowDown, s3test.ResetUpload, s3test.TornUpload, s3test.ResetAnswer, s3test.LostAnswer, s3test.LostAnswer5x))
	if got := listed(t, s, ""); len(got) != len(objects) {
		t.Errorf("List gives %d of %d objects", len(got), len(objects))
	}
	names := make([]string, len(objects))
	for i, o := range objects {
		names[i] = o.Name
	}
	if err := s.Delete(t.Context(), names[100:]...); err != nil {
		t.Fatal(err)
	}
	p.Plan(nil)
	if got := listed(t, s, ""); len(got) != 100 {
		t.Errorf("%d objects are left of 100", len(got))
	}
	if p.Injected() == 0 {
		t.Error("no fault was injected")
	}
}

// TestDamagedObject: content that is not what was put is an error, however it
// is read.
func TestDamagedObject(t *testing.T) {
	server := s3test.Start(t)
	s := openS3(t, server, server.Endpoint, "damaged", func(o *S3Options) { o.Attempts = 2 })
	for _, size := range []int{1000, smallBytesMax + 1000} {
		name := fmt.Sprint("o-", size)
		put(t, s, name, string(random(1, size)))
		file := filepath.Join(server.Root, server.Bucket, "damaged", name)
		f, err := os.OpenFile(file, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte("other"), int64(size)/2); err != nil {
			t.Fatal(err)
		}
		f.Close()
		if _, err := s.Get(t.Context(), name); !errors.Is(err, ErrChecksum) {
			t.Errorf("Get of %d bytes: %v", size, err)
		}
		c, err := OpenCache(s, CacheOptions{Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Hold(t.Context(), []string{c.URI(name)}); !errors.Is(err, ErrChecksum) {
			t.Errorf("Hold of %d bytes: %v", size, err)
		}
		if left, _ := os.ReadDir(c.Dir()); len(left) != 0 {
			t.Errorf("a damaged copy is left: %v", left)
		}
	}
}

func TestCheckAndOwn(t *testing.T) {
	server := s3test.Start(t)
	s := openS3(t, server, server.Endpoint, "own", nil)
	if err := s.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Own(t.Context(), "one"); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Own(t.Context(), "two"); !errors.Is(err, ErrOwned) {
		t.Errorf("a second owner: %v", err)
	}
	if got := listed(t, s, ""); len(got) != 0 {
		t.Errorf("the store lists its own objects: %v", got)
	}
	for what, change := range map[string]func(*S3Options){
		"NoSuchBucket": func(o *S3Options) { o.Bucket = "elsewhere" },
		"Signature":    func(o *S3Options) { o.SecretAccessKey = "wrong" },
		"connect":      func(o *S3Options) { o.Endpoint, o.Attempts = "http://127.0.0.1:1", 2 },
	} {
		bad := openS3(t, server, server.Endpoint, "own", change)
		if err := bad.Check(t.Context()); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestCheckFindsOverwriting: a service that ignores If-None-Match is refused.
func TestCheckFindsOverwriting(t *testing.T) {
	server := s3test.Start(t)
	s := openS3(t, server, server.Endpoint, "overwriting", nil)
	o := s.client.Options()
	o.APIOptions = append(o.APIOptions, func(stack *middleware.Stack) error {
		return stack.Build.Add(middleware.BuildMiddlewareFunc("unconditional", func(ctx context.Context, in middleware.BuildInput, next middleware.BuildHandler) (middleware.BuildOutput, middleware.Metadata, error) {
			in.Request.(*smithyhttp.Request).Header.Del("If-None-Match")
			return next.HandleBuild(ctx, in)
		}), middleware.After)
	})
	s.client = s3.New(o)
	if err := s.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "If-None-Match") {
		t.Errorf("Check = %v", err)
	}
}

// TestAbortLeftovers: old uploads of the prefix go, young ones and others' stay.
func TestAbortLeftovers(t *testing.T) {
	server := s3test.Start(t)
	s := openS3(t, server, server.Endpoint, "mine", nil)
	other := openS3(t, server, server.Endpoint, "mine-too", nil)
	for _, key := range []string{"mine/data/a", "mine/data/b", "mine-too/data/a"} {
		if _, err := s.client.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: &s.o.Bucket, Key: &key}); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		minAge          time.Duration
		aborted, remain int
	}{{time.Hour, 0, 2}, {0, 2, 0}, {0, 0, 0}} {
		if n, err := s.AbortLeftovers(t.Context(), c.minAge); err != nil || n != c.aborted || uploads(t, s) != c.remain {
			t.Errorf("older than %s: %d aborted, %d remain, %v", c.minAge, n, uploads(t, s), err)
		}
	}
	if uploads(t, other) != 1 {
		t.Error("another prefix's upload was aborted")
	}
}

// TestUploadsAreBounded: however many put at once, the store's buffers are as
// many as it was given, and objects in parts need no more.
func TestUploadsAreBounded(t *testing.T) {
	server := s3test.Start(t)
	p := s3test.StartProxy(t, server.Endpoint, giveUp)
	var now, most atomic.Int64
	p.Plan(func(r s3test.Request) s3test.Fault {
		if r.Is("UploadPart") || r.Is("PutObject") {
			n := now.Add(1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			time.Sleep(5 * time.Millisecond)
			now.Add(-1)
		}
		return s3test.None
	})
	s := openS3(t, server, p.Endpoint, "bounded", func(o *S3Options) { o.TransfersMax = 2 })
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			size := 1000 + i%2*3*partBytesMin
			if err := s.Put(t.Context(), fmt.Sprintf("o-%d", i), iotestReader(random(uint64(i), size)), int64(size)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if most.Load() > 2 {
		t.Errorf("%d uploads were in flight, want 2 at most", most.Load())
	}
}
