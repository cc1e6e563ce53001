package auth

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/tapehouse/tapehouse/internal/fsys"
)

// CredentialsFile is the name of the credentials file in a data directory.
const CredentialsFile = "credentials.json"

// credentialsVersion is the version of the file that this program writes, and
// the newest that it reads. docs/formats/credentials.md describes it.
const credentialsVersion = 1

// ErrCredentials is the root of every error about the content of a credentials
// file. The text says how to recover; it never holds a secret.
var ErrCredentials = errors.New("credentials file")

// SQLUser is a user of the SQL endpoint.
type SQLUser struct {
	Name     string `json:"name"`
	Password string `json:"password"`
}

// Credentials are all that a data directory lets in. They are immutable after
// loading. The first of each list is the one that Env exports.
type Credentials struct {
	Keys  []AccessKey
	Users []SQLUser
}

// credentialsDocument is the file's form.
type credentialsDocument struct {
	Version int         `json:"version"`
	Keys    []AccessKey `json:"aws"`
	Users   []SQLUser   `json:"sql"`
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

// Load reads the credentials under dir; the error is fs.ErrNotExist if there
// are none yet.
func Load(files fsys.FS, dir string) (*Credentials, error) {
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
	data, err := fsys.ReadFile(files, name)
	if err != nil {
		return nil, fmt.Errorf("read credentials: %w", err)
	}
	c, err := parseCredentials(data)
	if err != nil {
		return nil, fmt.Errorf("%w %s: %w", ErrCredentials, name, err)
	}
	return c, nil
}

// LoadOrCreate reads the credentials under dir and makes random ones, durably,
// if there are none. The caller owns dir: two processes must not call it at
// once on the same directory.
func LoadOrCreate(files fsys.FS, dir string) (*Credentials, error) {
	c, err := Load(files, dir)
	if !errors.Is(err, fs.ErrNotExist) {
		return c, err
	}
	c = &Credentials{
		Keys:  []AccessKey{{Name: "default", ID: "AKIA" + random(16, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"), Secret: random(40, alphanumeric)}},
		Users: []SQLUser{{Name: "tapehouse", Password: random(32, alphanumeric)}},
	}
	data, err := json.MarshalIndent(credentialsDocument{credentialsVersion, c.Keys, c.Users}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode credentials: %w", err)
	}
	if err := files.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("write credentials: %w", err)
	}
	if err := files.SyncDir(filepath.Dir(dir)); err != nil { // dir itself must outlive a crash
		return nil, fmt.Errorf("write credentials: %w", err)
	}
	if err := fsys.WriteFileAtomic(files, filepath.Join(dir, CredentialsFile), append(data, '\n'), 0o600); err != nil {
		return nil, fmt.Errorf("write credentials: %w", err)
	}
	return c, nil
}

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

func parseCredentials(data []byte) (*Credentials, error) {
	var doc credentialsDocument
	// The version comes first: a newer file may have members unknown here.
	if err := json.Unmarshal(data, &struct {
		Version *int `json:"version"`
	}{&doc.Version}); err != nil {
		return nil, errors.New("not valid JSON; restore it from a copy, or remove it to have new credentials made")
	}
	if doc.Version != credentialsVersion {
		return nil, fmt.Errorf("version %d is not known to this program, which reads version %d", doc.Version, credentialsVersion)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&doc); err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	if len(doc.Keys) == 0 || len(doc.Users) == 0 {
		return nil, errors.New("needs at least one entry under aws and under sql")
	}
	seen := map[string]bool{}
	for _, k := range doc.Keys {
		if len(k.ID) < 16 || len(k.ID) > 128 || strings.Trim(k.ID, alphanumeric+"_") != "" || len(k.Secret) < 16 || k.Name == "" {
			return nil, fmt.Errorf("aws entry %q: needs a name, an access_key_id of 16 to 128 letters and digits and a secret_access_key of at least 16 characters", k.Name)
		}
		if seen[k.ID] {
			return nil, fmt.Errorf("aws entry %q: its access_key_id stands twice", k.Name)
		}
		seen[k.ID] = true
	}
	clear(seen)
	for _, u := range doc.Users {
		if u.Name == "" || u.Password == "" {
			return nil, fmt.Errorf("sql entry %q: needs a name and a password", u.Name)
		}
		if seen[u.Name] {
			return nil, fmt.Errorf("sql entry %q stands twice", u.Name)
		}
		seen[u.Name] = true
	}
	return &Credentials{doc.Keys, doc.Users}, nil
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
// their way here.
func (c *Credentials) Env(e Endpoints) ([]Variable, error) {
	host, port, err := net.SplitHostPort(e.SQLAddr)
	if err != nil {
		return nil, fmt.Errorf("split SQL address: %w", err)
	}
	return []Variable{
		{"AWS_ENDPOINT_URL", e.AWSURL},
		{"AWS_ACCESS_KEY_ID", c.Keys[0].ID},
		{"AWS_SECRET_ACCESS_KEY", c.Keys[0].Secret},
		{"AWS_REGION", e.Region},
		{"AWS_DEFAULT_REGION", e.Region},
		{"PGHOST", host},
		{"PGPORT", port},
		{"PGUSER", c.Users[0].Name},
		{"PGPASSWORD", c.Users[0].Password},
		{"PGDATABASE", e.Database},
	}, nil
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
