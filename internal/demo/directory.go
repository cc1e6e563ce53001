package demo

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/tapehouse/tapehouse/internal/fsys"
)

// markerFile says that a directory is a demo's, to be emptied by the next one.
const markerFile = ".tapehouse-demo"

const markerText = "This directory belongs to `tapehouse demo`, which empties it when it starts.\n"

// ErrDirectory refuses a directory that the demo may not use. The text says
// what to do.
var ErrDirectory = errors.New("demo directory")

// prepareDirectory makes dir an empty directory with the marker, and returns
// its absolute path.
func prepareDirectory(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrDirectory, err)
	}
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return "", fmt.Errorf("%w: %w", ErrDirectory, err)
		}
	case err != nil:
		return "", fmt.Errorf("%w: %w", ErrDirectory, err)
	case len(entries) > 0:
		if err := empty(dir, entries); err != nil {
			return "", err
		}
	}
	if err := os.WriteFile(filepath.Join(dir, markerFile), []byte(markerText), 0o600); err != nil {
		return "", fmt.Errorf("%w: %w", ErrDirectory, err)
	}
	return dir, nil
}

// empty removes what a former demo left. The marker goes last, so that an
// interrupted removal can be taken up again.
func empty(dir string, entries []fs.DirEntry) error {
	if _, err := os.Stat(filepath.Join(dir, markerFile)); err != nil {
		return fmt.Errorf("%w %s is not empty and is no demo's: choose another with --data", ErrDirectory, dir)
	}
	name := filepath.Join(dir, "LOCK")
	lock, err := fsys.OS.Lock(name)
	var locked fsys.ErrLocked
	if errors.As(err, &locked) {
		return fmt.Errorf("%w %s: a server (process %d) runs on it: stop it, or choose another directory with --data", ErrDirectory, dir, locked.PID)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDirectory, err)
	}
	if err := lock.Close(); err != nil {
		return fmt.Errorf("%w: %w", ErrDirectory, err)
	}
	if err := os.Remove(name); err != nil {
		return fmt.Errorf("%w: %w", ErrDirectory, err)
	}
	for _, e := range entries {
		if e.Name() == markerFile {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return fmt.Errorf("%w: %w", ErrDirectory, err)
		}
	}
	return nil
}
