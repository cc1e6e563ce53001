package auth

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"strings"
	"sync"
	"time"
)

// SkewMax is how far a request's time may lie from ours: AWS's five minutes.
const SkewMax = 5 * time.Minute

// signingKeysMax bounds the cache of derived keys: producers × regions ×
// services × the two dates of a midnight.
const signingKeysMax = 1024

// Keys finds the access key of an id. It is called for every request and must
// be safe for concurrent use.
type Keys interface {
	AccessKey(id string) (AccessKey, bool)
}

// Authorization is a parsed Authorization header whose key is known and whose
// time is acceptable. Nothing of it may be trusted before Check has accepted
// it, except to choose who will do the checking (its Service).
type Authorization struct {
	Key           AccessKey
	Date          string // of the credential scope: 20060102
	Region        string
	Service       string // the scope's signing name: "firehose"
	SignedHeaders string
	Signature     string // 64 hexadecimal digits
	Time          string // 20060102T150405Z
	At            time.Time
}

// Verifier checks Signature Version 4 in the Authorization header. It is safe
// for concurrent use.
type Verifier struct {
	keys Keys
	now  func() time.Time

	mu    sync.RWMutex
	cache map[cacheKey]cachedKey
}

type cacheKey struct{ id, date, region, service string }

type cachedKey struct {
	secret string // the secret from which key was derived: a rotated one must not match
	key    signingKey
}

// NewVerifier returns a verifier over keys. A nil now is time.Now.
func NewVerifier(keys Keys, now func() time.Time) *Verifier {
	if now == nil {
		now = time.Now
	}
	return &Verifier{keys: keys, now: now, cache: map[cacheKey]cachedKey{}}
}

// Parse reads r's Authorization header into a and checks all that can be
// checked without the body: form, key, scope, time and the headers that must
// be signed. It allocates nothing when it succeeds. The error is an *Error.
func (v *Verifier) Parse(r *http.Request, a *Authorization) error {
	*a = Authorization{}
	header := r.Header["Authorization"]
	if len(header) == 0 || header[0] == "" {
		return errMissingToken
	}
	rest, ok := strings.CutPrefix(header[0], algorithm)
	if !ok || rest == "" || rest[0] != ' ' && rest[0] != '\t' {
		return errAlgorithm
	}
	var credential string
	for rest != "" {
		var part string
		part, rest, _ = strings.Cut(rest, ",")
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		switch name {
		case "Credential":
			credential = value
		case "SignedHeaders":
			a.SignedHeaders = value
		case "Signature":
			a.Signature = value
		}
	}
	var date string // of the HTTP message
	if h := r.Header["X-Amz-Date"]; len(h) > 0 {
		date = h[0]
	} else if h := r.Header["Date"]; len(h) > 0 {
		date = h[0]
	}
	if credential == "" || a.SignedHeaders == "" || a.Signature == "" || date == "" {
		return incomplete(credential, a, date)
	}
	id, ok := a.parseScope(credential)
	if !ok {
		return &Error{CodeIncompleteSignature, "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got " + quoted(credential)}
	}
	if at, ok := parseTime(date); ok {
		a.At, a.Time = at, date
	} else if at, err := http.ParseTime(date); err == nil {
		a.At, a.Time = at.UTC(), at.UTC().Format(timeLayout)
	} else {
		return &Error{CodeIncompleteSignature, "Date must be in ISO-8601 'basic format'. Got " + quoted(date) + ". See http://en.wikipedia.org/wiki/ISO_8601"}
	}
	// A key whose time is over is as good as none, as a deleted one is at AWS.
	if a.Key, ok = v.keys.AccessKey(id); !ok || !a.Key.ExpiresAt.IsZero() && a.Key.Expired(v.now()) {
		return errUnrecognized
	}
	if a.Time[:8] != a.Date {
		return &Error{CodeInvalidSignature, "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: " + quoted(a.Date) + " != '" + a.Time[:8] + "', from '" + a.Time + "'."}
	}
	if err := v.checkTime(a); err != nil {
		return err
	}
	return checkSigned(r, a.SignedHeaders)
}

// parseScope splits keyid/date/region/service/aws4_request.
func (a *Authorization) parseScope(credential string) (id string, ok bool) {
	rest, term, ok := cutLast(credential)
	if !ok || term != terminator {
		return "", false
	}
	if rest, a.Service, ok = cutLast(rest); !ok || a.Service == "" {
		return "", false
	}
	if rest, a.Region, ok = cutLast(rest); !ok || a.Region == "" {
		return "", false
	}
	if id, a.Date, ok = cutLast(rest); !ok || id == "" || strings.IndexByte(id, '/') >= 0 {
		return "", false
	}
	return id, true
}

func cutLast(s string) (before, after string, ok bool) {
	i := strings.LastIndexByte(s, '/')
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}

func incomplete(credential string, a *Authorization, date string) error {
	var missing []string
	need := func(have bool, text string) {
		if !have {
			missing = append(missing, text)
		}
	}
	need(credential != "", "Authorization header requires 'Credential' parameter.")
	need(a.Signature != "", "Authorization header requires 'Signature' parameter.")
	need(a.SignedHeaders != "", "Authorization header requires 'SignedHeaders' parameter.")
	need(date != "", "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.")
	return &Error{CodeIncompleteSignature, strings.Join(missing, " ")}
}

func (v *Verifier) checkTime(a *Authorization) error {
	now := v.now().UTC()
	switch {
	case now.Sub(a.At) > SkewMax:
		return &Error{CodeInvalidSignature, "Signature expired: " + a.Time + " is now earlier than " +
			now.Add(-SkewMax).Format(timeLayout) + " (" + now.Format(timeLayout) + " - 5 min.)"}
	case a.At.Sub(now) > SkewMax:
		return &Error{CodeInvalidSignature, "Signature not yet current: " + a.Time + " is still later than " +
			now.Add(SkewMax).Format(timeLayout) + " (" + now.Format(timeLayout) + " + 5 min.)"}
	}
	return nil
}

// checkSigned refuses a list that leaves out what changes the request's
// meaning, or that is not in the canonical order.
func checkSigned(r *http.Request, names string) error {
	var host, target bool
	last := ""
	for names != "" {
		var name string
		name, names, _ = strings.Cut(names, ";")
		if name <= last || strings.ToLower(name) != name {
			return &Error{CodeIncompleteSignature, "SignedHeaders must be lower-case, sorted and distinct, at " + quoted(name)}
		}
		host = host || name == "host"
		target = target || name == "x-amz-target"
		last = name
	}
	if !host {
		return errHostUnsigned
	}
	if !target && len(r.Header["X-Amz-Target"]) > 0 {
		return errTargetUnsigned
	}
	return nil
}

// Check accepts the request if its signature is a's key's over r and a body
// with the given SHA-256. The error is an *Error. It allocates nothing for a
// request without a query.
func (v *Verifier) Check(r *http.Request, a *Authorization, body [sha256.Size]byte) error {
	var payload [2 * sha256.Size]byte
	hex.Encode(payload[:], body[:])
	// A client may state the hash, in the form of the canonical request or, as
	// AWS's SDK for Java does where it is asked for a checksum, in base64. It must
	// be the hash of what arrived.
	if h := r.Header["X-Amz-Content-Sha256"]; len(h) > 0 && h[0] != string(payload[:]) && h[0] != base64.StdEncoding.EncodeToString(body[:]) {
		return errMismatch
	}
	var claimed [sha256.Size]byte
	if len(a.Signature) != 2*sha256.Size {
		return errMismatch
	}
	for i := range claimed {
		hi, lo := hexDigit(a.Signature[2*i]), hexDigit(a.Signature[2*i+1])
		if hi < 0 || lo < 0 {
			return errMismatch
		}
		claimed[i] = byte(hi<<4 | lo)
	}
	key, cached := v.signingKey(a)
	path, query := wirePath(r)
	in := request{method: r.Method, path: path, query: query, host: r.Host, header: r.Header, length: r.ContentLength,
		signed: a.SignedHeaders, pathOnce: a.Service == "s3"}
	s := scratchPool.Get().(*scratch)
	sum, ok := s.signature(&key, &in, a.Time, a.Date, a.Region, a.Service, payload[:])
	scratchPool.Put(s)
	if !ok || subtle.ConstantTimeCompare(sum[:], claimed[:]) != 1 {
		return errMismatch
	}
	if !cached {
		v.remember(a, key)
	}
	touch(a.Key.used, v.now())
	return nil
}

func (v *Verifier) signingKey(a *Authorization) (signingKey, bool) {
	v.mu.RLock()
	c, ok := v.cache[cacheKey{a.Key.ID, a.Date, a.Region, a.Service}]
	v.mu.RUnlock()
	if ok && c.secret == a.Key.Secret {
		return c.key, true
	}
	return deriveKey(a.Key.Secret, a.Date, a.Region, a.Service), false
}

// remember keeps the key of an accepted request. The scope's strings are parts
// of a header, so they are copied.
func (v *Verifier) remember(a *Authorization, key signingKey) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.cache) >= signingKeysMax {
		clear(v.cache)
	}
	k := cacheKey{a.Key.ID, strings.Clone(a.Date), strings.Clone(a.Region), strings.Clone(a.Service)}
	v.cache[k] = cachedKey{a.Key.Secret, key}
}

// wirePath returns the path and the query as they stood on the wire.
func wirePath(r *http.Request) (path, query string) {
	uri := r.RequestURI
	if uri == "" { // a request made here, not received
		return r.URL.EscapedPath(), r.URL.RawQuery
	}
	if uri[0] != '/' { // absolute form, as to a proxy
		if i := strings.Index(uri, "://"); i >= 0 {
			uri = uri[i+3:]
			if i = strings.IndexAny(uri, "/?"); i < 0 {
				return "/", ""
			}
			uri = uri[i:]
		}
	}
	path, query, _ = strings.Cut(uri, "?")
	return path, query
}
