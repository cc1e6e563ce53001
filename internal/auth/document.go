package auth

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tapehouse/tapehouse/internal/fsys"
)

const (
	// fileVersion is the version of the credentials file that this program
	// writes, and the newest that it reads. docs/formats/credentials.md
	// describes both versions.
	fileVersion = 2
	// fileSizeBytesMax bounds what is read: thousands of principals.
	fileSizeBytesMax = 1 << 20
	// nameBytesMax is AWS's bound on the name of a user.
	nameBytesMax = 64
)

// document is the credentials file, version 2.
type document struct {
	Version int            `json:"version"`
	AWS     []awsPrincipal `json:"aws"`
	SQL     []sqlPrincipal `json:"sql"`
}

// awsPrincipal is a name with its keys, the newest first.
type awsPrincipal struct {
	Name  string        `json:"name"`
	Allow []Grant       `json:"allow"`
	Keys  []keyDocument `json:"keys"`
}

type keyDocument struct {
	ID        string    `json:"access_key_id"`
	Secret    string    `json:"secret_access_key"`
	CreatedAt time.Time `json:"created_at,omitzero"`
	ExpiresAt time.Time `json:"expires_at,omitzero"`
}

type sqlPrincipal struct {
	Name      string    `json:"name"`
	Allow     []Grant   `json:"allow"`
	Password  string    `json:"password"`
	CreatedAt time.Time `json:"created_at,omitzero"`
}

// documentV1 is version 1: every key and every user may do everything.
type documentV1 struct {
	Version int `json:"version"`
	Keys    []struct {
		Name   string `json:"name"`
		ID     string `json:"access_key_id"`
		Secret string `json:"secret_access_key"`
	} `json:"aws"`
	Users []struct {
		Name     string `json:"name"`
		Password string `json:"password"`
	} `json:"sql"`
}

// upgrade gives version 1 the form of version 2. Keys of one name become keys
// of one principal.
func (d *documentV1) upgrade() *document {
	out := &document{Version: fileVersion}
	everything := Administrator.Grants()
	for _, k := range d.Keys {
		key := keyDocument{ID: k.ID, Secret: k.Secret}
		if i := slices.IndexFunc(out.AWS, func(p awsPrincipal) bool { return p.Name == k.Name }); i >= 0 {
			out.AWS[i].Keys = append(out.AWS[i].Keys, key)
			continue
		}
		out.AWS = append(out.AWS, awsPrincipal{Name: k.Name, Allow: everything, Keys: []keyDocument{key}})
	}
	for _, u := range d.Users {
		out.SQL = append(out.SQL, sqlPrincipal{Name: u.Name, Allow: everything, Password: u.Password})
	}
	return out
}

// parseDocument decodes and checks a file of any known version. Its errors
// quote names, never secrets.
func parseDocument(data []byte) (*document, error) {
	// The version comes first: a newer file may have members unknown here.
	var head struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return nil, errors.New("not valid JSON; restore it from a copy, or remove it to have new credentials made")
	}
	doc := &document{}
	var err error
	switch head.Version {
	case 1:
		var old documentV1
		err = decodeStrict(data, &old)
		doc = old.upgrade()
	case fileVersion:
		err = decodeStrict(data, doc)
	default:
		return nil, fmt.Errorf("version %d is not known to this program, which reads up to version %d", head.Version, fileVersion)
	}
	if err != nil {
		return nil, err
	}
	return doc, doc.check()
}

// decodeStrict refuses members that are not known and anything after the
// document.
func decodeStrict(data []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	err := d.Decode(into)
	var kind *json.UnmarshalTypeError
	var at *time.ParseError
	switch {
	case errors.As(err, &kind): // its own text may quote the value
		return fmt.Errorf("decode: %s does not have the form that it should", kind.Field)
	case errors.As(err, &at):
		return errors.New("decode: a time is not of the form 2006-01-02T15:04:05Z")
	case err != nil && strings.HasPrefix(err.Error(), "json: unknown field"):
		return fmt.Errorf("decode: %w", err)
	case err != nil:
		return errors.New("decode: not the form that docs/formats/credentials.md describes")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("decode: something follows the document")
	}
	return nil
}

// check refuses what could not be used as it stands.
func (d *document) check() error {
	if len(d.AWS) == 0 || len(d.SQL) == 0 {
		return errors.New("needs at least one entry under aws and under sql")
	}
	names, ids := map[string]bool{}, map[string]bool{}
	for _, p := range d.AWS {
		if names[p.Name] {
			return fmt.Errorf("aws entry %q stands twice", bound(p.Name))
		}
		names[p.Name] = true
		if _, err := NewPolicy(p.Allow...); err != nil {
			return fmt.Errorf("aws entry %q: %w", bound(p.Name), err)
		}
		if len(p.Keys) == 0 {
			return fmt.Errorf("aws entry %q: has no keys", bound(p.Name))
		}
		for _, k := range p.Keys {
			if len(k.ID) < 16 || len(k.ID) > 128 || strings.Trim(k.ID, alphanumeric+"_") != "" || len(k.Secret) < 16 || p.Name == "" {
				return fmt.Errorf("aws entry %q: needs a name, an access_key_id of 16 to 128 letters and digits and a secret_access_key of at least 16 characters", bound(p.Name))
			}
			if ids[k.ID] {
				return fmt.Errorf("aws entry %q: its access_key_id stands twice", bound(p.Name))
			}
			ids[k.ID] = true
		}
	}
	clear(names)
	for _, u := range d.SQL {
		if u.Name == "" || u.Password == "" {
			return fmt.Errorf("sql entry %q: needs a name and a password", bound(u.Name))
		}
		if names[u.Name] {
			return fmt.Errorf("sql entry %q stands twice", bound(u.Name))
		}
		names[u.Name] = true
		if _, err := NewPolicy(u.Allow...); err != nil {
			return fmt.Errorf("sql entry %q: %w", bound(u.Name), err)
		}
	}
	return nil
}

// credentials is the form in which a document is used: administrators first.
func (d *document) credentials() (*Credentials, error) {
	c := &Credentials{}
	var scopedKeys []AccessKey
	var scopedUsers []SQLUser
	for _, p := range d.AWS {
		policy, err := NewPolicy(p.Allow...)
		if err != nil {
			return nil, err
		}
		to := &scopedKeys
		if policy.administers() {
			to = &c.Keys
		}
		for _, k := range p.Keys {
			*to = append(*to, AccessKey{Name: p.Name, ID: k.ID, Secret: k.Secret, Policy: policy, CreatedAt: k.CreatedAt, ExpiresAt: k.ExpiresAt})
		}
	}
	for _, u := range d.SQL {
		policy, err := NewPolicy(u.Allow...)
		if err != nil {
			return nil, err
		}
		to := &scopedUsers
		if policy.administers() {
			to = &c.Users
		}
		*to = append(*to, SQLUser{Name: u.Name, Password: u.Password, Policy: policy, CreatedAt: u.CreatedAt})
	}
	c.Keys, c.Users = append(c.Keys, scopedKeys...), append(c.Users, scopedUsers...)
	return c, nil
}

// writeDocument replaces the file, durably and as one step.
func writeDocument(files fsys.FS, dir string, d *document) (*Credentials, error) {
	d.Version = fileVersion
	if err := d.check(); err != nil {
		return nil, fmt.Errorf("write credentials: %w", err)
	}
	data, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode credentials: %w", err)
	}
	if len(data) >= fileSizeBytesMax {
		return nil, fmt.Errorf("write credentials: the file would have more than %d bytes: revoke what is not used", fileSizeBytesMax)
	}
	if err := fsys.WriteFileAtomic(files, filepath.Join(dir, CredentialsFile), append(data, '\n'), 0o600); err != nil {
		return nil, fmt.Errorf("write credentials: %w", err)
	}
	return d.credentials()
}
