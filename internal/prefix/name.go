package prefix

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Seed is the source of an object's random strings and its UUID. It stands in the
// flush plan, so that the plan carried out again gives the same name.
type Seed [16]byte

// NewSeed returns a seed from the system's random source.
func NewSeed() Seed {
	var s Seed
	_, _ = rand.Read(s[:]) // never fails (documented since Go 1.24)
	return s
}

// Object derives the seed of the n-th object of a plan whose seed is s.
func (s Seed) Object(n int) Seed {
	sum := s.sum("object", n)
	return Seed(sum[:16])
}

func (s Seed) sum(purpose string, n int) [32]byte {
	b := append(s[:], purpose...)
	return sha256.Sum256(binary.BigEndian.AppendUint64(b, uint64(n)))
}

const (
	randomCharacters = "0123456789abcdefghijklmnopqrstuvwxyz"
	randomLength     = 11
)

// randomString is the n-th random string of a name.
func (s Seed) randomString(n int) string {
	sum := s.sum("random-string", n)
	// 36¹¹ < 2⁶⁴, and the remainder's bias is below one in a hundred.
	v := binary.BigEndian.Uint64(sum[:8])
	var b [randomLength]byte
	for i := range b {
		b[i] = randomCharacters[v%36]
		v /= 36
	}
	return string(b[:])
}

// uuid is a UUID in the form of version 4.
func (s Seed) uuid() string {
	sum := s.sum("uuid", 0)
	u := sum[:16]
	u[6] = u[6]&0x0f | 0x40
	u[8] = u[8]&0x3f | 0x80
	x := hex.EncodeToString(u)
	return x[:8] + "-" + x[8:12] + "-" + x[12:16] + "-" + x[16:20] + "-" + x[20:]
}

// Object is what an object's name is made of.
type Object struct {
	Stream    string    // 1 to 64 characters of [a-zA-Z0-9_.-]
	Version   int       // the stream's configuration version, from 1
	OldestAt  time.Time // arrival of the oldest record in the object
	Seed      Seed
	Values    map[Key]string // the partition's keys, as given to Partition; nil without
	ErrorType string         // of an error prefix: processing-failed, format-conversion-failed, …
	Extension string         // ".gz" and the like, or ""
}

// Name returns the object's name: the evaluated prefix, then
// STREAM-VERSION-yyyy-MM-dd-HH-mm-ss-UUID and the extension, all times in the
// prefix's zone. The same Object gives the same name. It is an error, ErrRecord,
// only if Partition refuses o.Values.
func (e *Expression) Name(o Object) (string, error) {
	evaluated, err := e.join(evaluation{at: o.OldestAt.In(e.zone), seed: o.Seed, values: o.Values, errorType: o.ErrorType})
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrRecord, err)
	}
	var b strings.Builder
	b.WriteString(evaluated)
	b.WriteString(o.Stream)
	b.WriteByte('-')
	b.WriteString(strconv.Itoa(o.Version))
	b.WriteString(o.OldestAt.In(e.zone).Format("-2006-01-02-15-04-05-"))
	b.WriteString(o.Seed.uuid())
	b.WriteString(escapeExtension(o.Extension))
	return b.String(), nil
}

// escapeExtension writes the characters that AWS's FileExtension has and names
// have not, ! * ' ( ), as a partition key's value would be.
func escapeExtension(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if nameByte(s[i]) {
			b.WriteByte(s[i])
		} else {
			escapeByte(&b, s[i])
		}
	}
	return b.String()
}

// Partition judges one record's partition keys and returns the text that stands for
// its partition: two records have the same if and only if all the keys that the
// expression uses have the same values, so that they belong into the same objects.
// An error wraps ErrRecord: a key is missing or empty, or the name would be too long or
// have an empty segment.
func (e *Expression) Partition(values map[Key]string) (string, error) {
	if len(e.keys) == 0 {
		return "", nil
	}
	if _, err := e.join(evaluation{widest: true, values: values}); err != nil {
		return "", fmt.Errorf("%w: %w", ErrRecord, err)
	}
	var b []byte
	for _, k := range e.keys {
		b = binary.AppendUvarint(b, uint64(len(values[k])))
		b = append(b, values[k]...)
	}
	return base64.RawURLEncoding.EncodeToString(b), nil
}

// evaluation is what the parts of an expression are evaluated with.
type evaluation struct {
	at        time.Time // in the expression's zone
	widest    bool      // instead of at: as wide as timestamps get
	seed      Seed
	values    map[Key]string
	errorType string
}

// join evaluates the parts and checks the whole.
func (e *Expression) join(v evaluation) (string, error) {
	var b strings.Builder
	randoms := 0
	for i := range e.parts {
		switch p := &e.parts[i]; p.kind {
		case literalPart:
			b.WriteString(p.text)
		case timePart:
			if v.widest {
				b.WriteString(p.widest)
			} else {
				b.WriteString(p.pattern.format(v.at))
			}
		case randomPart:
			b.WriteString(v.seed.randomString(randoms))
			randoms++
		case errorTypePart:
			if err := checkCharacters(v.errorType); err != nil || v.errorType == "" {
				panic(fmt.Sprintf("prefix: error output type %q", v.errorType))
			}
			b.WriteString(v.errorType)
		case keyPart:
			value, ok := v.values[p.key]
			if !ok {
				return "", fmt.Errorf("partition key %s is missing", p.key.Name)
			}
			if value == "" {
				return "", fmt.Errorf("partition key %s is empty", p.key.Name)
			}
			if len(value) > EvaluatedCharactersMax {
				return "", fmt.Errorf("partition key %s has %d bytes, above the limit of %d", p.key.Name, len(value), EvaluatedCharactersMax)
			}
			escapeValue(&b, value)
		}
	}
	s := b.String()
	return s, checkEvaluated(s)
}

func checkEvaluated(s string) error {
	if n := utf8.RuneCountInString(s); n > EvaluatedCharactersMax {
		return fmt.Errorf("the prefix %.80q… has %d characters when it is evaluated, above the limit of %d", s, n, EvaluatedCharactersMax)
	}
	segments := strings.Split(s, "/")
	for i, segment := range segments {
		last := i == len(segments)-1
		switch {
		case segment == "" && !last:
			return fmt.Errorf("the prefix %.80q has an empty segment when it is evaluated: names neither begin with '/' nor have two in a row", s)
		case segment != "" && segment[0] == '.':
			return fmt.Errorf("the prefix %.80q has a segment that begins with '.'", s)
		case len(segment) > segmentBytesMax, last && len(segment) > segmentBytesMax-fileBytesMax-extensionBytesMax:
			return fmt.Errorf("the prefix %.80q… has a segment of %d characters, which leaves no room for the object's name: part it with '/'", s, len(segment))
		}
	}
	return nil
}

// extensionBytesMax is what names leave for an extension. AWS's model allows
// FileExtension 128 characters, which no one uses.
const extensionBytesMax = 48

// CheckExtension judges a FileExtension: "" or '.' and characters of
// [0-9a-z!\-_.*'()]. Errors wrap ErrInvalid.
func CheckExtension(s string) error {
	if s == "" {
		return nil
	}
	ok := s[0] == '.' && len(s) > 1
	for i := range len(s) {
		c := s[i]
		ok = ok && ('0' <= c && c <= '9' || 'a' <= c && c <= 'z' || strings.IndexByte("!-_.*'()", c) >= 0)
	}
	if !ok {
		return fmt.Errorf("%w: FileExtension %q: want '.' and characters of 0-9 a-z ! - _ . * ' ( )", ErrInvalid, s)
	}
	if n := len(escapeExtension(s)); n > extensionBytesMax {
		return fmt.Errorf("%w: FileExtension %q takes %d characters, above the limit of %d", ErrInvalid, s, n, extensionBytesMax)
	}
	return nil
}

// nameByte reports whether package lake allows b in a name's segment.
func nameByte(b byte) bool {
	return 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || '0' <= b && b <= '9' ||
		strings.IndexByte("._=+@~-", b) >= 0
}

// checkCharacters judges text that the configuration gives.
func checkCharacters(s string) error {
	for _, r := range s {
		if r != '/' && (r >= utf8.RuneSelf || !nameByte(byte(r))) {
			return fmt.Errorf("character %q is not allowed in object names: use a-z A-Z 0-9 . _ = + @ ~ - and /", r)
		}
	}
	return nil
}

// escapeValue writes a partition key's value; see the package comment.
func escapeValue(b *strings.Builder, s string) {
	begins := true
	for i := range len(s) {
		switch c := s[i]; {
		case c == '/':
			b.WriteByte('/')
			begins = true
			continue
		case c == '~', c == '.' && begins, !nameByte(c):
			escapeByte(b, c)
		default:
			b.WriteByte(c)
		}
		begins = false
	}
}

func escapeByte(b *strings.Builder, c byte) {
	const digits = "0123456789ABCDEF"
	b.WriteByte('~')
	b.WriteByte(digits[c>>4])
	b.WriteByte(digits[c&15])
}
