package auth

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	algorithm  = "AWS4-HMAC-SHA256"
	terminator = "aws4_request"
	timeLayout = "20060102T150405Z"

	// queryParametersMax bounds the sorting that an unverified request can ask for.
	queryParametersMax = 512
)

// request is what the canonical form is made of: the message as it stood on
// the wire, before anything was decoded.
type request struct {
	method   string
	path     string // raw: still percent-encoded
	query    string // raw
	host     string
	header   http.Header
	length   int64  // for a signed Content-Length that is not in header
	signed   string // names in lower case, sorted, separated by ';'
	pathOnce bool   // S3: the path is encoded once and not normalised
}

// scratch is the working memory of one verification.
type scratch struct {
	buf   []byte
	pairs []pair
	text  []byte
}

type pair struct{ key, value string }

var scratchPool = sync.Pool{New: func() any { return &scratch{buf: make([]byte, 0, 2048)} }}

// canonicalNames maps the signed names in use to the form in which net/http
// keeps them, because textproto's conversion allocates for unusual names.
var canonicalNames = func() map[string]string {
	m := map[string]string{}
	for _, n := range []string{
		"accept", "accept-encoding", "amz-sdk-invocation-id", "amz-sdk-request", "cache-control", "content-encoding",
		"content-length", "content-md5", "content-type", "date", "range", "user-agent", "x-amz-acl",
		"x-amz-content-sha256", "x-amz-date", "x-amz-decoded-content-length", "x-amz-security-token", "x-amz-target",
		"x-amz-user-agent", "x-amzn-trace-id",
	} {
		m[n] = textproto.CanonicalMIMEHeaderKey(n)
	}
	return m
}()

func canonicalName(lower string) string {
	if n, ok := canonicalNames[lower]; ok {
		return n
	}
	return textproto.CanonicalMIMEHeaderKey(lower)
}

// appendCanonical appends the canonical request to dst. payload is the
// hexadecimal hash of the body, or the word that stands for it. It reports
// false for a request whose query has too many parameters.
func (s *scratch) appendCanonical(dst []byte, r *request, payload []byte) ([]byte, bool) {
	dst = append(dst, r.method...)
	dst = append(dst, '\n')
	dst = appendPath(dst, r.path, r.pathOnce)
	dst = append(dst, '\n')
	if r.query != "" {
		var ok bool
		if dst, ok = s.appendQuery(dst, r.query); !ok {
			return dst, false
		}
	}
	dst = append(dst, '\n')
	for names := r.signed; names != ""; {
		var name string
		name, names, _ = strings.Cut(names, ";")
		dst = append(dst, name...)
		dst = append(dst, ':')
		dst = r.appendHeader(dst, name)
		dst = append(dst, '\n')
	}
	dst = append(dst, '\n')
	dst = append(dst, r.signed...)
	dst = append(dst, '\n')
	return append(dst, payload...), true
}

// appendHeader appends the canonical value of a header: values joined by
// commas, each trimmed, runs of spaces folded into one.
func (r *request) appendHeader(dst []byte, name string) []byte {
	if name == "host" {
		return appendFolded(dst, r.host)
	}
	values := r.header[canonicalName(name)]
	if len(values) == 0 && name == "content-length" && r.length >= 0 {
		return strconv.AppendInt(dst, r.length, 10)
	}
	for i, v := range values {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendFolded(dst, v)
	}
	return dst
}

func appendFolded(dst []byte, v string) []byte {
	v = strings.Trim(v, " \t")
	if !strings.Contains(v, "  ") {
		return append(dst, v...)
	}
	space := false
	for i := 0; i < len(v); i++ {
		if v[i] == ' ' && space {
			continue
		}
		space = v[i] == ' '
		dst = append(dst, v[i])
	}
	return dst
}

// appendPath appends the canonical path. Every service but S3 removes "." and
// ".." and doubled slashes and encodes what stands on the wire once more.
func appendPath(dst []byte, raw string, once bool) []byte {
	if raw == "" || raw == "/" {
		return append(dst, '/')
	}
	if once {
		return appendEncoded(dst, unescape(raw, false), true)
	}
	return appendEncoded(dst, normalized(raw), true)
}

func normalized(raw string) string {
	if !strings.Contains(raw, "//") && !strings.Contains(raw, "/.") {
		return raw
	}
	var kept []string
	for segment := range strings.SplitSeq(raw, "/") {
		switch segment {
		case "", ".":
		case "..":
			if len(kept) > 0 {
				kept = kept[:len(kept)-1]
			}
		default:
			kept = append(kept, segment)
		}
	}
	if len(kept) == 0 {
		return "/"
	}
	out := "/" + strings.Join(kept, "/")
	if strings.HasSuffix(raw, "/") {
		out += "/"
	}
	return out
}

// appendQuery appends the parameters, encoded anew and sorted by name, then by
// value.
func (s *scratch) appendQuery(dst []byte, raw string) ([]byte, bool) {
	s.pairs = s.pairs[:0]
	for part := range strings.SplitSeq(raw, "&") {
		if part == "" {
			continue
		}
		if len(s.pairs) == queryParametersMax {
			return dst, false
		}
		k, v, _ := strings.Cut(part, "=")
		s.text = appendEncoded(s.text[:0], unescape(k, true), false)
		k = string(s.text)
		s.text = appendEncoded(s.text[:0], unescape(v, true), false)
		s.pairs = append(s.pairs, pair{k, string(s.text)})
	}
	slices.SortFunc(s.pairs, func(a, b pair) int {
		if c := strings.Compare(a.key, b.key); c != 0 {
			return c
		}
		return strings.Compare(a.value, b.value)
	})
	for i, p := range s.pairs {
		if i > 0 {
			dst = append(dst, '&')
		}
		dst = append(dst, p.key...)
		dst = append(dst, '=')
		dst = append(dst, p.value...)
	}
	clear(s.pairs)
	return dst, true
}

// unescape decodes %XX; what is not a valid escape stays as it is, because the
// signature, not the parser, decides whether the request is genuine.
func unescape(s string, plus bool) string {
	if !strings.ContainsAny(s, "%+") {
		return s
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '%' && i+2 < len(s) && hexDigit(s[i+1]) >= 0 && hexDigit(s[i+2]) >= 0:
			out = append(out, byte(hexDigit(s[i+1])<<4|hexDigit(s[i+2])))
			i += 2
		case c == '+' && plus:
			out = append(out, ' ')
		default:
			out = append(out, c)
		}
	}
	return string(out)
}

func hexDigit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// appendEncoded appends s with all but RFC 3986's unreserved characters (and
// '/' where it separates segments) as upper-case %XX.
func appendEncoded(dst []byte, s string, slash bool) []byte {
	const digits = "0123456789ABCDEF"
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '.', c == '_', c == '~', c == '/' && slash:
			dst = append(dst, c)
		default:
			dst = append(dst, '%', digits[c>>4], digits[c&15])
		}
	}
	return dst
}

// signingKey is the key of one (secret, date, region, service).
type signingKey [sha256.Size]byte

func deriveKey(secret, date, region, service string) signingKey {
	k := hmacSHA256([]byte("AWS4"+secret), []byte(date))
	k = hmacSHA256(k[:], []byte(region))
	k = hmacSHA256(k[:], []byte(service))
	return hmacSHA256(k[:], []byte(terminator))
}

// hmacSHA256 is RFC 2104 over the one-call hash, which, unlike crypto/hmac,
// allocates nothing for the short messages signed here.
func hmacSHA256(key, message []byte) [sha256.Size]byte {
	const block = sha256.BlockSize
	var pad [block + 256]byte
	if len(key) > block {
		sum := sha256.Sum256(key)
		key = sum[:]
	}
	copy(pad[:block], key)
	for i := range block {
		pad[i] ^= 0x36
	}
	var inner [sha256.Size]byte
	if len(message) <= len(pad)-block {
		n := copy(pad[block:], message)
		inner = sha256.Sum256(pad[:block+n])
	} else {
		h := sha256.New()
		h.Write(pad[:block])
		h.Write(message)
		h.Sum(inner[:0])
	}
	for i := range block {
		pad[i] ^= 0x36 ^ 0x5c
	}
	copy(pad[block:], inner[:])
	return sha256.Sum256(pad[:block+sha256.Size])
}

// signature computes the signature of r under key. at is the time in AWS's
// basic ISO 8601 form and scope is date/region/service/aws4_request.
func (s *scratch) signature(key *signingKey, r *request, at, date, region, service string, payload []byte) (sum [sha256.Size]byte, ok bool) {
	buf, ok := s.appendCanonical(s.buf[:0], r, payload)
	if !ok {
		s.buf = buf
		return sum, false
	}
	hash := sha256.Sum256(buf)
	buf = append(buf[:0], algorithm...)
	buf = append(buf, '\n')
	buf = append(buf, at...)
	buf = append(buf, '\n')
	buf = appendScope(buf, date, region, service)
	buf = append(buf, '\n')
	buf = hex.AppendEncode(buf, hash[:])
	s.buf = buf
	return hmacSHA256(key[:], buf), true
}

func appendScope(dst []byte, date, region, service string) []byte {
	dst = append(dst, date...)
	dst = append(dst, '/')
	dst = append(dst, region...)
	dst = append(dst, '/')
	dst = append(dst, service...)
	dst = append(dst, '/')
	return append(dst, terminator...)
}

// parseTime reads 20060102T150405Z without allocating.
func parseTime(s string) (time.Time, bool) {
	if len(s) != len(timeLayout) || s[8] != 'T' || s[15] != 'Z' {
		return time.Time{}, false
	}
	number := func(from, to int) int {
		n := 0
		for _, c := range []byte(s[from:to]) {
			if c < '0' || c > '9' {
				return -1 << 20
			}
			n = n*10 + int(c-'0')
		}
		return n
	}
	year, month, day := number(0, 4), number(4, 6), number(6, 8)
	hour, minute, second := number(9, 11), number(11, 13), number(13, 15)
	if year < 0 || month < 1 || month > 12 || day < 1 || day > 31 || hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 60 {
		return time.Time{}, false
	}
	t := time.Date(year, time.Month(month), day, hour, minute, second, 0, time.UTC)
	if t.Day() != day && second < 60 {
		return time.Time{}, false // 31 April
	}
	return t, true
}
