package auth

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Signer signs requests of one key to one service in one region. It is safe
// for concurrent use.
type Signer struct {
	key             AccessKey
	region, service string

	mu      sync.Mutex
	date    string
	derived signingKey
}

// NewSigner returns a signer.
func NewSigner(key AccessKey, region, service string) *Signer {
	return &Signer{key: key, region: region, service: service}
}

// Sign sets X-Amz-Date and Authorization on r, whose body has the given
// SHA-256. It signs host, content-type, content-encoding and every x-amz-
// header; a retry must sign anew, because the time is part of the signature.
func (s *Signer) Sign(r *http.Request, body [sha256.Size]byte, at time.Time) {
	stamp := at.UTC().Format(timeLayout)
	date := stamp[:8]
	r.Header["X-Amz-Date"] = []string{stamp}
	key := s.signingKey(date)

	var names [16]string
	signed := strings.Join(signedNames(names[:0], r.Header), ";")
	host := r.Host
	if host == "" {
		host = r.URL.Host
	}
	var payload [2 * sha256.Size]byte
	hex.Encode(payload[:], body[:])
	path, query := r.URL.EscapedPath(), r.URL.RawQuery
	in := request{method: r.Method, path: path, query: query, host: host, header: r.Header, length: -1,
		signed: signed, pathOnce: s.service == "s3"}

	w := scratchPool.Get().(*scratch)
	// Our own requests never have hundreds of query parameters, so the
	// canonical form always exists; a wrong signature would be refused anyway.
	sum, _ := w.signature(&key, &in, stamp, date, s.region, s.service, payload[:])
	out := append(w.buf[:0], algorithm...)
	out = append(out, " Credential="...)
	out = append(out, s.key.ID...)
	out = append(out, '/')
	out = appendScope(out, date, s.region, s.service)
	out = append(out, ", SignedHeaders="...)
	out = append(out, signed...)
	out = append(out, ", Signature="...)
	out = hex.AppendEncode(out, sum[:])
	r.Header["Authorization"] = []string{string(out)}
	w.buf = out
	scratchPool.Put(w)
}

func signedNames(names []string, h http.Header) []string {
	names = append(names, "host")
	for name := range h {
		lower := strings.ToLower(name)
		if lower == "content-type" || lower == "content-encoding" || strings.HasPrefix(lower, "x-amz-") {
			names = append(names, lower)
		}
	}
	slices.Sort(names)
	return names
}

func (s *Signer) signingKey(date string) signingKey {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.date != date {
		s.date, s.derived = date, deriveKey(s.key.Secret, date, s.region, s.service)
	}
	return s.derived
}
