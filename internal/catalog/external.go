package catalog

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/tapehouse/tapehouse/internal/hive"
)

// Bounds of external tables.
const (
	externalBytesMax    = 4 << 20 // of a definition's JSON
	partitionsMax       = 100_000 // of one change
	partitionBytesMax   = 1 << 20 // of a definition's JSON
	externalVersionsMax = 1_000   // kept
)

// External is a table whose files others write: their place and form, which the
// catalog only notes. It shares its namespace's names with the tables.
type External struct {
	Name                 Name
	ID                   string // a UUID: another one after the table was dropped and made again
	Version              int64  // from 1
	Definition           hive.Table
	CreatedAt, UpdatedAt time.Time // UTC
}

// ExternalPartition is a partition of an external table.
type ExternalPartition struct {
	hive.Partition
	CreatedAt time.Time // UTC
}

// ExternalChange changes one external table and its partitions. The zero value
// of each field changes nothing.
type ExternalChange struct {
	Table Name
	// IfVersion is the version that must be current; 0: there is no table of that
	// name; AnyVersion: there is one. ErrConflict, ErrExists or ErrNotFound
	// otherwise.
	IfVersion int64
	Drop      bool
	Define    *hive.Table // the next version
	// Unarchived forgets the version that Define replaces.
	Unarchived bool
	// Put adds partitions, or replaces those that have the same values; Remove
	// takes partitions away by their values, if they are there.
	Put    []hive.Partition
	Remove [][]string
}

// partitionKey identifies a partition within its table.
func partitionKey(values []string) (string, error) {
	b, err := json.Marshal(values)
	return string(b), err
}

// ChangeExternals makes all changes in one step, with documents, or none.
// Errors: ErrExists, ErrNotFound (of a table, or of a namespace), *ConflictError,
// ErrInvalid, ErrFenced, ErrPoisoned.
func (c *Catalog) ChangeExternals(ctx context.Context, changes []ExternalChange, documents ...DocumentWrite) error {
	if err := c.usable(true); err != nil {
		return err
	}
	names := make([]Name, len(changes))
	partitions := 0
	for i := range changes {
		if err := changes[i].check(); err != nil {
			return err
		}
		names[i] = changes[i].Table
		partitions += len(changes[i].Put) + len(changes[i].Remove)
	}
	if partitions > partitionsMax {
		return fmt.Errorf("%w change of external tables: %d partitions, the limit is %d", ErrInvalid, partitions, partitionsMax)
	}
	for _, w := range documents {
		if err := w.check(); err != nil {
			return err
		}
	}
	slices.SortFunc(names, compareNames)
	unlock, err := c.lock(ctx, slices.Compact(names))
	if err != nil {
		return err
	}
	defer unlock()
	return c.update(ctx, func(ctx context.Context, tx *sql.Tx) error {
		for i := range changes {
			if err := c.changeExternal(ctx, tx, &changes[i]); err != nil {
				return err
			}
		}
		for _, w := range documents {
			if _, err := c.writeDocument(ctx, tx, w); err != nil {
				return err
			}
		}
		return nil
	})
}

func (m *ExternalChange) check() error {
	if err := m.Table.check(); err != nil {
		return err
	}
	switch {
	case m.IfVersion < AnyVersion:
		return fmt.Errorf("%w change of external table %s: version %d", ErrInvalid, m.Table, m.IfVersion)
	case m.Drop && (m.Define != nil || len(m.Put)+len(m.Remove) > 0):
		return fmt.Errorf("%w change of external table %s: it is dropped and changed", ErrInvalid, m.Table)
	case m.IfVersion == 0 && m.Define == nil:
		return fmt.Errorf("%w change of external table %s: a new table has no definition", ErrInvalid, m.Table)
	}
	return nil
}

// changeExternal makes one change within a transaction.
func (c *Catalog) changeExternal(ctx context.Context, tx *sql.Tx, m *ExternalChange) error {
	now := c.now().UnixMicro()
	id, version, err := externalVersion(ctx, tx, m.Table)
	switch {
	case err != nil && !errors.Is(err, ErrNotFound):
		return err
	case m.IfVersion == 0:
		if err == nil {
			return fmt.Errorf("external table %s: %w", m.Table, ErrExists)
		}
		return c.createExternal(ctx, tx, m, now)
	case err != nil:
		return err
	case m.IfVersion != AnyVersion && m.IfVersion != version:
		return &ConflictError{m.Table.String(), "version", strconv.FormatInt(m.IfVersion, 10), strconv.FormatInt(version, 10)}
	}
	if m.Drop {
		for _, statement := range []string{`DELETE FROM external_partitions WHERE table_id = ?`,
			`DELETE FROM external_table_versions WHERE table_id = ?`, `DELETE FROM external_tables WHERE table_id = ?`} {
			if _, err := tx.ExecContext(ctx, statement, id); err != nil {
				return fmt.Errorf("drop external table %s: %w", m.Table, err)
			}
		}
		return nil
	}
	if m.Define != nil {
		if err := c.redefineExternal(ctx, tx, m, id, version, now); err != nil {
			return err
		}
	}
	return c.changePartitions(ctx, tx, m, id, now)
}

func (c *Catalog) createExternal(ctx context.Context, tx *sql.Tx, m *ExternalChange, now int64) error {
	ok, err := namespaceExists(ctx, tx, m.Table.Namespace)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("namespace %s: %w", m.Table.Namespace, ErrNotFound)
	}
	if _, err := pointer(ctx, tx, m.Table); err == nil {
		return fmt.Errorf("table %s: %w", m.Table, ErrExists)
	} else if !errors.Is(err, ErrNotFound) {
		return err
	}
	body, err := marshalExternal(m.Table, m.Define)
	if err != nil {
		return err
	}
	id := uuid.NewString()
	if _, err := tx.ExecContext(ctx, `INSERT INTO external_tables (table_namespace, table_name, table_id, version, created_at)
		VALUES (?, ?, ?, 1, ?)`, m.Table.Namespace, m.Table.Table, id, now); err != nil {
		return fmt.Errorf("create external table %s: %w", m.Table, err)
	}
	if err := insertVersion(ctx, tx, m.Table, id, 1, body, now); err != nil {
		return err
	}
	return c.changePartitions(ctx, tx, m, id, now)
}

func marshalExternal(name Name, t *hive.Table) (string, error) {
	b, err := json.Marshal(t)
	if err != nil {
		return "", fmt.Errorf("external table %s: %w", name, err)
	}
	if len(b) > externalBytesMax {
		return "", fmt.Errorf("%w external table %s: its definition has %d bytes, the limit is %d", ErrInvalid, name, len(b), externalBytesMax)
	}
	return string(b), nil
}

func insertVersion(ctx context.Context, tx *sql.Tx, name Name, id string, version int64, body string, now int64) error {
	if _, err := tx.ExecContext(ctx, `INSERT INTO external_table_versions (table_id, version, body, written_at) VALUES (?, ?, ?, ?)`,
		id, version, body, now); err != nil {
		return fmt.Errorf("write external table %s: %w", name, err)
	}
	return nil
}

func (c *Catalog) redefineExternal(ctx context.Context, tx *sql.Tx, m *ExternalChange, id string, version, now int64) error {
	body, err := marshalExternal(m.Table, m.Define)
	if err != nil {
		return err
	}
	if err := insertVersion(ctx, tx, m.Table, id, version+1, body, now); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `UPDATE external_tables SET version = ? WHERE table_id = ?`, version+1, id); err != nil {
		return fmt.Errorf("write external table %s: %w", m.Table, err)
	}
	drop, oldest := `version <= ?`, version+1-externalVersionsMax
	if m.Unarchived {
		drop, oldest = `version = ?`, version
	}
	if _, err := tx.ExecContext(ctx, `DELETE FROM external_table_versions WHERE table_id = ? AND `+drop, id, oldest); err != nil {
		return fmt.Errorf("write external table %s: drop old versions: %w", m.Table, err)
	}
	return nil
}

// changePartitions puts and removes a table's partitions.
func (c *Catalog) changePartitions(ctx context.Context, tx *sql.Tx, m *ExternalChange, id string, now int64) error {
	for some := range batches(m.Remove) {
		args := []any{id}
		for _, values := range some {
			key, err := partitionKey(values)
			if err != nil {
				return fmt.Errorf("remove partition %v of %s: %w", values, m.Table, err)
			}
			args = append(args, key)
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM external_partitions WHERE table_id = ? AND partition_key IN `+rows(1, len(some)), args...); err != nil {
			return fmt.Errorf("remove partitions of %s: %w", m.Table, err)
		}
	}
	for some := range batches(m.Put) {
		if err := putPartitions(ctx, tx, m.Table, some, id, now); err != nil {
			return err
		}
	}
	return nil
}

// putPartitions puts as many partitions as one statement takes. Of two with the
// same values the last one counts.
func putPartitions(ctx context.Context, tx *sql.Tx, table Name, partitions []hive.Partition, id string, now int64) error {
	var args []any
	at := make(map[string]int, len(partitions))
	for i := range partitions {
		p := &partitions[i]
		key, err := partitionKey(p.Values)
		var body []byte
		if err == nil {
			body, err = json.Marshal(p)
		}
		if err == nil && len(body) > partitionBytesMax {
			err = fmt.Errorf("%w: its definition has %d bytes, the limit is %d", ErrInvalid, len(body), partitionBytesMax)
		}
		if err != nil {
			return fmt.Errorf("put partition %v of %s: %w", p.Values, table, err)
		}
		if j, twice := at[key]; twice {
			args[j] = string(body)
			continue
		}
		at[key] = len(args) + 2
		args = append(args, id, key, string(body), now)
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO external_partitions (table_id, partition_key, body, created_at) VALUES `+rows(len(args)/4, 4)+`
		ON CONFLICT (table_id, partition_key) DO UPDATE SET body = excluded.body`, args...); err != nil {
		return fmt.Errorf("put partitions of %s: %w", table, err)
	}
	return nil
}

// externalVersion reads a table's id and current version.
func externalVersion(ctx context.Context, q querier, name Name) (id string, version int64, err error) {
	err = q.QueryRowContext(ctx, `SELECT table_id, version FROM external_tables WHERE table_namespace = ? AND table_name = ?`,
		name.Namespace, name.Table).Scan(&id, &version)
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNotFound
	}
	if err != nil {
		return "", 0, fmt.Errorf("external table %s: %w", name, err)
	}
	return id, version, nil
}

// notExternal returns ErrExists if an external table has the name.
func notExternal(ctx context.Context, q querier, name Name) error {
	_, _, err := externalVersion(ctx, q, name)
	switch {
	case err == nil:
		return fmt.Errorf("external table %s: %w", name, ErrExists)
	case errors.Is(err, ErrNotFound):
		return nil
	}
	return err
}

// External returns an external table's current version; ErrNotFound if there is
// none of that name.
func (c *Catalog) External(ctx context.Context, name Name) (External, error) {
	out, err := c.externals(ctx, `t.table_namespace = ? AND t.table_name = ? AND v.version = t.version`, name.Namespace, name.Table)
	if err == nil && len(out) == 0 {
		err = fmt.Errorf("external table %s: %w", name, ErrNotFound)
	}
	if err != nil {
		return External{}, err
	}
	return out[0], nil
}

// Externals lists the current versions of a namespace's external tables, sorted
// by name. "" is all namespaces.
func (c *Catalog) Externals(ctx context.Context, namespace string) ([]External, error) {
	return c.externals(ctx, `(? = '' OR t.table_namespace = ?) AND v.version = t.version ORDER BY t.table_namespace, t.table_name`, namespace, namespace)
}

// ExternalVersions lists the versions of an external table that are kept, the
// newest first.
func (c *Catalog) ExternalVersions(ctx context.Context, name Name) ([]External, error) {
	out, err := c.externals(ctx, `t.table_namespace = ? AND t.table_name = ? ORDER BY v.version DESC`, name.Namespace, name.Table)
	if err == nil && len(out) == 0 {
		err = fmt.Errorf("external table %s: %w", name, ErrNotFound)
	}
	return out, err
}

func (c *Catalog) externals(ctx context.Context, where string, args ...any) (out []External, err error) {
	if err := c.usable(false); err != nil {
		return nil, err
	}
	rows, err := c.reader.QueryContext(ctx, `SELECT t.table_namespace, t.table_name, t.table_id, v.version, v.body, t.created_at, v.written_at
		FROM external_tables t JOIN external_table_versions v ON v.table_id = t.table_id WHERE `+where, args...)
	if err != nil {
		return nil, fmt.Errorf("read external tables: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var e External
		var body []byte
		var created, written int64
		err := rows.Scan(&e.Name.Namespace, &e.Name.Table, &e.ID, &e.Version, &body, &created, &written)
		if err == nil {
			err = json.Unmarshal(body, &e.Definition)
		}
		if err != nil {
			return nil, fmt.Errorf("read external tables: %w", err)
		}
		e.CreatedAt, e.UpdatedAt = time.UnixMicro(created).UTC(), time.UnixMicro(written).UTC()
		out = append(out, e)
	}
	return out, rows.Err()
}

// DropExternalVersion forgets a version that is not the current one.
func (c *Catalog) DropExternalVersion(ctx context.Context, name Name, version int64) error {
	return c.update(ctx, func(ctx context.Context, tx *sql.Tx) error {
		id, current, err := externalVersion(ctx, tx, name)
		if err != nil {
			return err
		}
		if version == current {
			return fmt.Errorf("%w: version %d of external table %s is the current one", ErrInvalid, version, name)
		}
		res, err := tx.ExecContext(ctx, `DELETE FROM external_table_versions WHERE table_id = ? AND version = ?`, id, version)
		if err != nil {
			return fmt.Errorf("drop version of external table %s: %w", name, err)
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return errors.Join(fmt.Errorf("version %d of external table %s: %w", version, name, ErrNotFound), err)
		}
		return nil
	})
}

// PartitionsPage says which partitions ExternalPartitions visits.
type PartitionsPage struct {
	// After are the values of the last partition that was visited before; nil:
	// from the first one.
	After []string
	// Wanted chooses partitions by their values; nil: all.
	Wanted func(values []string) bool
}

// ExternalPartitions calls fn for the partitions of an external table, in an
// order that stays the same, until fn returns false.
func (c *Catalog) ExternalPartitions(ctx context.Context, name Name, page PartitionsPage, fn func(ExternalPartition) bool) (err error) {
	if err := c.usable(false); err != nil {
		return err
	}
	tx, err := c.reader.BeginTx(ctx, nil) // all that is visited is of one instant
	if err != nil {
		return fmt.Errorf("read partitions of %s: %w", name, err)
	}
	defer func() { _ = tx.Rollback() }()
	id, _, err := externalVersion(ctx, tx, name)
	if err != nil {
		return err
	}
	after := ""
	if page.After != nil {
		if after, err = partitionKey(page.After); err != nil {
			return err
		}
	}
	for more := true; more; {
		if after, more, err = visitPartitions(ctx, tx, id, after, page.Wanted, fn); err != nil {
			return fmt.Errorf("read partitions of %s: %w", name, err)
		}
	}
	return nil
}

// visitPartitions visits as many partitions as are read at once: PostgreSQL sends
// all rows of a query, also those that nobody takes. It returns the last one's key
// and whether to go on.
func visitPartitions(ctx context.Context, tx *sql.Tx, id, after string, wanted func([]string) bool, fn func(ExternalPartition) bool) (last string, more bool, err error) {
	rows, err := tx.QueryContext(ctx, `SELECT partition_key, body, created_at FROM external_partitions
		WHERE table_id = ? AND partition_key > ? ORDER BY partition_key LIMIT ?`, id, after, rowsMax)
	if err != nil {
		return "", false, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	var key, body sql.RawBytes
	var created int64
	n := 0
	for ; rows.Next(); n++ {
		if err := rows.Scan(&key, &body, &created); err != nil {
			return "", false, err
		}
		last = string(key)
		if wanted != nil {
			var values []string
			if err := json.Unmarshal(key, &values); err != nil {
				return "", false, err
			}
			if !wanted(values) {
				continue
			}
		}
		p := ExternalPartition{CreatedAt: time.UnixMicro(created).UTC()}
		if err := json.Unmarshal(body, &p.Partition); err != nil {
			return "", false, err
		}
		if !fn(p) {
			return last, false, nil
		}
	}
	return last, n == rowsMax, rows.Err()
}

// FindPartitions returns the partitions of an external table that have the given
// values, in their order; nil for one that is not there.
func (c *Catalog) FindPartitions(ctx context.Context, name Name, values ...[]string) ([]*ExternalPartition, error) {
	if err := c.usable(false); err != nil {
		return nil, err
	}
	tx, err := c.reader.BeginTx(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("read partitions of %s: %w", name, err)
	}
	defer func() { _ = tx.Rollback() }()
	id, _, err := externalVersion(ctx, tx, name)
	if err != nil {
		return nil, err
	}
	out := make([]*ExternalPartition, len(values))
	for i, v := range values {
		key, err := partitionKey(v)
		if err != nil {
			return nil, err
		}
		var body []byte
		var created int64
		err = tx.QueryRowContext(ctx, `SELECT body, created_at FROM external_partitions WHERE table_id = ? AND partition_key = ?`, id, key).Scan(&body, &created)
		if errors.Is(err, sql.ErrNoRows) {
			continue
		}
		p := &ExternalPartition{CreatedAt: time.UnixMicro(created).UTC()}
		if err == nil {
			err = json.Unmarshal(body, &p.Partition)
		}
		if err != nil {
			return nil, fmt.Errorf("read partition %v of %s: %w", v, name, err)
		}
		out[i] = p
	}
	return out, nil
}

// AddPartitions adds those partitions whose values none has yet, and returns the
// indexes of the others. It is for some hundreds at a time.
func (c *Catalog) AddPartitions(ctx context.Context, name Name, partitions []hive.Partition) (taken []int, err error) {
	values := make([][]string, len(partitions))
	for i := range partitions {
		values[i] = partitions[i].Values
	}
	return c.eachPartition(ctx, name, values, func(present []bool, m *ExternalChange) (refused []int) {
		for i, p := range partitions {
			twice := slices.ContainsFunc(m.Put, func(earlier hive.Partition) bool { return slices.Equal(earlier.Values, p.Values) })
			if present[i] || twice {
				refused = append(refused, i)
			} else {
				m.Put = append(m.Put, p)
			}
		}
		return refused
	})
}

// PartitionUpdate gives the partition with Values another definition, and other
// values if To has others.
type PartitionUpdate struct {
	Values []string
	To     hive.Partition
}

// UpdatePartitions changes the partitions that are there, and returns the indexes
// of updates whose partition is not, or whose new values another one has.
func (c *Catalog) UpdatePartitions(ctx context.Context, name Name, updates []PartitionUpdate) (missing, taken []int, err error) {
	values := make([][]string, 0, 2*len(updates))
	for _, u := range updates {
		values = append(values, u.Values, u.To.Values)
	}
	refused, err := c.eachPartition(ctx, name, values, func(present []bool, m *ExternalChange) (refused []int) {
		for i, u := range updates {
			moves := !slices.Equal(u.Values, u.To.Values)
			switch {
			case !present[2*i]:
				refused = append(refused, 2*i)
			case moves && present[2*i+1]:
				refused = append(refused, 2*i+1)
			case moves:
				m.Remove = append(m.Remove, u.Values)
				fallthrough
			default:
				m.Put = append(m.Put, u.To)
			}
		}
		return refused
	})
	for _, i := range refused {
		if i%2 == 0 {
			missing = append(missing, i/2)
		} else {
			taken = append(taken, i/2)
		}
	}
	return missing, taken, err
}

// RemovePartitions takes partitions away, and returns the indexes of those that
// were not there.
func (c *Catalog) RemovePartitions(ctx context.Context, name Name, values ...[]string) (missing []int, err error) {
	return c.eachPartition(ctx, name, values, func(present []bool, m *ExternalChange) (refused []int) {
		for i, v := range values {
			if present[i] {
				m.Remove = append(m.Remove, v)
			} else {
				refused = append(refused, i)
			}
		}
		return refused
	})
}

// eachPartition decides by which partitions are there what is changed.
func (c *Catalog) eachPartition(ctx context.Context, name Name, values [][]string, decide func(present []bool, m *ExternalChange) []int) (refused []int, err error) {
	if err := c.usable(true); err != nil {
		return nil, err
	}
	unlock, err := c.lock(ctx, []Name{name})
	if err != nil {
		return nil, err
	}
	defer unlock()
	err = c.update(ctx, func(ctx context.Context, tx *sql.Tx) error {
		id, _, err := externalVersion(ctx, tx, name)
		if err != nil {
			return err
		}
		present := make([]bool, len(values))
		for i, v := range values {
			key, err := partitionKey(v)
			if err == nil {
				err = tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM external_partitions WHERE table_id = ? AND partition_key = ?)`, id, key).Scan(&present[i])
			}
			if err != nil {
				return fmt.Errorf("look up partition %v of %s: %w", v, name, err)
			}
		}
		m := ExternalChange{Table: name}
		refused = decide(present, &m)
		return c.changePartitions(ctx, tx, &m, id, c.now().UnixMicro())
	})
	return refused, err
}
