package catalog

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/tapehouse/tapehouse/internal/fsys"
)

// Identity says which catalog a Catalog is, and which data directory has it
// open. Several directories may share a catalog on PostgreSQL; of each there is
// one owner at a time. The zero Identity is that of SQLite: the catalog lies in
// the directory and is nobody else's.
type Identity struct{ Catalog, Directory string } // UUIDs

// Identity returns the catalog's and the directory's identity. A catalog that is
// open read-only has no directory.
func (c *Catalog) Identity() Identity { return c.identity }

// bindingName is the file within Options.Dir that keeps the identity of a
// directory whose catalog is elsewhere.
const bindingName = "BINDING"

const bindingHead = "tapehouse catalog 1"

// readBinding returns the zero Identity for a directory without the file.
func readBinding(dir string) (Identity, error) {
	name := filepath.Join(dir, bindingName)
	b, err := fsys.ReadFile(fsys.OS, name)
	if errors.Is(err, fs.ErrNotExist) {
		return Identity{}, nil
	}
	if err != nil {
		return Identity{}, fmt.Errorf("read the directory's identity: %w", err)
	}
	lines := strings.Split(string(b), "\n")
	if len(lines) != 4 || lines[0] != bindingHead || lines[3] != "" || uuid.Validate(lines[1]) != nil || uuid.Validate(lines[2]) != nil {
		return Identity{}, fmt.Errorf("%s holds %q: run the program that wrote it, or restore it from a backup", name, b)
	}
	return Identity{Catalog: lines[1], Directory: lines[2]}, nil
}

// CheckDirectory refuses a directory whose tables are in the other kind of
// database than the options' Dir and Postgres choose.
func CheckDirectory(dir, postgres string) error {
	if postgres == "" {
		b, err := readBinding(dir)
		if err == nil && b != (Identity{}) {
			err = fmt.Errorf("the tables of this data directory are in PostgreSQL, in the catalog %s: name its database in the configuration (catalog: postgres://…), or choose another data directory", b.Catalog)
		}
		return err
	}
	name := filepath.Join(dir, databaseName)
	_, err := os.Stat(name)
	switch {
	case err == nil:
		return fmt.Errorf("the tables of this data directory are in SQLite, in %s: remove catalog: from the configuration, or begin a new data directory", name)
	case errors.Is(err, fs.ErrNotExist):
		return nil
	}
	return err
}

// The catalog's own documents.
const (
	ownKind     = "catalog"
	ownIdentity = "identity"
	ownLease    = "lease/"
)

// catalogIdentity is the document by which a database says which catalog it is,
// and where the files of its tables are.
type catalogIdentity struct {
	ID   string `json:"id"`
	Lake string `json:"lake"`
}

func (p *postgres) bind(ctx context.Context, c *Catalog) (Identity, error) {
	if c.readOnly {
		doc, err := c.GetDocument(ctx, ownKind, ownIdentity)
		if err != nil {
			return Identity{}, err
		}
		var have catalogIdentity
		err = json.Unmarshal(doc.Body, &have)
		return Identity{Catalog: have.ID}, err
	}
	var have catalogIdentity
	if err := c.once(ctx, func(ctx context.Context, tx *sql.Tx) (err error) {
		have, err = p.identify(ctx, c, tx)
		return err
	}); err != nil {
		return Identity{}, err
	}
	bound, err := readBinding(p.dir)
	if err != nil {
		return Identity{}, err
	}
	if bound == (Identity{}) {
		// The catalog's identity is committed: the file never names one that is not.
		bound = Identity{Catalog: have.ID, Directory: uuid.NewString()}
		text := strings.Join([]string{bindingHead, bound.Catalog, bound.Directory, ""}, "\n")
		if err := fsys.WriteFileAtomic(fsys.OS, filepath.Join(p.dir, bindingName), []byte(text), 0o600); err != nil {
			return Identity{}, fmt.Errorf("note the directory's identity: %w", err)
		}
	}
	if bound.Catalog != have.ID {
		return Identity{}, fmt.Errorf("this data directory belongs to the catalog %s, and %s holds the catalog %s: name the former database, or begin a new data directory", bound.Catalog, p.label(), have.ID)
	}
	return bound, nil
}

// identify reads the catalog's identity, or gives it one. The lake is noted with
// it: tables name their files by URI, so that a server with another lake could
// read none of them.
func (p *postgres) identify(ctx context.Context, c *Catalog, tx *sql.Tx) (have catalogIdentity, err error) {
	if err := p.enter(ctx, tx); err != nil {
		return have, err
	}
	lake := strings.TrimSuffix(c.store.URI(""), "/")
	var body sql.NullString
	err = tx.QueryRowContext(ctx, `SELECT body FROM catalog_documents WHERE kind = ? AND key = ? ORDER BY version DESC LIMIT 1`, ownKind, ownIdentity).Scan(&body)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		have.ID = uuid.NewString()
	case err != nil:
		return have, fmt.Errorf("read the catalog's identity: %w", err)
	default:
		if err := json.Unmarshal([]byte(body.String), &have); err != nil {
			return have, fmt.Errorf("read the catalog's identity: %w", err)
		}
	}
	if have.Lake == lake {
		return have, nil
	}
	var tables int
	if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM iceberg_tables WHERE catalog_name = ?`, catalogName).Scan(&tables); err != nil {
		return have, fmt.Errorf("count the tables: %w", err)
	}
	if tables > 0 {
		return have, fmt.Errorf("the tables of the catalog %s lie in %s, and this server's lake is %s: servers that share a catalog share the lake, so give them the same lake.url, or this one another database", p.label(), have.Lake, lake)
	}
	have.Lake = lake
	b, err := json.Marshal(have)
	if err == nil {
		_, err = c.writeDocument(ctx, tx, DocumentWrite{Kind: ownKind, Key: ownIdentity, IfVersion: AnyVersion, Body: b})
	}
	return have, err
}

type lease struct {
	Directory string    `json:"directory"`
	Until     time.Time `json:"until"`
}

// Lease reports whether a piece of work that all servers would do alike is this
// one's, and keeps it so for d; 0 gives it up. A catalog that is not shared has
// only one server, whose it always is. A lease saves work that is done twice; it
// does not guard: the servers' clocks may differ.
func (c *Catalog) Lease(ctx context.Context, work string, d time.Duration) (ours bool, err error) {
	if err := c.usable(true); err != nil {
		return false, err
	}
	if c.identity.Directory == "" {
		return true, nil
	}
	key := ownLease + work
	doc, err := c.GetDocument(ctx, ownKind, key)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return false, err
	}
	var have lease
	if err == nil {
		if err := json.Unmarshal(doc.Body, &have); err != nil {
			return false, fmt.Errorf("read the lease of %s: %w", work, err)
		}
	}
	now := c.now().UTC()
	if have.Directory != c.identity.Directory && now.Before(have.Until) {
		return false, nil
	}
	b, err := json.Marshal(lease{c.identity.Directory, now.Add(d)})
	if err != nil {
		return false, err
	}
	_, err = c.PutDocument(ctx, DocumentWrite{Kind: ownKind, Key: key, IfVersion: doc.Version, Body: b, KeepVersions: 1})
	if errors.Is(err, ErrConflict) {
		return false, nil // another one was faster
	}
	return err == nil, err
}
