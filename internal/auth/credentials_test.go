package auth

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/tapehouse/tapehouse/internal/fsys"
)

func TestLoadOrCreate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	if _, err := Load(fsys.OS, dir); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("load before creation: %v", err)
	}
	c, err := LoadOrCreate(fsys.OS, dir)
	if err != nil {
		t.Fatal(err)
	}
	k, u := c.Keys[0], c.Users[0]
	if !regexp.MustCompile(`^AKIA[A-Z2-7]{16}$`).MatchString(k.ID) || !regexp.MustCompile(`^[A-Za-z0-9]{40}$`).MatchString(k.Secret) {
		t.Fatalf("access key %q, secret of %d characters", k.ID, len(k.Secret))
	}
	if len(u.Password) != 32 || u.Name != "tapehouse" {
		t.Fatalf("user %q, password of %d characters", u.Name, len(u.Password))
	}
	info, err := os.Stat(filepath.Join(dir, CredentialsFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
	again, err := LoadOrCreate(fsys.OS, dir)
	if err != nil || again.Keys[0].Secret != k.Secret || again.Users[0].Password != u.Password {
		t.Fatalf("second load differs: %v", err)
	}
	if got, ok := again.AccessKey(k.ID); !ok || got.Secret != k.Secret {
		t.Fatal("the key is not found by its id")
	}
	if _, ok := again.AccessKey("AKIAOTHER"); ok {
		t.Fatal("an unknown key is found")
	}
	other, err := LoadOrCreate(fsys.OS, t.TempDir())
	if err != nil || other.Keys[0].Secret == k.Secret {
		t.Fatalf("two directories have the same secret: %v", err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Fatalf("left behind: %v, %v", entries, err)
	}
	if err := os.Chmod(filepath.Join(dir, CredentialsFile), 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(fsys.OS, dir); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Fatalf("a file that others can read: %v", err)
	}
}

// holding returns a file system with a credentials file of that content in d.
func holding(t *testing.T, text string) fsys.FS {
	t.Helper()
	m := fsys.NewMem()
	if err := m.MkdirAll("d", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := fsys.WriteFileAtomic(m, "d/"+CredentialsFile, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestCredentialsSurviveACrash(t *testing.T) {
	m := fsys.NewMem()
	c, err := LoadOrCreate(m, "d")
	if err != nil {
		t.Fatal(err)
	}
	again, err := LoadOrCreate(m.Crash(1), "d")
	if err != nil || again.Keys[0].Secret != c.Keys[0].Secret {
		t.Fatalf("other credentials after a crash: %v", err)
	}
}

func TestCredentialsErrors(t *testing.T) {
	full := errors.New("disk full")
	broken := fsys.NewFaulty(fsys.NewMem(), func(op, _ string, _ int) error {
		if op == "sync" || op == "write" {
			return full
		}
		return nil
	})
	if _, err := LoadOrCreate(broken, "d"); !errors.Is(err, full) {
		t.Fatalf("a failed write: %v", err)
	}
	secret := "0123456789abcdefSECRET"
	good := `{"version":1,"aws":[{"name":"a","access_key_id":"AKIA234567ABCDEFGHIJ","secret_access_key":"` + secret + `"}],"sql":[{"name":"u","password":"p"}]}`
	cases := map[string]string{
		good:                                 "",
		"{":                                  "not valid JSON",
		`{"version":3,"members":"of later"}`: "version 3 is not known",
		`{}`:                                 "version 0 is not known",
		`{"version":1,"aws":[],"sql":[{"name":"u","password":"p"}]}`:                                                       "at least one",
		strings.Replace(good, `"sql"`, `"extra":1,"sql"`, 1):                                                               "unknown field",
		strings.Replace(good, "AKIA234567ABCDEFGHIJ", "short", 1):                                                          "16 to 128",
		strings.Replace(good, "AKIA234567ABCDEFGHIJ", "AKIA234567ABCDEF/HIJ", 1):                                           "16 to 128",
		strings.Replace(good, `"password":"p"`, `"password":""`, 1):                                                        "needs a name and a password",
		strings.Replace(good, `{"name":"u","password":"p"}`, `{"name":"u","password":"p"},{"name":"u","password":"q"}`, 1): "twice",
	}
	for text, want := range cases {
		_, err := Load(holding(t, text), "d")
		switch {
		case want == "" && err != nil:
			t.Errorf("%s: %v", text, err)
		case want == "":
		case err == nil || !strings.Contains(err.Error(), want) || !errors.Is(err, ErrCredentials):
			t.Errorf("%s: %v, want %q", text, err, want)
		case strings.Contains(err.Error(), secret):
			t.Errorf("the error holds a secret: %v", err)
		}
	}
}

func TestEnv(t *testing.T) {
	c := &Credentials{Keys: []AccessKey{{Name: "n", ID: "AKIA", Secret: `a'b"c$d\`}}, Users: []SQLUser{{Name: "u ser", Password: "p`w!"}}}
	vars, err := c.Env(Endpoints{"http://127.0.0.1:4566", "us-east-1", "[::1]:5439", "tapehouse"})
	if err != nil {
		t.Fatal(err)
	}
	script := string(AppendShell(nil, vars))
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("SKIPPED: no sh on this machine: the quoting was not tried")
	}
	for _, v := range vars {
		out, err := exec.Command(sh, "-c", `eval "$1"; printenv "$2"`, "sh", script, v.Name).Output()
		if err != nil || strings.TrimSuffix(string(out), "\n") != v.Value {
			t.Errorf("%s = %q, want %q (%v)", v.Name, out, v.Value, err)
		}
	}
	if _, err := c.Env(Endpoints{SQLAddr: "nowhere"}); err == nil {
		t.Error("an address without a port is accepted")
	}
}
