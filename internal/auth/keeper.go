package auth

import (
	"context"
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
	// credentialsLock keeps two keepers of one directory apart.
	credentialsLock = "credentials.lock"
	// lockWait is how long a keeper waits for another, which needs milliseconds.
	lockWait = 5 * time.Second
	// keysMax is AWS's bound on the keys of a user: the one in use, and the one
	// that takes its place.
	keysMax = 2
	// OverlapMax bounds for how long a rotated key is valid beside the new one.
	OverlapMax = 90 * 24 * time.Hour
	// quietMin is how long a key must be unused before it is revoked without
	// being asked twice: longer than any client's retries.
	quietMin = 10 * time.Minute
)

// The errors of a Keeper that are decisions.
var (
	ErrNoCredential = errors.New("no such credential")
	ErrKeyInUse     = errors.New("the key is in use")
)

// Keeper changes the credentials of a data directory, whether or not a server
// runs on it. Every change replaces the file as one step; a running server
// takes it over by itself (see Store). It is safe for concurrent use, also by
// several processes.
type Keeper struct {
	FS  fsys.FS
	Dir string
	Now func() time.Time // nil is time.Now
}

// Kind is which face a credential opens.
type Kind string

// The kinds.
const (
	KindAWS Kind = "aws" // access keys of the AWS APIs
	KindSQL Kind = "sql" // a password of the SQL endpoint and the console
)

// Issued is a secret that was just made. It is nowhere else but in the file.
type Issued struct {
	Name   string
	Kind   Kind
	ID     string // of an access key
	Secret string // of the access key, or the password
	// OldID is the key that the new one takes the place of, and OldExpiresAt
	// when it ends. "" if there is none.
	OldID        string
	OldExpiresAt time.Time
}

// Listed is one secret as it may be shown.
type Listed struct {
	Name       string
	Kind       Kind
	ID         string // of an access key
	Policy     *Policy
	CreatedAt  time.Time // zero if it is not known
	ExpiresAt  time.Time // zero: never
	LastUsedAt time.Time // zero: not since it is noted
}

func (k *Keeper) now() time.Time {
	now := time.Now
	if k.Now != nil {
		now = k.Now
	}
	return now().UTC().Truncate(time.Second)
}

// change reads the file, lets edit change it, and writes it.
func (k *Keeper) change(ctx context.Context, edit func(d *document, now time.Time) error) error {
	// A file of another owner would be one that the server cannot read any more.
	if err := checkOwner(k.FS, filepath.Join(k.Dir, CredentialsFile)); err != nil {
		return err
	}
	if _, err := k.FS.Stat(filepath.Join(k.Dir, CredentialsFile)); err != nil {
		return fmt.Errorf("change credentials: %w", err)
	}
	lock, err := k.lock(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	d, err := readDocument(k.FS, k.Dir)
	if err != nil {
		return err
	}
	now := k.now()
	d.forgetExpired(now)
	if err := edit(d, now); err != nil {
		return err
	}
	if !d.administered() {
		return errors.New("this is the last credential of its kind that may do everything: create another first")
	}
	_, err = writeDocument(k.FS, k.Dir, d)
	return err
}

func (k *Keeper) lock(ctx context.Context) (io.Closer, error) {
	ctx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	for {
		lock, err := k.FS.Lock(filepath.Join(k.Dir, credentialsLock))
		var held fsys.ErrLocked
		if !errors.As(err, &held) {
			return lock, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("change credentials: %w", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// forgetExpired drops the keys whose time is over, except a principal's last.
func (d *document) forgetExpired(now time.Time) {
	for i := range d.AWS {
		keys := slices.DeleteFunc(slices.Clone(d.AWS[i].Keys), func(k keyDocument) bool {
			return !k.ExpiresAt.IsZero() && !now.Before(k.ExpiresAt)
		})
		if len(keys) > 0 {
			d.AWS[i].Keys = keys
		}
	}
}

// administered reports whether somebody who may do everything is left on both
// lists, with a key that does not end.
func (d *document) administered() bool {
	full := func(grants []Grant) bool {
		p, err := NewPolicy(grants...)
		return err == nil && p.administers()
	}
	return slices.ContainsFunc(d.AWS, func(p awsPrincipal) bool {
		return full(p.Allow) && slices.ContainsFunc(p.Keys, func(k keyDocument) bool { return k.ExpiresAt.IsZero() })
	}) && slices.ContainsFunc(d.SQL, func(p sqlPrincipal) bool { return full(p.Allow) })
}

// ValidName reports whether a principal may have the name: AWS's rule for users.
func ValidName(name string) bool {
	return name != "" && len(name) <= nameBytesMax && strings.Trim(name, alphanumeric+"_.@+=,-") == ""
}

// Create makes a principal of that kind with a random secret.
func (k *Keeper) Create(ctx context.Context, kind Kind, name string, grants ...Grant) (out Issued, err error) {
	if !ValidName(name) {
		return out, fmt.Errorf("the name %q is not one of 1 to %d letters, digits and _.@+=,-", bound(name), nameBytesMax)
	}
	if _, err := NewPolicy(grants...); err != nil {
		return out, err
	}
	err = k.change(ctx, func(d *document, now time.Time) error {
		out = Issued{Name: name, Kind: kind}
		if kind == KindSQL {
			if d.sql(name) >= 0 {
				return fmt.Errorf("there is a SQL user %s already: rotate it, or revoke it first", name)
			}
			out.Secret = newPassword()
			d.SQL = append(d.SQL, sqlPrincipal{Name: name, Allow: grants, Password: out.Secret, CreatedAt: now})
			return nil
		}
		if d.aws(name) >= 0 {
			return fmt.Errorf("there is an access key named %s already: rotate it, or revoke it first", name)
		}
		key := newKey(now)
		out.ID, out.Secret = key.ID, key.Secret
		d.AWS = append(d.AWS, awsPrincipal{Name: name, Allow: grants, Keys: []keyDocument{key}})
		return nil
	})
	return out, err
}

func (d *document) aws(name string) int {
	return slices.IndexFunc(d.AWS, func(p awsPrincipal) bool { return p.Name == name })
}

func (d *document) sql(name string) int {
	return slices.IndexFunc(d.SQL, func(p sqlPrincipal) bool { return p.Name == name })
}

func noSuch(kind Kind, name string) error {
	what := "no access key is named"
	if kind == KindSQL {
		what = "there is no SQL user"
	}
	return fmt.Errorf("%w: %s %s; tapehouse credentials list shows what there is", ErrNoCredential, what, bound(name))
}

// Rotate makes a new secret for a principal. The former key stays valid for
// overlap, so that every producer can change over without a failed put. A SQL
// password changes at once, whatever the overlap: the protocol can check one
// password a user; sessions that are open stay.
func (k *Keeper) Rotate(ctx context.Context, kind Kind, name string, overlap time.Duration) (out Issued, err error) {
	if overlap < 0 || overlap > OverlapMax {
		return out, fmt.Errorf("an overlap of %s: want 0 to %s", overlap, OverlapMax)
	}
	err = k.change(ctx, func(d *document, now time.Time) error {
		out = Issued{Name: name, Kind: kind}
		if kind == KindSQL {
			i := d.sql(name)
			if i < 0 {
				return noSuch(kind, name)
			}
			out.Secret = newPassword()
			d.SQL[i].Password, d.SQL[i].CreatedAt = out.Secret, now
			return nil
		}
		i := d.aws(name)
		if i < 0 {
			return noSuch(kind, name)
		}
		p := &d.AWS[i]
		if len(p.Keys) >= keysMax {
			old := p.Keys[len(p.Keys)-1]
			return fmt.Errorf("%s has %d keys already: a rotation is under way; finish it first with: tapehouse credentials revoke %s --key %s", name, len(p.Keys), name, old.ID)
		}
		key := newKey(now)
		out.ID, out.Secret = key.ID, key.Secret
		out.OldID, out.OldExpiresAt = p.Keys[0].ID, now.Add(overlap)
		if e := p.Keys[0].ExpiresAt; !e.IsZero() && e.Before(out.OldExpiresAt) {
			out.OldExpiresAt = e
		}
		p.Keys[0].ExpiresAt = out.OldExpiresAt
		p.Keys = append([]keyDocument{key}, p.Keys...)
		if overlap == 0 {
			p.Keys = p.Keys[:1]
		}
		return nil
	})
	return out, err
}

// Revoke takes a principal away, or, if keyID is not "", one of its keys. A
// single key that was used lately is refused with ErrKeyInUse unless force is
// set: whoever uses it has not changed over yet.
func (k *Keeper) Revoke(ctx context.Context, kind Kind, name, keyID string, force bool) error {
	return k.change(ctx, func(d *document, now time.Time) error {
		if kind == KindSQL {
			i := d.sql(name)
			if i < 0 {
				return noSuch(kind, name)
			}
			d.SQL = slices.Delete(d.SQL, i, i+1)
			if len(d.SQL) == 0 {
				return errors.New("this is the last SQL user: create another first")
			}
			return nil
		}
		i := d.aws(name)
		if i < 0 {
			return noSuch(kind, name)
		}
		if keyID == "" {
			d.AWS = slices.Delete(d.AWS, i, i+1)
			if len(d.AWS) == 0 {
				return errors.New("this is the last access key: create another first")
			}
			return nil
		}
		p := &d.AWS[i]
		at := slices.IndexFunc(p.Keys, func(key keyDocument) bool { return key.ID == keyID })
		if at < 0 {
			return fmt.Errorf("%w: %s has no key %s", ErrNoCredential, name, bound(keyID))
		}
		if len(p.Keys) == 1 {
			return fmt.Errorf("%s is the only key of %s: rotate it first, or revoke the name", keyID, name)
		}
		used, err := readUsage(k.FS, k.Dir)
		if err != nil {
			return err
		}
		if last := used.Keys[keyID]; !force && now.Sub(last) < quietMin {
			return fmt.Errorf("%w: %s was used at %s, so somebody has not changed over; look again with tapehouse credentials list, or insist with --force",
				ErrKeyInUse, keyID, last.Format(time.RFC3339))
		}
		p.Keys = slices.Delete(p.Keys, at, at+1)
		if at == 0 { // what is left is what remains
			p.Keys[0].ExpiresAt = time.Time{}
		}
		return nil
	})
}

// List shows everything but the secrets, administrators first. LastUsedAt is
// what the server wrote last: at most a minute late while it runs.
func (k *Keeper) List() ([]Listed, error) {
	c, err := Load(k.FS, k.Dir)
	if err != nil {
		return nil, err
	}
	used, err := readUsage(k.FS, k.Dir)
	if err != nil {
		return nil, err
	}
	var out []Listed
	for _, key := range c.Keys {
		out = append(out, Listed{key.Name, KindAWS, key.ID, key.Policy, key.CreatedAt, key.ExpiresAt, used.Keys[key.ID]})
	}
	for _, u := range c.Users {
		out = append(out, Listed{u.Name, KindSQL, "", u.Policy, u.CreatedAt, time.Time{}, used.Users[u.Name]})
	}
	return out, nil
}
