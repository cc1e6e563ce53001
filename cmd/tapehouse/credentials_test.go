package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tapehouse/tapehouse/internal/auth"
	"github.com/tapehouse/tapehouse/internal/producer"
	"github.com/tapehouse/tapehouse/internal/server"
)

// tape runs the program without its process.
func tape(t *testing.T, want int, args ...string) (out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	if code := run(t.Context(), args, strings.NewReader(""), &o, &e); code != want {
		t.Fatalf("tapehouse %s: exit %d, want %d\n%s%s", strings.Join(args, " "), code, want, &o, &e)
	}
	return o.String(), e.String()
}

// A key's whole life by the commands, on a directory where no server runs.
func TestCredentialsCommands(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	first, err := auth.LoadOrCreate(disk, data)
	if err != nil {
		t.Fatal(err)
	}
	with := func(args ...string) []string { return append(args, "--data", data) }

	out, _ := tape(t, exitOK, with("credentials", "create", "feed", "--operations", "put", "--streams", "orders-*,notes", "--json")...)
	var made issued
	if err := json.Unmarshal([]byte(out), &made); err != nil || made.Name != "feed" || made.Kind != auth.KindAWS || len(made.SecretKey) != 40 {
		t.Fatalf("%v %s", err, out)
	}
	env, _ := tape(t, exitOK, with("env", "--credential", "feed")...)
	if !strings.Contains(env, "AWS_ACCESS_KEY_ID='"+made.AccessKeyID+"'") || !strings.Contains(env, made.SecretKey) || strings.Contains(env, "PG") {
		t.Errorf("env of a key:\n%s", env)
	}
	if env, _ := tape(t, exitOK, with("env")...); !strings.Contains(env, first.Keys[0].ID) || !strings.Contains(env, "PGUSER='tapehouse'") || strings.Contains(env, made.AccessKeyID) {
		t.Error("env without a name is not the administrator's")
	}
	if _, errs := tape(t, exitFailure, with("env", "--credential", "nobody")...); !strings.Contains(errs, "named nobody") {
		t.Error(errs)
	}
	if _, errs := tape(t, exitFailure, with("credentials", "create", "feed", "--operations", "put")...); !strings.Contains(errs, "already") {
		t.Error(errs)
	}

	// To a file: nothing secret on the terminal, and never over another file.
	file := filepath.Join(t.TempDir(), "feed.env")
	out, _ = tape(t, exitOK, with("credentials", "rotate", "feed", "--overlap", "1h", "--out", file)...)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	secret := ""
	for line := range strings.Lines(string(text)) {
		name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		if !ok || value == "" {
			t.Errorf("line %q", line)
		}
		if name == "AWS_SECRET_ACCESS_KEY" {
			secret = value
		}
	}
	if len(secret) != 40 || secret == made.SecretKey || strings.Contains(out, secret) || !strings.Contains(out, "The key "+made.AccessKeyID+" ends at ") {
		t.Errorf("rotated: %s", out)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	if _, errs := tape(t, exitFailure, with("credentials", "create", "other", "--operations", "put", "--out", file)...); !strings.Contains(errs, "exists") {
		t.Error(errs)
	}
	if c, _ := auth.Load(disk, data); len(c.Named("other").Keys) != 0 {
		t.Error("made although it could not be handed over")
	}
	spare := filepath.Join(t.TempDir(), "spare.env")
	tape(t, exitFailure, with("credentials", "rotate", "nobody", "--out", spare)...)
	if _, err := os.Stat(spare); err == nil {
		t.Error("a failed command leaves an empty file")
	}

	out, _ = tape(t, exitOK, with("credentials", "create", "analyst", "--sql", "--json")...)
	if err := json.Unmarshal([]byte(out), &made); err != nil || made.Kind != auth.KindSQL || made.Password == "" {
		t.Fatalf("%v %s", err, out)
	}
	out, _ = tape(t, exitOK, with("credentials", "list", "--json")...)
	var list []listed
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list) != 5 {
		t.Fatalf("%v %s", err, out)
	}
	if at := list[2].ExpiresAt; list[2].AccessKeyID != made.AccessKeyID || time.Until(at) > time.Hour || time.Until(at) < 50*time.Minute {
		t.Errorf("%+v", list[2])
	}
	plain, _ := tape(t, exitOK, with("credentials", "list")...)
	for _, want := range []string{"default", "everything", "firehose: put on orders-*, notes", "*: connect, read", "(SQL user)"} {
		if !strings.Contains(plain, want) {
			t.Errorf("no %q in\n%s", want, plain)
		}
	}
	for _, hidden := range []string{secret, made.Password, first.Keys[0].Secret, first.Users[0].Password} {
		if strings.Contains(plain+out, hidden) {
			t.Error("the list shows a secret")
		}
	}
	tape(t, exitOK, with("credentials", "revoke", "feed", "--key", list[2].AccessKeyID)...)
	tape(t, exitOK, with("credentials", "revoke", "feed")...)
	tape(t, exitOK, with("credentials", "revoke", "analyst", "--sql")...)
	if _, errs := tape(t, exitFailure, with("credentials", "revoke", "default")...); !strings.Contains(errs, "last") {
		t.Error(errs)
	}
	if c, err := auth.Load(disk, data); err != nil || len(c.Keys) != 1 || c.Keys[0].Secret != first.Keys[0].Secret {
		t.Errorf("%v %v", c, err)
	}
}

// The commands beside a running server: it is ready, and takes a new key over by
// itself.
func TestCredentialsOfARunningServer(t *testing.T) {
	cfg := server.DefaultConfig()
	cfg.Data = filepath.Join(t.TempDir(), "data")
	cfg.Listen = server.ListenConfig{AWS: anyAddress, SQL: anyAddress, HTTP: anyAddress}
	s, err := server.Open(t.Context(), cfg, server.Options{Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	if out, _ := tape(t, exitOK, "ready", "--data", cfg.Data); out != "ready\n" {
		t.Errorf("ready says %q", out)
	}
	out, _ := tape(t, exitOK, "credentials", "create", "feed", "--operations", "put", "--json", "--data", cfg.Data)
	var made issued
	if err := json.Unmarshal([]byte(out), &made); err != nil {
		t.Fatal(err)
	}
	c, err := producer.New(producer.Config{Endpoint: "http://" + s.Addresses().AWS, AccessKey: made.AccessKeyID, Secret: made.SecretKey})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.PutBatch(t.Context(), "executions", [][]byte{[]byte("{}")}); err != nil {
		t.Errorf("a put with the new key: %v", err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, errs := tape(t, exitFailure, "ready", "--data", cfg.Data); !strings.Contains(errs, "no server runs") {
		t.Error(errs)
	}
	if out, _ := tape(t, exitOK, "credentials", "list", "--json", "--data", cfg.Data); strings.Count(out, "last_used_at") != 1 {
		t.Errorf("one key was used:\n%s", out)
	}
}
