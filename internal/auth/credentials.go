package auth

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tapehouse/tapehouse/internal/fsys"
)

// CredentialsFile is the name of the credentials file in a data directory.
const CredentialsFile = "credentials.json"

// ErrCredentials is the root of every error about the content of a credentials
// file. The text says how to recover; it never holds a secret.
var ErrCredentials = errors.New("credentials file")

// AccessKey is one AWS-style credential. Printed or logged it shows no secret.
type AccessKey struct {
	Name   string // whose it is: the principal
	ID     string
	Secret string
	// Policy is what the principal may do; nil is nothing.
	Policy    *Policy
	CreatedAt time.Time // zero if it is not known
	ExpiresAt time.Time // zero: never

	used *atomic.Int64 // Unix seconds, where a Store keeps them
}

// Expired reports whether the key's time is over.
func (k AccessKey) Expired(now time.Time) bool {
	return !k.ExpiresAt.IsZero() && !now.Before(k.ExpiresAt)
}

// touch notes that the key was used. Most calls only read: one write a second
// keeps the line from moving between cores.
func touch(used *atomic.Int64, now time.Time) {
	if used == nil {
		return
	}
	if s := now.Unix(); used.Load() < s {
		used.Store(s)
	}
}

// String shows no secret.
func (k AccessKey) String() string { return k.Name + "/" + k.ID }

// GoString is String, for %#v.
func (k AccessKey) GoString() string { return k.String() }

// LogValue implements slog.LogValuer.
func (k AccessKey) LogValue() slog.Value { return slog.StringValue(k.String()) }

// SQLUser is a user of the SQL endpoint and of the console. Printed or logged
// it shows no secret.
type SQLUser struct {
	Name     string
	Password string
	// Policy is what the user may do; nil is nothing.
	Policy    *Policy
	CreatedAt time.Time // zero if it is not known
}

// String shows no secret.
func (u SQLUser) String() string { return u.Name }

// GoString is String, for %#v.
func (u SQLUser) GoString() string { return u.Name }

// LogValue implements slog.LogValuer.
func (u SQLUser) LogValue() slog.Value { return slog.StringValue(u.Name) }

// Credentials are all that a data directory lets in. They are immutable after
// loading. The first of each list is the administrator's newest, which the
// commands use and Env exports.
type Credentials struct {
	Keys  []AccessKey
	Users []SQLUser
}

// AccessKey implements Keys.
func (c *Credentials) AccessKey(id string) (AccessKey, bool) {
	for i := range c.Keys {
		if c.Keys[i].ID == id {
			return c.Keys[i], true
		}
	}
	return AccessKey{}, false
}

// User returns the SQL user of that name.
func (c *Credentials) User(name string) (SQLUser, bool) {
	for i := range c.Users {
		if c.Users[i].Name == name {
			return c.Users[i], true
		}
	}
	return SQLUser{}, false
}

// Named returns the credentials of one principal: its access keys, newest
// first, and its SQL user. Either list may be empty; if both are, there is no
// such principal.
func (c *Credentials) Named(name string) *Credentials {
	out := &Credentials{}
	for _, k := range c.Keys {
		if k.Name == name {
			out.Keys = append(out.Keys, k)
		}
	}
	if u, ok := c.User(name); ok {
		out.Users = append(out.Users, u)
	}
	return out
}

// Load reads the credentials under dir; the error is fs.ErrNotExist if there
// are none yet.
func Load(files fsys.FS, dir string) (*Credentials, error) {
	doc, err := readDocument(files, dir)
	if err != nil {
		return nil, err
	}
	return doc.credentials()
}

// readDocument reads and checks the file.
func readDocument(files fsys.FS, dir string) (*document, error) {
	name := filepath.Join(dir, CredentialsFile)
	info, err := files.Stat(name)
	if err != nil {
		return nil, fmt.Errorf("read credentials: %w", err)
	}
	// Only the operating system's files are read by others; Windows has no such
	// bits and shows 0666.
	if mode := info.Mode().Perm(); mode&0o077 != 0 && files == fsys.OS && runtime.GOOS != "windows" {
		return nil, fmt.Errorf("%w %s has mode %04o, so that others can read the secrets in it: chmod 600 %s", ErrCredentials, name, mode, ShellQuote(name))
	}
	if info.Size() > fileSizeBytesMax {
		return nil, fmt.Errorf("%w %s: has %d bytes, more than the %d that are read", ErrCredentials, name, info.Size(), fileSizeBytesMax)
	}
	data, err := fsys.ReadFile(files, name)
	if err != nil {
		return nil, fmt.Errorf("read credentials: %w", err)
	}
	doc, err := parseDocument(data)
	if err != nil {
		return nil, fmt.Errorf("%w %s: %w", ErrCredentials, name, err)
	}
	return doc, nil
}

// LoadOrCreate reads the credentials under dir and makes random ones, durably,
// if there are none: a key and a user that may do everything. The caller owns
// dir: two processes must not call it at once on the same directory.
func LoadOrCreate(files fsys.FS, dir string) (*Credentials, error) {
	c, err := Load(files, dir)
	if !errors.Is(err, fs.ErrNotExist) {
		return c, err
	}
	now := time.Now().UTC().Truncate(time.Second)
	everything := Administrator.Grants()
	doc := &document{
		AWS: []awsPrincipal{{Name: "default", Allow: everything, Keys: []keyDocument{newKey(now)}}},
		SQL: []sqlPrincipal{{Name: "tapehouse", Allow: everything, Password: newPassword(), CreatedAt: now}},
	}
	if err := files.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("write credentials: %w", err)
	}
	if err := files.SyncDir(filepath.Dir(dir)); err != nil { // dir itself must outlive a crash
		return nil, fmt.Errorf("write credentials: %w", err)
	}
	return writeDocument(files, dir, doc)
}

func newKey(now time.Time) keyDocument {
	return keyDocument{ID: "AKIA" + random(16, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"), Secret: random(40, alphanumeric), CreatedAt: now}
}

func newPassword() string { return random(32, alphanumeric) }

const alphanumeric = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

// random returns n characters of the alphabet, each equally likely.
func random(n int, alphabet string) string {
	out := make([]byte, 0, n)
	limit := 256 - 256%len(alphabet) // values from here on would favour the first characters
	var b [64]byte
	for len(out) < n {
		_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the process instead
		for _, x := range b {
			if int(x) < limit && len(out) < n {
				out = append(out, alphabet[int(x)%len(alphabet)])
			}
		}
	}
	return string(out)
}

// Endpoints are the addresses that Env exports.
type Endpoints struct {
	AWSURL   string // http://127.0.0.1:4566
	Region   string
	SQLAddr  string // host:port
	Database string
}

// Variable is one environment variable.
type Variable struct{ Name, Value string }

// Env returns the variables with which AWS clients and PostgreSQL clients find
// their way here: those of the first key and of the first user, as far as there
// are any.
func (c *Credentials) Env(e Endpoints) ([]Variable, error) {
	var out []Variable
	if len(c.Keys) > 0 {
		out = append(out,
			Variable{"AWS_ENDPOINT_URL", e.AWSURL},
			Variable{"AWS_ACCESS_KEY_ID", c.Keys[0].ID},
			Variable{"AWS_SECRET_ACCESS_KEY", c.Keys[0].Secret},
			Variable{"AWS_REGION", e.Region},
			Variable{"AWS_DEFAULT_REGION", e.Region})
	}
	if len(c.Users) > 0 {
		host, port, err := net.SplitHostPort(e.SQLAddr)
		if err != nil {
			return nil, fmt.Errorf("split SQL address: %w", err)
		}
		out = append(out,
			Variable{"PGHOST", host},
			Variable{"PGPORT", port},
			Variable{"PGUSER", c.Users[0].Name},
			Variable{"PGPASSWORD", c.Users[0].Password},
			Variable{"PGDATABASE", e.Database})
	}
	return out, nil
}

// AppendShell appends the variables as commands for a POSIX shell's eval.
// A session token or a profile left over from another account would win over
// the key, so both are unset.
func AppendShell(dst []byte, vars []Variable) []byte {
	dst = append(dst, "unset AWS_SESSION_TOKEN AWS_PROFILE\n"...)
	for _, v := range vars {
		dst = append(dst, "export "...)
		dst = append(dst, v.Name...)
		dst = append(dst, '=')
		dst = append(dst, ShellQuote(v.Value)...)
		dst = append(dst, '\n')
	}
	return dst
}

// ShellQuote quotes s so that a POSIX shell reads it as one word, unchanged.
func ShellQuote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
