package auth

import (
	"encoding/base64"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestTokens(t *testing.T) {
	now := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	used := &atomic.Int64{}
	keys := &Credentials{Keys: []AccessKey{
		{Name: "spark", ID: "AKIAONE", Secret: "the secret of the first key", used: used},
		{Name: "ending", ID: "AKIATWO", Secret: "the secret of the second key", ExpiresAt: now.Add(10 * time.Minute)},
		{Name: "over", ID: "AKIATHREE", Secret: "the secret of the third key", ExpiresAt: now.Add(-time.Minute)},
		{Name: "none", ID: "AKIAFOUR"},
	}}
	tokens := NewTokens(keys, func() time.Time { return now })
	issue := func(i int) string {
		t.Helper()
		token, life, err := tokens.Issue(keys.Keys[i].ID, keys.Keys[i].Secret)
		if want := []time.Duration{TokenLifetime, 10 * time.Minute}[i]; err != nil || life != want {
			t.Fatalf("%v for %v, want %v", err, life, want)
		}
		if strings.Contains(token, "secret") {
			t.Fatal("the token shows the secret")
		}
		return token
	}
	one, two := issue(0), issue(1)
	if one == issue(0) {
		t.Error("two tokens are the same")
	}
	for i, token := range []string{one, two} {
		if k, err := tokens.Check(token); err != nil || k.ID != keys.Keys[i].ID {
			t.Errorf("%v %v", k, err)
		}
	}
	if used.Load() != now.Unix() {
		t.Error("the use was not noted")
	}
	for _, c := range [][2]string{{"AKIAONE", "the secret of the second key"}, {"AKIAONE", ""}, {"AKIANONE", ""}, {"AKIANONE", "x"}, {"AKIAFOUR", ""}, {"", ""}, {"AKIATHREE", "the secret of the third key"}} {
		var e *Error
		if _, _, err := tokens.Issue(c[0], c[1]); !errors.As(err, &e) || *e != *errUnrecognized {
			t.Errorf("%v: %v", c, err)
		}
	}

	// Every change of a character, and of what is signed, is another token.
	for i := range one {
		b := []byte(one)
		if b[i]++; b[i] == one[i] {
			t.Fatal(i)
		}
		if _, err := tokens.Check(string(b)); err == nil {
			t.Errorf("character %d changed: accepted", i)
		}
	}
	forge := func(claims, secret string) string {
		signed := "th1." + base64.RawURLEncoding.EncodeToString([]byte(claims))
		mac := tokenMAC(secret, signed)
		return signed + "." + base64.RawURLEncoding.EncodeToString(mac[:])
	}
	for name, token := range map[string]string{
		"empty": "", "dots": "..", "no key": forge(`{"i":1,"e":9999999999}`, ""), "key without a secret": forge(`{"k":"AKIAFOUR","i":1795780800,"e":1795780900}`, ""),
		"unknown key":             forge(`{"k":"AKIANONE","i":1795780800,"e":1795780900}`, ""),
		"signed by another key":   forge(`{"k":"AKIAONE","i":1795780800,"e":1795780900}`, "the secret of the second key"),
		"too long a life":         forge(`{"k":"AKIAONE","i":1795780800,"e":9999999999}`, "the secret of the first key"),
		"not an object":           forge(`7`, "the secret of the first key"),
		"long":                    one + strings.Repeat("A", 600),
		"issued in the future":    forge(`{"k":"AKIAONE","i":1895780800,"e":1895780900}`, "the secret of the first key"),
		"another version":         strings.Replace(one, "th1.", "th2.", 1),
		"the signature of a part": one[:strings.LastIndexByte(one, '.')],
	} {
		if k, err := tokens.Check(token); err == nil {
			t.Errorf("%s: accepted as %v", name, k)
		}
	}

	now = now.Add(TokenLifetime)
	if _, err := tokens.Check(one); !errors.Is(err, errTokenExpired) {
		t.Errorf("after its hour: %v", err)
	}
	now = now.Add(-30 * time.Minute)
	if _, err := tokens.Check(two); err == nil {
		t.Error("the token outlives its key")
	}
	if _, err := tokens.Check(one); err != nil {
		t.Error(err)
	}
	keys.Keys[0].Secret = "another secret"
	if _, err := tokens.Check(one); err == nil {
		t.Error("the token outlives its key's secret")
	}
	keys.Keys = keys.Keys[1:]
	if _, err := tokens.Check(one); err == nil {
		t.Error("the token outlives its key")
	}
}

func FuzzToken(f *testing.F) {
	keys := &Credentials{Keys: []AccessKey{{Name: "spark", ID: "AKIAONE", Secret: "the secret of the first key"}}}
	tokens := NewTokens(keys, nil)
	token, _, err := tokens.Issue("AKIAONE", "the secret of the first key")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(token[:20])
	f.Add("th1.e30.")
	f.Fuzz(func(t *testing.T, s string) {
		if _, err := tokens.Check(s); err == nil && s != token {
			t.Fatalf("%q is accepted", s)
		}
	})
}
