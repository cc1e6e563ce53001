package ledger

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"maps"
	"slices"

	"github.com/tapehouse/tapehouse/internal/fsys"
	"github.com/tapehouse/tapehouse/internal/record"
)

// checkpointVersion is the version of the checkpoint file's form: one header
// line "tapehouse-ledger VERSION CRC32C-of-body-in-hexadecimal", then the body
// as JSON. See docs/formats/ledger.md.
// Version 1 had no replays.
const checkpointVersion = 2

// CheckpointError reports a checkpoint that cannot be used.
type CheckpointError struct {
	Name string
	Err  error
}

func (e *CheckpointError) Error() string {
	return fmt.Sprintf("ledger checkpoint %s: %v; the log's records are intact: restore the file from a backup, or, if the log still holds every record since the stream was created, remove it and the ledger is rebuilt", e.Name, e.Err)
}

func (e *CheckpointError) Unwrap() error { return e.Err }

type checkpoint struct {
	Applied string           `json:"applied"`
	Feeds   []feedCheckpoint `json:"feeds"`
	Unkeyed map[string]int64 `json:"unkeyed"`
	// Replayed: into which key, of which key, which offsets.
	Replayed map[string]map[string]*Intervals `json:"replayed,omitempty"`
}

type feedCheckpoint struct {
	Feed
	Account Account `json:"account"`
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Checkpoint writes the account durably to name and returns the vector up to
// which it is true: the log may be trimmed to it.
func (l *Ledger) Checkpoint(fsy fsys.FS, name string) (record.Vector, error) {
	// One moment for all of it: an account beyond its vector would be applied twice.
	l.mu.Lock()
	accounts, applied := l.accountsLocked()
	body := checkpoint{Applied: applied.String(), Unkeyed: maps.Clone(l.unkeyed), Replayed: map[string]map[string]*Intervals{}}
	for into, of := range l.replayed {
		m := map[string]*Intervals{}
		for k, set := range of {
			c := slices.Clone(*set)
			m[k.String()] = &c
		}
		body.Replayed[into.String()] = m
	}
	l.mu.Unlock()
	for _, a := range accounts {
		body.Feeds = append(body.Feeds, feedCheckpoint{a.Feed, a.Account})
	}
	b, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("encode ledger checkpoint: %w", err)
	}
	head := fmt.Sprintf("tapehouse-ledger %d %08x\n", checkpointVersion, crc32.Checksum(b, castagnoli))
	if err := fsys.WriteFileAtomic(fsy, name, append([]byte(head), b...), 0o600); err != nil {
		return nil, fmt.Errorf("write ledger checkpoint %s: %w", name, err)
	}
	return applied, nil
}

// Open returns a ledger with the account of the checkpoint name, or an empty
// one where there is none. The caller replays the log above Applied with Apply
// and what the log still holds below it with Learn.
func Open(fsy fsys.FS, name string, o Options) (*Ledger, error) {
	l := New(o)
	b, err := fsys.ReadFile(fsy, name)
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read ledger checkpoint %s: %w", name, err)
	}
	head, body, ok := bytes.Cut(b, []byte("\n"))
	var version int
	var sum uint32
	if _, err := fmt.Sscanf(string(head), "tapehouse-ledger %d %x", &version, &sum); err != nil || !ok {
		return nil, &CheckpointError{name, fmt.Errorf("%w header", record.ErrInvalid)}
	}
	if version < 1 || version > checkpointVersion {
		return nil, &CheckpointError{name, fmt.Errorf("version %d is not known to this program (it knows 1 to %d)", version, checkpointVersion)}
	}
	if crc32.Checksum(body, castagnoli) != sum {
		return nil, &CheckpointError{name, errors.New("checksum does not match")}
	}
	var c checkpoint
	if err := json.Unmarshal(body, &c); err != nil {
		return nil, &CheckpointError{name, err}
	}
	if l.applied, err = record.ParseVector(c.Applied); err != nil {
		return nil, &CheckpointError{name, err}
	}
	for _, fc := range c.Feeds {
		f := l.feedLocked(fc.Feed)
		f.account = fc.Account
		f.account.init()
	}
	maps.Copy(l.unkeyed, c.Unkeyed)
	for into, of := range c.Replayed {
		key, err := record.ParseKey(into)
		if err != nil {
			return nil, &CheckpointError{name, err}
		}
		l.replayed[key] = map[record.Key]*Intervals{}
		for text, set := range of {
			k, err := record.ParseKey(text)
			if err != nil || set == nil {
				return nil, &CheckpointError{name, fmt.Errorf("%w replay of %q: %w", record.ErrInvalid, text, err)}
			}
			l.replayed[key][k] = set
		}
	}
	return l, nil
}
