package lake

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tapehouse/tapehouse/internal/fsys"
)

// formerFile lies in a store's directory. It is no object: its name begins with '.'.
const formerFile = ".former"

// NoteFormer notes that the objects of the local store in dir lay at another
// directory before, whose URI is given: metadata still spells their locations so,
// and Name takes those for the store's own from its next opening on.
func NoteFormer(fsystem fsys.FS, dir, uri string) error {
	if !strings.HasPrefix(uri, "file:///") {
		return fmt.Errorf("former location %q: want file:///…", uri)
	}
	former, err := readFormer(fsystem, dir)
	if err != nil {
		return err
	}
	if slices.Contains(former, uri) {
		return nil
	}
	if err := fsystem.MkdirAll(dir, dirPerm); err != nil {
		return err
	}
	b, err := json.Marshal(append(former, uri))
	if err != nil {
		return err
	}
	return fsys.WriteFileAtomic(fsystem, filepath.Join(dir, formerFile), b, filePerm)
}

func readFormer(fsystem fsys.FS, dir string) (former []string, err error) {
	b, err := fsys.ReadFile(fsystem, filepath.Join(dir, formerFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &former)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", filepath.Join(dir, formerFile), err)
	}
	return former, nil
}
