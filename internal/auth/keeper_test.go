package auth

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapehouse/tapehouse/internal/fsys"
)

var putOnly = Grant{"firehose", []string{"put"}, []string{"orders-*"}}

// keeper returns a keeper of a new directory with the first credentials, and
// its clock.
func keeper(t *testing.T) (*Keeper, *time.Time) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	if _, err := LoadOrCreate(fsys.OS, dir); err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC().Truncate(time.Second)
	return &Keeper{FS: fsys.OS, Dir: dir, Now: func() time.Time { return now }}, &now
}

func TestKeeper(t *testing.T) {
	k, now := keeper(t)
	ctx := t.Context()
	load := func() *Credentials {
		t.Helper()
		c, err := Load(fsys.OS, k.Dir)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	admin := load().Keys[0]
	made, err := k.Create(ctx, KindAWS, "feed", putOnly)
	if err != nil {
		t.Fatal(err)
	}
	key, ok := load().AccessKey(made.ID)
	if !ok || key.Secret != made.Secret || key.Name != "feed" || !key.CreatedAt.Equal(*now) || !key.Policy.Allows("firehose", "PutRecord", "orders-1") || key.Policy.Allows("firehose", "PutRecord", "x") {
		t.Fatalf("created: %v %+v", ok, key.Policy.Grants())
	}
	if load().Keys[0].ID != admin.ID {
		t.Fatal("the administrator is not first any more")
	}
	for what, err := range map[string]error{
		"again":     second(k.Create(ctx, KindAWS, "feed", putOnly)),
		"bad name":  second(k.Create(ctx, KindAWS, "a b", putOnly)),
		"no name":   second(k.Create(ctx, KindAWS, "", putOnly)),
		"no grant":  second(k.Create(ctx, KindAWS, "x")),
		"bad grant": second(k.Create(ctx, KindAWS, "x", Grant{"firehose", []string{"nothing"}, []string{"*"}})),
		"unknown":   second(k.Rotate(ctx, KindAWS, "nobody", 0)),
		"negative":  second(k.Rotate(ctx, KindAWS, "feed", -1)),
		"too long":  second(k.Rotate(ctx, KindAWS, "feed", OverlapMax+1)),
		"user":      second(k.Rotate(ctx, KindSQL, "feed", 0)),
		"last":      k.Revoke(ctx, KindAWS, "default", "", true),
		"last user": k.Revoke(ctx, KindSQL, "tapehouse", "", true),
		"only key":  k.Revoke(ctx, KindAWS, "feed", made.ID, true),
		"other key": k.Revoke(ctx, KindAWS, "feed", admin.ID, true),
	} {
		if err == nil {
			t.Errorf("%s: accepted", what)
		}
	}

	// A rotation: both keys until the old one ends.
	next, err := k.Rotate(ctx, KindAWS, "feed", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if next.OldID != made.ID || !next.OldExpiresAt.Equal(now.Add(time.Hour)) || next.ID == made.ID {
		t.Fatalf("rotated: %+v", next)
	}
	if n := load().Named("feed"); len(n.Keys) != 2 || n.Keys[0].ID != next.ID || !n.Keys[0].ExpiresAt.IsZero() || !n.Keys[1].ExpiresAt.Equal(next.OldExpiresAt) {
		t.Fatalf("keys after the rotation: %v", n.Keys)
	}
	if old, _ := load().AccessKey(made.ID); old.Expired(now.Add(time.Hour-1)) || !old.Expired(now.Add(time.Hour)) {
		t.Error("the old key does not end when it should")
	}
	if _, err := k.Rotate(ctx, KindAWS, "feed", time.Hour); err == nil || !strings.Contains(err.Error(), "--key "+made.ID) {
		t.Errorf("a rotation within a rotation: %v", err)
	}
	// The old key was used just now: revoking it needs insistence.
	write(t, k, usage{Version: 1, Keys: map[string]time.Time{made.ID: now.Add(-time.Minute)}})
	if err := k.Revoke(ctx, KindAWS, "feed", made.ID, false); !errors.Is(err, ErrKeyInUse) {
		t.Errorf("revoke a key in use: %v", err)
	}
	write(t, k, usage{Version: 1, Keys: map[string]time.Time{made.ID: now.Add(-time.Hour)}})
	if err := k.Revoke(ctx, KindAWS, "feed", made.ID, false); err != nil {
		t.Error(err)
	}
	if _, ok := load().AccessKey(made.ID); ok {
		t.Error("the revoked key is there")
	}

	// Left alone, the old key ends by itself and is forgotten at the next change.
	third, err := k.Rotate(ctx, KindAWS, "feed", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	*now = now.Add(2 * time.Hour)
	if fourth, err := k.Rotate(ctx, KindAWS, "feed", 0); err != nil || fourth.OldID != third.ID {
		t.Fatalf("%+v %v", fourth, err)
	}
	if n := load().Named("feed"); len(n.Keys) != 1 {
		t.Errorf("an overlap of 0 leaves %d keys", len(n.Keys))
	}
	// A rotation taken back: the old key stays for good.
	fifth, err := k.Rotate(ctx, KindAWS, "feed", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Revoke(ctx, KindAWS, "feed", fifth.ID, false); err != nil {
		t.Fatal(err)
	}
	if n := load().Named("feed"); len(n.Keys) != 1 || n.Keys[0].ID != fifth.OldID || !n.Keys[0].ExpiresAt.IsZero() {
		t.Errorf("after taking back: %v", n.Keys)
	}

	// Users of SQL and console.
	u, err := k.Create(ctx, KindSQL, "analyst", Grant{"*", []string{"connect", "read"}, []string{"*"}})
	if err != nil || u.ID != "" || len(u.Secret) != 32 {
		t.Fatalf("%v %v", u.Name, err)
	}
	v, err := k.Rotate(ctx, KindSQL, "analyst", 0)
	if got, _ := load().User("analyst"); err != nil || v.Secret == u.Secret || got.Password != v.Secret {
		t.Errorf("rotated password: %v", err)
	}
	if load().Users[0].Name != "tapehouse" {
		t.Error("the administrator is not the first user any more")
	}
	list, err := k.List()
	if err != nil || len(list) != 4 {
		t.Fatalf("%v %v", list, err)
	}
	if text := fmt.Sprintf("%v %+v %#v", list, list, load()); strings.Contains(text, v.Secret) || strings.Contains(text, admin.Secret) {
		t.Error("printing shows a secret")
	}
	var line bytes.Buffer
	slog.New(slog.NewJSONHandler(&line, nil)).Info("x", "key", admin, "user", load().Users[0])
	if strings.Contains(line.String(), admin.Secret) || strings.Contains(line.String(), load().Users[0].Password) {
		t.Error("logging shows a secret")
	}
	for _, r := range []func() error{
		func() error { return k.Revoke(ctx, KindSQL, "analyst", "", false) },
		func() error { return k.Revoke(ctx, KindAWS, "feed", "", false) },
	} {
		if err := r(); err != nil {
			t.Error(err)
		}
	}
	info, err := os.Stat(filepath.Join(k.Dir, CredentialsFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v %v", info.Mode(), err)
	}
}

func second(_ Issued, err error) error { return err }

func write(t *testing.T, k *Keeper, u usage) {
	t.Helper()
	data, err := json.Marshal(u)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(k.Dir, UsageFile), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// Several processes may change one file at once: nothing that was printed may
// be lost.
func TestKeepersAtOnce(t *testing.T) {
	k, _ := keeper(t)
	const n = 12
	var wg sync.WaitGroup
	errs := make([]error, n)
	for i := range n {
		wg.Go(func() {
			own := &Keeper{FS: fsys.OS, Dir: k.Dir}
			_, errs[i] = own.Create(context.Background(), KindAWS, fmt.Sprintf("feed-%d", i), putOnly)
		})
	}
	wg.Wait()
	c, err := Load(fsys.OS, k.Dir)
	if err := errors.Join(append(errs, err)...); err != nil {
		t.Fatal(err)
	}
	if len(c.Keys) != n+1 {
		t.Errorf("%d keys of %d", len(c.Keys), n+1)
	}
}

// A crash or a fault at any operation leaves the old file or the new one, whole.
func TestKeeperSurvivesFaults(t *testing.T) {
	for at := 1; ; at++ {
		mem := fsys.NewMem()
		before, err := LoadOrCreate(mem, "d")
		if err != nil {
			t.Fatal(err)
		}
		n, hit := 0, false
		broken := fsys.NewFaulty(mem, func(op, name string, _ int) error {
			if strings.Contains(name, credentialsLock) {
				return nil
			}
			if n++; n == at {
				hit = true
				return errors.New("a fault")
			}
			return nil
		})
		made, err := (&Keeper{FS: broken, Dir: "d"}).Create(t.Context(), KindAWS, "feed", putOnly)
		for seed := range int64(4) {
			after, lerr := Load(mem.Crash(uint64(seed)), "d")
			if lerr != nil {
				t.Fatalf("fault %d: %v", at, lerr)
			}
			_, has := after.AccessKey(made.ID)
			if after.Keys[0].Secret != before.Keys[0].Secret || err == nil && !has {
				t.Fatalf("fault %d (%v): the file lost something", at, err)
			}
		}
		if !hit {
			return
		}
	}
}

func TestVersion1(t *testing.T) {
	old := `{"version":1,"aws":[{"name":"a","access_key_id":"AKIA234567ABCDEFGHIJ","secret_access_key":"0123456789abcdefSECRET"},
		{"name":"a","access_key_id":"AKIA234567ABCDEFGHIK","secret_access_key":"0123456789abcdefSECRET"}],"sql":[{"name":"u","password":"p"}]}`
	m := holding(t, old)
	c, err := Load(m, "d")
	if err != nil || len(c.Keys) != 2 || !c.Keys[1].Policy.Allows("firehose", "DeleteDeliveryStream", AnyStream) || !c.Users[0].Policy.Allows(ServiceConsole, "seal", AnyStream) {
		t.Fatalf("%v %v", c, err)
	}
	if data, err := fsys.ReadFile(m, "d/"+CredentialsFile); err != nil || string(data) != old {
		t.Fatal("loading changed the file")
	}
	if _, err := (&Keeper{FS: m, Dir: "d"}).Create(t.Context(), KindAWS, "feed", putOnly); err != nil {
		t.Fatal(err)
	}
	again, err := Load(m, "d")
	if err != nil || len(again.Keys) != 3 || again.Keys[1].Secret != c.Keys[1].Secret || again.Users[0].Password != "p" {
		t.Fatalf("after the first change: %v %v", again, err)
	}
	if data, _ := fsys.ReadFile(m, "d/"+CredentialsFile); !bytes.Contains(data, []byte(`"version": 2`)) {
		t.Error("not written as version 2")
	}
}

func TestStore(t *testing.T) {
	k, _ := keeper(t)
	k.Now = nil
	var log bytes.Buffer
	registry := prometheus.NewRegistry()
	o := StoreOptions{Logger: slog.New(slog.NewTextHandler(&log, nil)), Registerer: registry, Poll: time.Hour, WriteUsage: time.Hour}
	s, err := OpenStore(fsys.OS, k.Dir, o)
	if err != nil {
		t.Fatal(err)
	}
	// What is created works at once, polled or not.
	made, err := k.Create(t.Context(), KindAWS, "feed", putOnly)
	if err != nil {
		t.Fatal(err)
	}
	key, ok := s.AccessKey(made.ID)
	if !ok {
		t.Fatal("a new key is unknown")
	}
	if _, ok := s.AccessKey("AKIAUNKNOWNUNKNOWNUN"); ok {
		t.Fatal("a stranger's key is known")
	}
	// What is revoked ends at the next look.
	if err := k.Revoke(t.Context(), KindAWS, "feed", "", false); err != nil {
		t.Fatal(err)
	}
	s.Refresh()
	if _, ok := s.AccessKey(made.ID); ok {
		t.Fatal("a revoked key is known")
	}
	// A file that is no good leaves what was in force, and is told once.
	name := filepath.Join(k.Dir, CredentialsFile)
	good, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	admin := s.Credentials().Keys[0]
	valid := func() float64 {
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if f.GetName() == "tapehouse_auth_credentials_valid" {
				return f.GetMetric()[0].GetGauge().GetValue()
			}
		}
		return -1
	}
	for _, spoil := range []func() error{
		func() error { return os.WriteFile(name, good[:len(good)/2], 0o600) },
		func() error { return os.Remove(name) },
		func() error { return os.WriteFile(name, append(good, ' '), 0o644) },
		func() error { return os.Chmod(name, 0o644) },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		s.Refresh()
		s.Refresh()
		if _, ok := s.AccessKey(admin.ID); !ok || valid() != 0 {
			t.Errorf("a bad file: known %v, valid %v", ok, valid())
		}
	}
	if strings.Contains(log.String(), admin.Secret) {
		t.Error("the log holds a secret")
	}
	if n := strings.Count(log.String(), "level=ERROR"); n != 3 {
		t.Errorf("%d errors logged, want 3 for 3 different reasons:\n%s", n, log.String())
	}
	if err := os.Chmod(name, 0o600); err != nil {
		t.Fatal(err)
	}
	s.Refresh()
	if valid() != 1 {
		t.Error("a mended file is not in force")
	}
	// Uses are kept, and written when the store closes.
	if key, ok = s.AccessKey(admin.ID); !ok {
		t.Fatal("no administrator")
	}
	touch(key.used, time.Now())
	s.UsedBy("tapehouse")
	s.UsedBy("nobody")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	list, err := k.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range list {
		if time.Since(l.LastUsedAt) > time.Minute {
			t.Errorf("%s %s: last used %v", l.Kind, l.Name, l.LastUsedAt)
		}
	}
	if info, err := os.Stat(filepath.Join(k.Dir, UsageFile)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	// A second store goes on from what is written, and writes nothing new.
	o.Registerer = nil
	before, _ := os.Stat(filepath.Join(k.Dir, UsageFile))
	if s, err = OpenStore(fsys.OS, k.Dir, o); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if after, err := os.Stat(filepath.Join(k.Dir, UsageFile)); err != nil || !os.SameFile(before, after) {
		t.Errorf("written without a new use: %v", err)
	}
}

// A running store looks by itself.
func TestStorePolls(t *testing.T) {
	k, _ := keeper(t)
	k.Now = nil
	s, err := OpenStore(fsys.OS, k.Dir, StoreOptions{Poll: time.Millisecond, WriteUsage: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	made, err := k.Create(t.Context(), KindAWS, "feed", putOnly)
	if err != nil {
		t.Fatal(err)
	}
	key, ok := s.AccessKey(made.ID)
	if !ok {
		t.Fatal("a new key is unknown")
	}
	touch(key.used, time.Now())
	eventually(t, "the use is written", func() bool {
		u, err := readUsage(fsys.OS, k.Dir)
		return err == nil && !u.Keys[made.ID].IsZero()
	})
	if err := k.Revoke(t.Context(), KindAWS, "feed", "", true); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the key is gone", func() bool {
		_, ok := s.Credentials().AccessKey(made.ID)
		return !ok
	})
	eventually(t, "its use is forgotten", func() bool {
		touch(s.Credentials().Keys[0].used, time.Now()) // something must have changed to be written
		u, err := readUsage(fsys.OS, k.Dir)
		return err == nil && u.Keys[made.ID].IsZero() && len(u.Keys) == 1
	})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// FuzzCredentialsFile holds that no file makes the decoder panic, that what it
// takes can be written and read again unchanged, and that an error holds none
// of the file's secrets.
func FuzzCredentialsFile(f *testing.F) {
	const secret = "S3cretS3cretS3cretS3cret"
	f.Add([]byte(`{"version":1,"aws":[{"name":"a","access_key_id":"AKIA234567ABCDEFGHIJ","secret_access_key":"` + secret + `"}],"sql":[{"name":"u","password":"` + secret + `"}]}`))
	f.Add([]byte(`{"version":2,"aws":[{"name":"a","allow":[{"service":"*","operations":["*"],"streams":["*"]}],"keys":[{"access_key_id":"AKIA234567ABCDEFGHIJ","secret_access_key":"` + secret + `","created_at":"2026-11-23T14:30:00Z","expires_at":"2026-11-24T14:30:00Z"}]}],
		"sql":[{"name":"u","allow":[{"service":"sql","operations":["connect"],"streams":["*"]}],"password":"` + secret + `"}]}`))
	f.Add([]byte(`{"version":2,"aws":[{"keys":[{"expires_at":"` + secret + `"}]}]}`))
	f.Add([]byte(`{"version":2,"aws":"` + secret + `"}`))
	f.Add([]byte(`{"version":3}`))
	f.Add([]byte(`{"version":1e99}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := parseDocument(data)
		if err != nil {
			// Names of members and principals may be told; a value may not.
			if strings.Contains(err.Error(), secret) && bytes.Count(data, []byte(secret)) == bytes.Count(data, []byte(`_key":"`+secret))+bytes.Count(data, []byte(`password":"`+secret))+bytes.Count(data, []byte(`_at":"`+secret)) {
				t.Errorf("the error holds a secret: %v", err)
			}
			return
		}
		c, err := d.credentials()
		if err != nil || len(c.Keys) == 0 || len(c.Users) == 0 {
			t.Fatalf("checked, but not usable: %v", err)
		}
		m := fsys.NewMem()
		if err := m.MkdirAll("d", 0o700); err != nil {
			t.Fatal(err)
		}
		if _, err := writeDocument(m, "d", d); err != nil {
			t.Fatal(err)
		}
		again, err := Load(m, "d")
		if err != nil {
			t.Fatal(err)
		}
		for i, k := range c.Keys {
			a := again.Keys[i]
			if a.Name != k.Name || a.ID != k.ID || a.Secret != k.Secret || !a.ExpiresAt.Equal(k.ExpiresAt) || a.Policy.String() != k.Policy.String() {
				t.Fatalf("key %d: %v, then %v", i, k, a)
			}
		}
		for i, u := range c.Users {
			if a := again.Users[i]; a.Name != u.Name || a.Password != u.Password || a.Policy.String() != u.Policy.String() {
				t.Fatalf("user %d: %v, then %v", i, u, a)
			}
		}
	})
}
