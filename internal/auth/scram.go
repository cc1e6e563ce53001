package auth

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"

	"github.com/xdg-go/stringprep"
)

// ErrSCRAMVerifier is the root of every error about a malformed verifier or
// about a password of which none can be made.
var ErrSCRAMVerifier = errors.New("invalid SCRAM verifier")

// SCRAMIterations is the PBKDF2 work of a new verifier. It is PostgreSQL's and
// RFC 7677's number: passwords made by this program carry 160 random bits, so
// that more work would slow each connection without protecting anything.
const SCRAMIterations = 4096

const (
	scramMechanism     = "SCRAM-SHA-256"
	scramSaltSizeBytes = 16
	// Bounds of what is read back: less is not worth storing, more would let a
	// hand-edited file occupy a core for minutes per connection.
	scramIterationsMin    = 1
	scramIterationsMax    = 10_000_000
	scramSaltSizeBytesMax = 1024
)

// A SCRAMVerifier is what a server keeps in place of a password (RFC 5802 §3,
// with SHA-256 as in RFC 7677). Who reads it can check a password but neither
// learn it nor log in with it; he can pose as the server to that user.
//
// The text form is PostgreSQL's, so that pg_authid.rolpassword can be carried
// over in either direction:
//
//	SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>     (base64)
type SCRAMVerifier struct {
	Iterations int
	Salt       []byte
	StoredKey  [sha256.Size]byte
	ServerKey  [sha256.Size]byte
}

// NewSCRAMVerifier makes a verifier of password with a fresh random salt.
func NewSCRAMVerifier(password string) (SCRAMVerifier, error) {
	salt := make([]byte, scramSaltSizeBytes)
	_, _ = rand.Read(salt) // never fails: crypto/rand aborts the program instead
	return DeriveSCRAMVerifier(password, salt, SCRAMIterations)
}

// DeriveSCRAMVerifier computes the verifier of password for a given salt and
// number of iterations. The salt is copied. An empty password is refused.
func DeriveSCRAMVerifier(password string, salt []byte, iterations int) (SCRAMVerifier, error) {
	switch {
	case password == "":
		return SCRAMVerifier{}, fmt.Errorf("derive SCRAM verifier: %w: the password is empty", ErrSCRAMVerifier)
	case len(salt) == 0 || len(salt) > scramSaltSizeBytesMax:
		return SCRAMVerifier{}, fmt.Errorf("derive SCRAM verifier: %w: salt of %d bytes", ErrSCRAMVerifier, len(salt))
	case iterations < scramIterationsMin || iterations > scramIterationsMax:
		return SCRAMVerifier{}, fmt.Errorf("derive SCRAM verifier: %w: %d iterations", ErrSCRAMVerifier, iterations)
	}
	salted, err := pbkdf2.Key(sha256.New, prepareSCRAMPassword(password), salt, iterations, sha256.Size)
	if err != nil {
		return SCRAMVerifier{}, fmt.Errorf("derive SCRAM verifier: %w", err)
	}
	v := SCRAMVerifier{Iterations: iterations, Salt: append([]byte(nil), salt...)}
	v.StoredKey = sha256.Sum256(scramHMAC(salted, "Client Key"))
	copy(v.ServerKey[:], scramHMAC(salted, "Server Key"))
	return v, nil
}

// DecoySCRAMVerifier answers for a user that does not exist, so that the
// exchange with an unknown user has the form, the length and the cost of one
// with a known user and a wrong password. The salt is a function of secret and
// user: asking twice gives the same answer, as it would for a real user. No
// password matches. secret is at least 16 random bytes of the server's own.
func DecoySCRAMVerifier(secret []byte, user string) SCRAMVerifier {
	v := SCRAMVerifier{Iterations: SCRAMIterations, Salt: scramHMAC(secret, "salt\x00"+user)[:scramSaltSizeBytes]}
	// Keys without a known preimage: no client key hashes to StoredKey.
	copy(v.StoredKey[:], scramHMAC(secret, "stored\x00"+user))
	copy(v.ServerKey[:], scramHMAC(secret, "server\x00"+user))
	return v
}

// Matches reports whether v was made of password, in constant time with
// respect to the keys.
func (v SCRAMVerifier) Matches(password string) bool {
	w, err := DeriveSCRAMVerifier(password, v.Salt, v.Iterations)
	if err != nil {
		return false
	}
	return subtle.ConstantTimeCompare(v.StoredKey[:], w.StoredKey[:])&
		subtle.ConstantTimeCompare(v.ServerKey[:], w.ServerKey[:]) == 1
}

// MarshalText implements encoding.TextMarshaler with the form drawn at the type.
func (v SCRAMVerifier) MarshalText() ([]byte, error) {
	if len(v.Salt) == 0 {
		return nil, fmt.Errorf("marshal SCRAM verifier: %w: it has no salt", ErrSCRAMVerifier)
	}
	b := append([]byte(nil), scramMechanism+"$"...)
	b = strconv.AppendInt(b, int64(v.Iterations), 10)
	b = append(b, ':')
	b = base64.StdEncoding.AppendEncode(b, v.Salt)
	b = append(b, '$')
	b = base64.StdEncoding.AppendEncode(b, v.StoredKey[:])
	b = append(b, ':')
	return base64.StdEncoding.AppendEncode(b, v.ServerKey[:]), nil
}

// UnmarshalText implements encoding.TextUnmarshaler; see ParseSCRAMVerifier.
func (v *SCRAMVerifier) UnmarshalText(b []byte) error {
	w, err := ParseSCRAMVerifier(string(b))
	if err != nil {
		return err
	}
	*v = w
	return nil
}

// ParseSCRAMVerifier reads the form that MarshalText writes. The error never
// quotes the text.
func ParseSCRAMVerifier(s string) (SCRAMVerifier, error) {
	refuse := func(what string) (SCRAMVerifier, error) {
		return SCRAMVerifier{}, fmt.Errorf("parse SCRAM verifier: %w: %s", ErrSCRAMVerifier, what)
	}
	parts := strings.Split(s, "$")
	if len(parts) != 3 || parts[0] != scramMechanism {
		return refuse("want " + scramMechanism + "$iterations:salt$StoredKey:ServerKey")
	}
	iterations, salt, ok1 := strings.Cut(parts[1], ":")
	stored, server, ok2 := strings.Cut(parts[2], ":")
	if !ok1 || !ok2 {
		return refuse("a ':' is missing")
	}
	var v SCRAMVerifier
	n, err := strconv.Atoi(iterations)
	if err != nil || n < scramIterationsMin || n > scramIterationsMax {
		return refuse("iterations out of range")
	}
	v.Iterations = n
	if v.Salt, err = base64.StdEncoding.DecodeString(salt); err != nil || len(v.Salt) == 0 || len(v.Salt) > scramSaltSizeBytesMax {
		return refuse("bad salt")
	}
	for _, key := range []struct {
		text string
		dst  *[sha256.Size]byte
	}{{stored, &v.StoredKey}, {server, &v.ServerKey}} {
		b, err := base64.StdEncoding.DecodeString(key.text)
		if err != nil || len(b) != sha256.Size {
			return refuse("bad key")
		}
		copy(key.dst[:], b)
	}
	return v, nil
}

// String never shows the keys: a verifier printed by accident stays a secret.
func (v SCRAMVerifier) String() string { return scramMechanism + "$…" }

// GoString is String, for %#v.
func (v SCRAMVerifier) GoString() string { return v.String() }

// LogValue implements slog.LogValuer.
func (v SCRAMVerifier) LogValue() slog.Value { return slog.StringValue(v.String()) }

// prepareSCRAMPassword applies SASLprep (RFC 4013) and, like PostgreSQL and
// libpq, takes the bytes as they are where SASLprep refuses them: otherwise a
// client would compute another key than the server.
func prepareSCRAMPassword(password string) string {
	p, err := stringprep.SASLprep.Prepare(password)
	if err != nil || p == "" {
		return password
	}
	return p
}

func scramHMAC(key []byte, message string) []byte {
	m := hmac.New(sha256.New, key)
	m.Write([]byte(message))
	return m.Sum(nil)
}
