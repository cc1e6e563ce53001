package catalog

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Bounds of a document.
const (
	documentKindBytesMax = 100
	documentKeyBytesMax  = 1_000
	documentBodyBytesMax = 8 << 20
	documentListMax      = 100_000
)

// AnyVersion as DocumentWrite.IfVersion writes over whatever version there is.
const AnyVersion = -1

// Document is one version of a document: a stream, a view, a seal…
type Document struct {
	Kind, Key string
	Version   int64 // from 1
	Body      json.RawMessage
	WrittenAt time.Time // UTC
}

// DocumentWrite writes the next version of a document.
type DocumentWrite struct {
	Kind, Key string
	// IfVersion is the version that must be current; 0: the document must not
	// exist; AnyVersion: no matter. ErrConflict otherwise.
	IfVersion int64
	Body      json.RawMessage
	// Delete, instead of Body, ends the document; its history stays readable.
	Delete bool
	// KeepVersions, if above 0, drops all but that many of the newest versions.
	KeepVersions int
}

func (w DocumentWrite) name() string { return w.Kind + "/" + w.Key }

func (w DocumentWrite) check() error {
	switch {
	case w.Kind == "" || len(w.Kind) > documentKindBytesMax || w.Key == "" || len(w.Key) > documentKeyBytesMax:
		return fmt.Errorf("%w document %q: kind of 1 to %d bytes, key of 1 to %d", ErrInvalid, w.name(), documentKindBytesMax, documentKeyBytesMax)
	case w.IfVersion < AnyVersion:
		return fmt.Errorf("%w document %q: version %d", ErrInvalid, w.name(), w.IfVersion)
	case w.Delete:
		return nil
	case len(w.Body) > documentBodyBytesMax:
		return fmt.Errorf("%w document %q: %d bytes, the limit is %d", ErrInvalid, w.name(), len(w.Body), documentBodyBytesMax)
	case !json.Valid(w.Body):
		return fmt.Errorf("%w document %q: the body is not JSON", ErrInvalid, w.name())
	}
	return nil
}

// writeDocument writes the next version within a transaction.
func (c *Catalog) writeDocument(ctx context.Context, tx *sql.Tx, w DocumentWrite) (Document, error) {
	var last int64
	var live bool
	err := tx.QueryRowContext(ctx, `SELECT version, body IS NOT NULL FROM catalog_documents
		WHERE kind = ? AND key = ? ORDER BY version DESC LIMIT 1`, w.Kind, w.Key).Scan(&last, &live)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return Document{}, fmt.Errorf("write document %s: %w", w.name(), err)
	}
	have := last
	if !live {
		have = 0
	}
	if w.IfVersion != AnyVersion && w.IfVersion != have {
		return Document{}, &ConflictError{w.name(), "version", strconv.FormatInt(w.IfVersion, 10), strconv.FormatInt(have, 10)}
	}
	if w.Delete && !live {
		return Document{}, fmt.Errorf("document %s: %w", w.name(), ErrNotFound)
	}
	d := Document{w.Kind, w.Key, last + 1, w.Body, c.now().UTC().Truncate(time.Microsecond)}
	body := sql.NullString{String: string(w.Body), Valid: !w.Delete}
	if _, err := tx.ExecContext(ctx, `INSERT INTO catalog_documents (kind, key, version, body, written_at) VALUES (?, ?, ?, ?, ?)`,
		d.Kind, d.Key, d.Version, body, d.WrittenAt.UnixMicro()); err != nil {
		return Document{}, fmt.Errorf("write document %s: %w", w.name(), err)
	}
	if w.KeepVersions > 0 {
		if _, err := tx.ExecContext(ctx, `DELETE FROM catalog_documents WHERE kind = ? AND key = ? AND version <= ?`,
			d.Kind, d.Key, d.Version-int64(w.KeepVersions)); err != nil {
			return Document{}, fmt.Errorf("write document %s: drop old versions: %w", w.name(), err)
		}
	}
	return d, nil
}

// PutDocument writes one document and returns what was written.
func (c *Catalog) PutDocument(ctx context.Context, w DocumentWrite) (d Document, err error) {
	if err := w.check(); err != nil {
		return Document{}, err
	}
	err = c.update(ctx, func(ctx context.Context, tx *sql.Tx) error {
		d, err = c.writeDocument(ctx, tx, w)
		return err
	})
	return d, err
}

// GetDocument returns the current version; ErrNotFound if there is none.
func (c *Catalog) GetDocument(ctx context.Context, kind, key string) (Document, error) {
	docs, err := c.documents(ctx, `kind = ? AND key = ? ORDER BY version DESC LIMIT 1`, kind, key)
	if err != nil {
		return Document{}, err
	}
	if len(docs) == 0 || docs[0].Body == nil {
		return Document{}, fmt.Errorf("document %s/%s: %w", kind, key, ErrNotFound)
	}
	return docs[0], nil
}

// ListDocuments returns the current version of each document of the kind whose
// key begins with prefix, sorted by key.
func (c *Catalog) ListDocuments(ctx context.Context, kind, prefix string) ([]Document, error) {
	docs, err := c.documents(ctx, `kind = ? AND key >= ? AND substr(key, 1, length(?)) = ? AND body IS NOT NULL
		AND version = (SELECT max(version) FROM catalog_documents l WHERE l.kind = catalog_documents.kind AND l.key = catalog_documents.key)
		ORDER BY key LIMIT ?`, kind, prefix, prefix, prefix, documentListMax+1)
	if err == nil && len(docs) > documentListMax {
		return nil, fmt.Errorf("%w: more than %d documents %s/%s…", ErrInvalid, documentListMax, kind, prefix)
	}
	return docs, err
}

// DocumentHistory returns every kept version, oldest first. A nil Body stands
// for a deletion.
func (c *Catalog) DocumentHistory(ctx context.Context, kind, key string) ([]Document, error) {
	return c.documents(ctx, `kind = ? AND key = ? ORDER BY version LIMIT ?`, kind, key, documentListMax)
}

func (c *Catalog) documents(ctx context.Context, where string, args ...any) (out []Document, err error) {
	if err := c.usable(false); err != nil {
		return nil, err
	}
	rows, err := c.reader.QueryContext(ctx, `SELECT kind, key, version, body, written_at FROM catalog_documents WHERE `+where, args...)
	if err != nil {
		return nil, fmt.Errorf("read documents: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var d Document
		var body sql.NullString
		var at int64
		if err := rows.Scan(&d.Kind, &d.Key, &d.Version, &body, &at); err != nil {
			return nil, fmt.Errorf("read documents: %w", err)
		}
		if body.Valid {
			d.Body = json.RawMessage(strings.Clone(body.String))
		}
		d.WrittenAt = time.UnixMicro(at).UTC()
		out = append(out, d)
	}
	return out, rows.Err()
}
