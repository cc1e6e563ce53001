package auth

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/xdg-go/scram"
)

// Written by PostgreSQL 15 for CREATE ROLE … PASSWORD 'foo' and by RFC 7677 §3
// (user "user", password "pencil").
const scramPencil = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="

func TestSCRAMVerifierOfRFC7677(t *testing.T) {
	v, err := ParseSCRAMVerifier(scramPencil)
	if err != nil {
		t.Fatal(err)
	}
	if !v.Matches("pencil") {
		t.Error("the RFC's password does not match the RFC's verifier")
	}
	if v.Matches("pencil ") || v.Matches("") || v.Matches("Pencil") {
		t.Error("a wrong password matches")
	}
	text, err := v.MarshalText()
	if err != nil || string(text) != scramPencil {
		t.Errorf("MarshalText = %s, %v", text, err)
	}
}

// The server side of xdg-go/scram accepts what this package derives.
func TestSCRAMVerifierConversation(t *testing.T) {
	for _, password := range []string{"secret", "pässword", "I\u00adX", "\u2168", "tab\tinside", strings.Repeat("long ", 100)} {
		v, err := NewSCRAMVerifier(password)
		if err != nil {
			t.Fatal(err)
		}
		for _, try := range []string{password, password + "x"} {
			client, err := scram.SHA256.NewClientUnprepped("", prepareSCRAMPassword(try), "")
			if err != nil {
				t.Fatal(err)
			}
			server, err := scram.SHA256.NewServer(func(string) (scram.StoredCredentials, error) {
				return scram.StoredCredentials{
					KeyFactors: scram.KeyFactors{Salt: string(v.Salt), Iters: v.Iterations},
					StoredKey:  v.StoredKey[:], ServerKey: v.ServerKey[:],
				}, nil
			})
			if err != nil {
				t.Fatal(err)
			}
			c, s := client.NewConversation(), server.NewConversation()
			message := ""
			for !c.Done() || !s.Done() {
				if message, err = c.Step(message); err != nil {
					break
				}
				if s.Done() {
					break
				}
				if message, err = s.Step(message); err != nil {
					break
				}
			}
			if want := try == password; s.Valid() != want || c.Valid() != want {
				t.Errorf("password %q, tried %q: server %v, client %v, want %v", password, try, s.Valid(), c.Valid(), want)
			}
		}
	}
}

func TestSCRAMVerifierRefusals(t *testing.T) {
	for _, s := range []string{
		"", "x", "SCRAM-SHA-1$4096:AAAA$AAAA:AAAA",
		strings.Replace(scramPencil, "4096", "0", 1),
		strings.Replace(scramPencil, "4096", "99999999999", 1),
		strings.Replace(scramPencil, "W22Z", "!", 1),
		strings.Replace(scramPencil, "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=", "AAAA", 1),
		scramPencil + "$", strings.TrimSuffix(scramPencil, "="), strings.Replace(scramPencil, ":wfP", "wfP", 1),
	} {
		_, err := ParseSCRAMVerifier(s)
		if !errors.Is(err, ErrSCRAMVerifier) {
			t.Errorf("ParseSCRAMVerifier(%q) = %v", s, err)
		} else if len(s) > 8 && strings.Contains(err.Error(), s) {
			t.Errorf("the error quotes the verifier: %v", err)
		}
	}
	if _, err := NewSCRAMVerifier(""); !errors.Is(err, ErrSCRAMVerifier) {
		t.Errorf("an empty password: %v", err)
	}
}

func TestSCRAMVerifierIsNotPrinted(t *testing.T) {
	v, _ := ParseSCRAMVerifier(scramPencil)
	for _, s := range []string{fmt.Sprint(v), fmt.Sprintf("%v %+v %#v %s", v, v, v, v), v.LogValue().String()} {
		if strings.Contains(s, "WG5d") || strings.Contains(s, "wfPL") || strings.Contains(s, "StoredKey") {
			t.Errorf("printed: %s", s)
		}
	}
	b, err := json.Marshal(map[string]SCRAMVerifier{"u": v}) // but stored in full
	if err != nil || !strings.Contains(string(b), "WG5d") {
		t.Errorf("json: %s %v", b, err)
	}
	var back map[string]SCRAMVerifier
	if err := json.Unmarshal(b, &back); err != nil || !back["u"].Matches("pencil") {
		t.Errorf("json round trip: %v", err)
	}
}

func TestDecoySCRAMVerifier(t *testing.T) {
	secret := []byte("0123456789abcdef")
	a, b := DecoySCRAMVerifier(secret, "alice"), DecoySCRAMVerifier(secret, "alice")
	if string(a.Salt) != string(b.Salt) || a.StoredKey != b.StoredKey {
		t.Error("the decoy of a user changes between two tries")
	}
	if c := DecoySCRAMVerifier(secret, "bob"); string(c.Salt) == string(a.Salt) {
		t.Error("two users share a decoy salt")
	}
	real, err := NewSCRAMVerifier("x")
	if err != nil || len(real.Salt) != len(a.Salt) || real.Iterations != a.Iterations {
		t.Error("a decoy can be told from a real verifier by its shape")
	}
	if a.Matches("") || a.Matches("alice") {
		t.Error("a decoy matches")
	}
}

func FuzzParseSCRAMVerifier(f *testing.F) {
	f.Add(scramPencil)
	f.Fuzz(func(t *testing.T, s string) {
		v, err := ParseSCRAMVerifier(s)
		if err != nil {
			return
		}
		text, err := v.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		if w, err := ParseSCRAMVerifier(string(text)); err != nil || w.StoredKey != v.StoredKey || w.Iterations != v.Iterations {
			t.Fatalf("round trip of %q: %v", s, err)
		}
	})
}
