package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"
)

const (
	// TokenLifetime is how long a bearer token is good for, if its key lives so long.
	TokenLifetime = time.Hour

	tokenVersion  = "th1"
	tokenBytesMax = 512
	tokenNonce    = 12
	// tokenPurpose parts the key that signs tokens from those that sign requests.
	tokenPurpose = "tapehouse bearer token 1"
)

// Tokens makes and checks bearer tokens, for protocols whose clients exchange a
// credential for one. A token names an access key and is signed with a key that
// is derived from its secret:
//
//	th1.base64url({"k":key id,"i":issued,"e":expires,"n":nonce}).base64url(HMAC-SHA256(HMAC-SHA256(secret, purpose), what is before))
//
// Nothing is stored: a token is good as long as its hour has not passed and its
// access key is there, unexpired and with the same secret. So revoking the key
// revokes its tokens, as fast as its signatures. It is safe for concurrent use.
type Tokens struct {
	keys Keys
	now  func() time.Time
}

// NewTokens returns the tokens of keys. A nil now is time.Now.
func NewTokens(keys Keys, now func() time.Time) *Tokens {
	if now == nil {
		now = time.Now
	}
	return &Tokens{keys, now}
}

type tokenClaims struct {
	Key     string `json:"k"`
	Issued  int64  `json:"i"` // Unix seconds
	Expires int64  `json:"e"`
	Nonce   string `json:"n"`
}

var (
	errToken        = &Error{CodeUnrecognizedClient, "The bearer token is not valid: ask for one with an access key that is."}
	errTokenExpired = &Error{CodeUnrecognizedClient, "The bearer token has expired: ask for another."}
)

// Issue returns a token for the access key, and for how long it is good. The
// error is an *Error, alike for an unknown id and a wrong secret.
func (t *Tokens) Issue(id, secret string) (token string, life time.Duration, err error) {
	k, ok := t.keys.AccessKey(id)
	// A secret that nobody has, so that an unknown id takes the same time.
	want := sha256.Sum256([]byte(k.Secret))
	got := sha256.Sum256([]byte(secret))
	now := t.now()
	if subtle.ConstantTimeCompare(want[:], got[:]) != 1 || !ok || k.Secret == "" || k.Expired(now) {
		return "", 0, errUnrecognized
	}
	ends := now.Add(TokenLifetime)
	if !k.ExpiresAt.IsZero() && k.ExpiresAt.Before(ends) {
		ends = k.ExpiresAt
	}
	var nonce [tokenNonce]byte
	_, _ = rand.Read(nonce[:]) // never fails: crypto/rand ends the process instead
	claims, err := json.Marshal(tokenClaims{k.ID, now.Unix(), ends.Unix(), base64.RawURLEncoding.EncodeToString(nonce[:])})
	if err != nil {
		return "", 0, err
	}
	signed := tokenVersion + "." + base64.RawURLEncoding.EncodeToString(claims)
	mac := tokenMAC(k.Secret, signed)
	touch(k.used, now)
	return signed + "." + base64.RawURLEncoding.EncodeToString(mac[:]), ends.Sub(now), nil
}

func tokenMAC(secret, signed string) [sha256.Size]byte {
	key := hmacSHA256([]byte(secret), []byte(tokenPurpose))
	return hmacSHA256(key[:], []byte(signed))
}

// Check returns the access key that a token stands for. The error is an *Error.
func (t *Tokens) Check(token string) (AccessKey, error) {
	signed, sum, ok := cutLastDot(token)
	if !ok || len(token) > tokenBytesMax {
		return AccessKey{}, errToken
	}
	version, body, ok := strings.Cut(signed, ".")
	if !ok || version != tokenVersion {
		return AccessKey{}, errToken
	}
	mac, err := base64.RawURLEncoding.Strict().DecodeString(sum)
	if err != nil || len(mac) != sha256.Size {
		return AccessKey{}, errToken
	}
	text, err := base64.RawURLEncoding.Strict().DecodeString(body)
	if err != nil {
		return AccessKey{}, errToken
	}
	var claims tokenClaims
	if json.Unmarshal(text, &claims) != nil || claims.Key == "" {
		return AccessKey{}, errToken
	}
	k, ok := t.keys.AccessKey(claims.Key)
	want := tokenMAC(k.Secret, signed)
	if subtle.ConstantTimeCompare(want[:], mac) != 1 || !ok || k.Secret == "" {
		return AccessKey{}, errToken
	}
	now := t.now()
	if now.Unix() >= claims.Expires || k.Expired(now) {
		return AccessKey{}, errTokenExpired
	}
	if claims.Issued > now.Add(SkewMax).Unix() || claims.Expires-claims.Issued > int64(TokenLifetime/time.Second) {
		return AccessKey{}, errToken
	}
	touch(k.used, now)
	return k, nil
}

func cutLastDot(s string) (before, after string, ok bool) {
	i := strings.LastIndexByte(s, '.')
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}
