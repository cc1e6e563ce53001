package lake

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
)

// S3Options configure OpenS3. Bucket and Region are required; zero values take
// the defaults named here.
type S3Options struct {
	Bucket string
	Prefix string // segments parted by '/', or ""; slashes at its ends make no difference
	Region string
	// Endpoint is the service's URL; "" is AWS's own of the region.
	Endpoint string
	// PathStyle puts the bucket into the path rather than the host's name, as
	// most services other than AWS want it.
	PathStyle bool
	// Credentials. Without a key id the SDK's default chain is used: the
	// environment, the shared files, the machine's or container's role. With
	// one, neither environment nor files are read.
	AccessKeyID, SecretAccessKey, SessionToken string

	// Attempts bounds the attempts of one request; default 8.
	Attempts int
	// AttemptTimeout bounds one attempt, to which a second is added for each
	// MiB that it carries; default 15 s.
	AttemptTimeout time.Duration
	// PartBytes is the size from which an object is uploaded in parts, and that
	// of a part; at least 5 MiB, which is S3's own bound. Default 8 MiB.
	PartBytes int64
	// TransfersMax bounds the uploads that are in flight together, and so their
	// memory to as many parts; default 4.
	TransfersMax int

	Logger     *slog.Logger          // nil: discard
	Registerer prometheus.Registerer // nil: no metrics
}

const (
	attemptsDefault       = 8
	attemptTimeoutDefault = 15 * time.Second
	partBytesMin          = 5 << 20
	partBytesDefault      = 8 << 20
	transfersDefault      = 4
	partsMax              = 10_000 // S3's bound
	deleteBatch           = 1_000  // S3's bound
	listPage              = 1_000  // S3's bound
	// s3PrefixBytesMax leaves NameBytesMax of a key's 1,024 bytes to the name.
	s3PrefixBytesMax = 120
	// smallBytesMax is the size up to which an object is read with one request:
	// what is opened is mostly read from end to end, and one request costs as
	// much as another.
	smallBytesMax = 8 << 20
	// abortWait bounds the removal of the parts of an upload that failed.
	abortWait = 10 * time.Second
)

// S3 is a Store in a bucket.
//
// A put carries If-None-Match, an id of its own and a CRC-32C. When an answer
// is lost, or the name turns out to be taken, the object's id tells whether it
// was this put that took it (docs/protocols/s3.md). Requests are tried again
// after a random wait, with a time-out for each attempt; memory is bounded by
// TransfersMax parts.
type S3 struct {
	o       S3Options
	client  *s3.Client
	prefix  string // "" or ends in '/'
	uri     string // "s3://bucket/" + prefix
	metrics *s3Metrics
	slots   chan []byte // buffers of uploads; nil until first used
	backoff backoff
	life    context.Context // until Shut
	shut    context.CancelFunc
}

var _ Store = (*S3)(nil)

// ParseS3URL splits s3://bucket/prefix. The prefix may be empty.
func ParseS3URL(url string) (bucket, prefix string, err error) {
	rest, ok := strings.CutPrefix(url, "s3://")
	if !ok {
		return "", "", fmt.Errorf("lake %q: want s3://BUCKET or s3://BUCKET/PREFIX", url)
	}
	bucket, prefix, _ = strings.Cut(rest, "/")
	prefix = strings.Trim(prefix, "/")
	return bucket, prefix, checkS3Location(bucket, prefix)
}

func checkS3Location(bucket, prefix string) error {
	if len(bucket) < 3 || len(bucket) > 63 || strings.Trim(bucket, "abcdefghijklmnopqrstuvwxyz0123456789.-") != "" {
		return fmt.Errorf("bucket %q: want 3 to 63 of a-z, 0-9, '.' and '-'", bucket)
	}
	if prefix == "" {
		return nil
	}
	if len(prefix) > s3PrefixBytesMax {
		return fmt.Errorf("prefix %q: longer than %d characters", prefix, s3PrefixBytesMax)
	}
	if err := CheckName(prefix); err != nil {
		return fmt.Errorf("prefix: %w", err)
	}
	return nil
}

// OpenS3 makes the store. It does not speak to the service, but to where the
// default chain finds credentials; see Check.
func OpenS3(ctx context.Context, o S3Options) (*S3, error) {
	o.Prefix = strings.Trim(o.Prefix, "/")
	if err := checkS3Location(o.Bucket, o.Prefix); err != nil {
		return nil, fmt.Errorf("open lake: %w", err)
	}
	if o.Region == "" {
		return nil, errors.New("open lake: no region: requests are signed for one")
	}
	if (o.AccessKeyID == "") != (o.SecretAccessKey == "") {
		return nil, errors.New("open lake: give both access key id and secret access key, or neither")
	}
	if o.Attempts == 0 {
		o.Attempts = attemptsDefault
	}
	if o.AttemptTimeout == 0 {
		o.AttemptTimeout = attemptTimeoutDefault
	}
	if o.PartBytes == 0 {
		o.PartBytes = partBytesDefault
	}
	if o.PartBytes < partBytesMin {
		return nil, fmt.Errorf("open lake: parts of %d bytes: S3 wants at least %d", o.PartBytes, partBytesMin)
	}
	if o.TransfersMax == 0 {
		o.TransfersMax = transfersDefault
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &S3{o: o, metrics: newS3Metrics(o.Registerer), slots: make(chan []byte, o.TransfersMax), backoff: backoff{50 * time.Millisecond, 5 * time.Second}}
	s.life, s.shut = context.WithCancel(context.Background())
	for range o.TransfersMax {
		s.slots <- nil
	}
	if o.Prefix != "" {
		s.prefix = o.Prefix + "/"
	}
	s.uri = "s3://" + o.Bucket + "/" + s.prefix
	provider, err := s3Credentials(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("open lake %s: credentials: %w", s.uri, err)
	}
	s.client = s3.New(s3.Options{
		Region: o.Region, BaseEndpoint: nonEmpty(o.Endpoint), UsePathStyle: o.PathStyle, Credentials: provider,
		HTTPClient: awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
			t.DialContext = (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}).DialContext
			t.TLSHandshakeTimeout = 5 * time.Second
			t.MaxIdleConnsPerHost, t.IdleConnTimeout = 64, 20*time.Second
			t.DisableCompression = true
		}),
		// Attempts are ours to make: each has a time-out, and what a failed one
		// may have done is looked up.
		Retryer: aws.NopRetryer{},
		// Checksums are ours too: computed once, kept, and compared.
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenRequired,
		ResponseChecksumValidation: aws.ResponseChecksumValidationWhenRequired,

		DisableLogOutputChecksumValidationSkipped: true,
	})
	return s, nil
}

func s3Credentials(ctx context.Context, o S3Options) (aws.CredentialsProvider, error) {
	if o.AccessKeyID != "" {
		return credentials.NewStaticCredentialsProvider(o.AccessKeyID, o.SecretAccessKey, o.SessionToken), nil
	}
	c, err := awsconfig.LoadDefaultConfig(ctx, awsconfig.WithRegion(o.Region))
	if err != nil {
		return nil, err
	}
	return c.Credentials, nil
}

func nonEmpty(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// URI implements Store.
func (s *S3) URI(name string) string { return s.uri + name }

// Name implements Store. It also takes s3a:// and s3n://, which other Iceberg
// writers use.
func (s *S3) Name(uri string) (string, bool) {
	scheme, rest, _ := strings.Cut(uri, "://")
	switch scheme {
	case "s3", "s3a", "s3n":
	default:
		return "", false
	}
	name, ok := strings.CutPrefix("s3://"+rest, s.uri)
	if !ok || CheckName(strings.TrimSuffix(name, "/")) != nil {
		return "", false
	}
	return name, true
}

// LocalPath implements Store.
func (s *S3) LocalPath(string) (string, bool) { return "", false }

func (s *S3) key(name string) *string { return aws.String(s.prefix + name) }

// Put implements Store.
func (s *S3) Put(ctx context.Context, name string, r io.Reader, sizeBytes int64) error {
	if err := errors.Join(ctx.Err(), CheckName(name)); err != nil {
		return err
	}
	if err := s.put(ctx, name, r, sizeBytes, ""); err != nil {
		return fmt.Errorf("put %s: %w", name, err)
	}
	return nil
}

// PutAll implements Store: TransfersMax at a time.
func (s *S3) PutAll(ctx context.Context, objects []Object) error {
	for _, o := range objects {
		if err := CheckName(o.Name); err != nil {
			return err
		}
	}
	return InParallel(ctx, s.o.TransfersMax, len(objects), func(ctx context.Context, i int) error {
		o := objects[i]
		if int64(len(o.Data)) > s.o.PartBytes {
			return s.Put(ctx, o.Name, bytes.NewReader(o.Data), int64(len(o.Data)))
		}
		if err := s.putBytes(ctx, o.Name, o.Data); err != nil {
			return fmt.Errorf("put %s: %w", o.Name, err)
		}
		return nil
	})
}

// PutFile implements Store.
func (s *S3) PutFile(ctx context.Context, name, path string) error {
	if err := errors.Join(ctx.Err(), CheckName(name)); err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("put %s: %w", name, err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return fmt.Errorf("put %s: %w", name, err)
	}
	// An object's metadata is given before its parts. The file is in the page
	// cache, so that reading it twice costs little.
	var sum string
	if fi.Size() > s.o.PartBytes {
		if sum, err = fileChecksum(io.NewSectionReader(f, 0, fi.Size())); err != nil {
			return fmt.Errorf("put %s: %w", name, err)
		}
	}
	if err := s.put(ctx, name, io.NewSectionReader(f, 0, fi.Size()), fi.Size(), sum); err != nil {
		return fmt.Errorf("put %s: %w", name, err)
	}
	return os.Remove(path)
}

// Get implements Store. The content is checked against its checksum.
func (s *S3) Get(ctx context.Context, name string) ([]byte, error) {
	if err := errors.Join(ctx.Err(), CheckName(name)); err != nil {
		return nil, err
	}
	b, err := s.get(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", name, err)
	}
	return b, nil
}

// Open implements Store. An object of up to 8 MiB is read at once, and checked
// against its checksum; ranges of a larger one are checked for their length and
// for belonging to the same object. ctx also governs the reader, whose ReadAt
// has none.
func (s *S3) Open(ctx context.Context, name string) (Reader, error) {
	if err := errors.Join(ctx.Err(), CheckName(name)); err != nil {
		return nil, err
	}
	b, head, err := s.getSmall(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("open object %s: %w", name, err)
	}
	if b != nil {
		return wholeReader{bytes.NewReader(b)}, nil
	}
	return &rangeReader{ctx: ctx, s: s, name: name, head: head}, nil
}

type wholeReader struct{ *bytes.Reader }

func (r wholeReader) SizeBytes() int64 { return r.Size() }
func (r wholeReader) Close() error     { return nil }

type rangeReader struct {
	ctx  context.Context
	s    *S3
	name string
	head objectHead
}

func (r *rangeReader) SizeBytes() int64 { return r.head.sizeBytes }
func (r *rangeReader) Close() error     { return nil }

func (r *rangeReader) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("read %s: offset %d is negative", r.name, off)
	}
	if off >= r.head.sizeBytes {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), r.head.sizeBytes-off))
	if n == 0 {
		return 0, nil
	}
	if err := r.s.getRange(r.ctx, r.name, r.head.etag, p[:n], off); err != nil {
		return 0, fmt.Errorf("read %d bytes of %s at %d: %w", n, r.name, off, err)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Stat implements Store.
func (s *S3) Stat(ctx context.Context, name string) (Info, error) {
	if err := errors.Join(ctx.Err(), CheckName(name)); err != nil {
		return Info{}, err
	}
	h, err := s.head(ctx, s.key(name))
	if err != nil {
		return Info{}, fmt.Errorf("stat object %s: %w", name, err)
	}
	return Info{name, h.sizeBytes, h.modifiedAt}, nil
}

// List implements Store. Keys that are no names of the lake are passed over.
func (s *S3) List(ctx context.Context, prefix string, fn func(Info) error) error {
	if i := strings.LastIndexByte(prefix, '/'); i >= 0 {
		if err := CheckName(prefix[:i]); err != nil {
			return err
		}
	}
	var token *string
	for {
		var page *s3.ListObjectsV2Output
		if err := s.request(ctx, "ListObjectsV2", 0, func(ctx context.Context) (err error) {
			page, err = s.client.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: &s.o.Bucket, Prefix: s.key(prefix), ContinuationToken: token, MaxKeys: aws.Int32(listPage)})
			return err
		}); err != nil {
			return fmt.Errorf("list %s: %w", prefix, err)
		}
		for _, o := range page.Contents {
			name, ok := strings.CutPrefix(aws.ToString(o.Key), s.prefix)
			if !ok || CheckName(name) != nil {
				continue
			}
			if err := fn(Info{name, aws.ToInt64(o.Size), aws.ToTime(o.LastModified).UTC()}); err != nil {
				return err
			}
		}
		if !aws.ToBool(page.IsTruncated) || aws.ToString(page.NextContinuationToken) == "" {
			return nil
		}
		token = page.NextContinuationToken
	}
}

// Delete implements Store, a thousand at a time.
func (s *S3) Delete(ctx context.Context, names ...string) error {
	for _, name := range names {
		if err := CheckName(name); err != nil {
			return err
		}
	}
	for len(names) > 0 {
		n := min(len(names), deleteBatch)
		if err := s.deleteKeys(ctx, names[:n]); err != nil {
			return err
		}
		names = names[n:]
	}
	return nil
}

func (s *S3) deleteKeys(ctx context.Context, names []string) error {
	left := make([]types.ObjectIdentifier, len(names))
	for i, n := range names {
		left[i].Key = s.key(n)
	}
	err := s.request(ctx, "DeleteObjects", 0, func(ctx context.Context) error {
		out, err := s.client.DeleteObjects(ctx, &s3.DeleteObjectsInput{Bucket: &s.o.Bucket, Delete: &types.Delete{Objects: left, Quiet: aws.Bool(true)}})
		if err != nil {
			return err
		}
		left = left[:0]
		var failed error
		for _, e := range out.Errors {
			if code := aws.ToString(e.Code); code != "NoSuchKey" {
				left = append(left, types.ObjectIdentifier{Key: e.Key})
				failed = &keyError{code, aws.ToString(e.Message), aws.ToString(e.Key)}
			}
		}
		return failed
	})
	if err != nil {
		return fmt.Errorf("delete %d objects: %w", len(names), err)
	}
	return nil
}

// Check proves that the bucket can be reached, written, read and deleted from,
// and that it refuses to replace an object: what calls itself S3 and silently
// ignores If-None-Match is no place for a lake.
func (s *S3) Check(ctx context.Context) error {
	if err := s.check(ctx); err != nil {
		return fmt.Errorf("lake %s: %w", s.uri, err)
	}
	return nil
}

func (s *S3) check(ctx context.Context) error {
	probe := ".probe-" + uuid.NewString() // no object's name
	data := []byte("tapehouse: may be deleted\n")
	if err := s.putBytes(ctx, probe, data); err != nil {
		if statusOf(err) == http.StatusForbidden { // the answer's text may be lost, so that only the status tells
			return fmt.Errorf("put an object: the key's rights do not allow it, or its secret is another (Signature): %w", err)
		}
		return fmt.Errorf("put an object: %w", err)
	}
	again := s.putBytes(ctx, probe, data)
	back, err := s.get(ctx, probe)
	if err == nil && string(back) != string(data) {
		err = errors.New("the content differs")
	}
	err = errors.Join(wrapped("read an object back", err), wrapped("delete an object", s.deleteKeys(ctx, []string{probe})))
	switch {
	case err != nil:
		return err
	case again == nil:
		return errors.New("the service replaced an object in spite of If-None-Match: a lake needs conditional writes")
	case !errors.Is(again, ErrExists):
		return fmt.Errorf("put over an object: %w", again)
	}
	return nil
}

func wrapped(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

// ownerName is the object that says whose the prefix is; no object's name.
const ownerName = ".tapehouse-owner"

// ErrOwned says that another data directory has the prefix.
var ErrOwned = errors.New("the lake belongs to another data directory")

// Own makes the prefix owner's, or confirms that it is. Two owners would take
// each other's files for orphans.
func (s *S3) Own(ctx context.Context, owner string) error {
	err := s.putBytes(ctx, ownerName, []byte(owner))
	if err == nil {
		return nil
	}
	if !errors.Is(err, ErrExists) {
		return fmt.Errorf("lake %s: %w", s.uri, err)
	}
	b, err := s.get(ctx, ownerName)
	if err != nil {
		return fmt.Errorf("lake %s: read its owner: %w", s.uri, err)
	}
	if string(b) != owner {
		return fmt.Errorf("lake %s: %w: its owner is %q, this directory is %q; choose another prefix", s.uri, ErrOwned, b, owner)
	}
	return nil
}
