package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/tapehouse/tapehouse/internal/console"
	"github.com/tapehouse/tapehouse/internal/s3test"
)

// scriptPath is absolute, because tests change the directory.
var scriptPath = func() string {
	p, err := filepath.Abs(filepath.Join("testdata", "script"))
	if err != nil {
		panic(err)
	}
	return p
}()

// program builds the binary once.
var program = sync.OnceValues(func() (string, error) {
	path := filepath.Join(buildDir, "tapehouse")
	if text, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w: %s", err, text)
	}
	return path, nil
})

var buildDir string

func TestMain(m *testing.M) {
	var err error
	if buildDir, err = os.MkdirTemp("", "tapehouse-test-"); err != nil {
		panic(err)
	}
	code := m.Run()
	_ = os.RemoveAll(buildDir)
	s3test.Clean()
	os.Exit(code)
}

func build(t *testing.T) string {
	t.Helper()
	p, err := program()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		err     error
		started bool
		want    int
	}{
		{nil, true, exitOK},
		{errors.New("x"), true, exitFailure},
		{errors.New("unknown flag"), false, exitUsage},
		{usagef("x"), true, exitUsage},
		{&codeError{code: exitMismatch}, true, exitMismatch},
		{fmt.Errorf("seal: %w", console.Errorf(console.CodeRefused, "x")), true, exitRefused},
		{console.Errorf(console.CodeInternal, "x"), true, exitFailure},
		{context.Canceled, true, exitFailure},
	} {
		if have := report(c.err, c.started, nil, &discard{}); have != c.want {
			t.Errorf("%v: exit %d, want %d", c.err, have, c.want)
		}
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
