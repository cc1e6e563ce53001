package market

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/tapehouse/tapehouse/internal/calendar"
	"github.com/tapehouse/tapehouse/internal/engine"
	"github.com/tapehouse/tapehouse/internal/fsys"
	"github.com/tapehouse/tapehouse/packs"
)

// manifestName is the file that lists a version's statement files.
const manifestName = "manifest.json"

// manifestFormat is the form of the manifest that this program writes.
const manifestFormat = 1

// illustrativeNotice stands in the manifest where the pack's fees are no
// exchange's own; the CSV files say it in the column fees.
const illustrativeNotice = "Illustrative: members and fees are invented. Nobody is billed by these statements."

// Manifest lists the statement files of a sealed version. It holds nothing that
// depends on when or where they were written.
type Manifest struct {
	Format       int             `json:"format"`
	TradeDate    string          `json:"trade_date"`
	Version      int             `json:"version"`
	Tag          string          `json:"tag"`
	Certificate  string          `json:"certificate"` // hash
	Pack         PackName        `json:"pack"`
	Illustrative []string        `json:"illustrative,omitempty"`
	Notice       string          `json:"notice,omitempty"`
	Statements   []StatementFile `json:"statements"`
	Reports      []ReportFile    `json:"reports"`
	Lines        int             `json:"lines"`
	Amount       string          `json:"amount"` // sum of all statements
}

// StatementFile is one member's statement.
type StatementFile struct {
	ID     string `json:"id"` // "<trade date>/v<version>/<member>"
	Member string `json:"member"`
	File   string `json:"file"`
	Lines  int    `json:"lines"`
	Amount string `json:"amount"`
	SHA256 string `json:"sha256"`
}

// ReportFile is one report.
type ReportFile struct {
	Name   string `json:"name"`
	File   string `json:"file"`
	Rows   int    `json:"rows"`
	SHA256 string `json:"sha256"`
}

// StatementsResult is what Statements did.
type StatementsResult struct {
	Dir      string
	Manifest *Manifest
	// Identical: the files were there already and are the same to the byte.
	Identical bool
}

// StatementsError says that statement files which are there differ from what the
// sealed data gives. Nothing was written.
type StatementsError struct {
	Dir   string
	Files []string
}

func (e *StatementsError) Error() string {
	return fmt.Sprintf("statements in %s differ from the sealed data: %s; they were changed after they were written: move them away and write them anew", e.Dir, strings.Join(e.Files, ", "))
}

// Statements writes the statements and reports of a sealed version (0: the one
// in force) below StatementsDir, from the tagged data alone, or finds them
// there byte for byte. *UnbillableError, *StatementsError, ErrNotSealed.
func (m *Market) Statements(ctx context.Context, d calendar.TradeDate, version int) (*StatementsResult, error) {
	if m.o.StatementsDir == "" {
		return nil, fmt.Errorf("%w options: no directory for statements", ErrInvalid)
	}
	c, _, err := m.Certificate(ctx, d, version)
	if err != nil {
		return nil, err
	}
	files, manifest, err := m.render(ctx, d, c)
	if err != nil {
		return nil, fmt.Errorf("statements of %s version %d: %w", d, c.Version, err)
	}
	res := &StatementsResult{Dir: m.versionDir(d, c.Version), Manifest: manifest}
	switch _, err := m.o.FS.Stat(res.Dir); {
	case err == nil:
		res.Identical = true
		return res, m.compareFiles(res.Dir, files)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("statements of %s version %d: %w", d, c.Version, err)
	}
	if err := m.writeDir(res.Dir, files); err != nil {
		return nil, fmt.Errorf("write statements of %s version %d: %w", d, c.Version, err)
	}
	m.o.Logger.Info("statements written", "trade_date", d.String(), "version", c.Version, "dir", res.Dir, "statements", len(manifest.Statements), "lines", manifest.Lines, "amount", manifest.Amount)
	return res, nil
}

func (m *Market) versionDir(d calendar.TradeDate, version int) string {
	return filepath.Join(m.o.StatementsDir, d.String(), "v"+strconv.Itoa(version))
}

// file is one file in memory.
type file struct {
	name string
	data []byte
}

// render makes every file of a version: the same bytes at any time.
func (m *Market) render(ctx context.Context, d calendar.TradeDate, c *Certificate) ([]file, *Manifest, error) {
	lines, st, err := m.billable(ctx, c, d)
	if err != nil {
		return nil, nil, err
	}
	manifest := &Manifest{Format: manifestFormat, TradeDate: c.TradeDate, Version: c.Version, Tag: c.Tag, Certificate: c.Hash, Pack: c.Pack,
		Illustrative: c.Illustrative, Statements: []StatementFile{}, Reports: []ReportFile{}, Lines: len(lines.lines)}
	if len(c.Illustrative) > 0 {
		manifest.Notice = illustrativeNotice
	}
	var files []file
	total := new(big.Rat)
	for from := 0; from < len(lines.lines); {
		to := from
		for to < len(lines.lines) && lines.lines[to].member == lines.lines[from].member {
			to++
		}
		own := lines.lines[from:to]
		from = to
		f, entry, err := lines.memberFile(c, own)
		if err != nil {
			return nil, nil, err
		}
		sum := parse(entry.Amount)
		total.Add(total, sum)
		files = append(files, f)
		manifest.Statements = append(manifest.Statements, entry)
	}
	// The statements' amounts are the lines' sum: added up on another way.
	all := new(big.Rat)
	for _, l := range lines.lines {
		all.Add(all, l.amount)
	}
	if all.Cmp(total) != 0 {
		return nil, nil, fmt.Errorf("statements sum to %s, their lines to %s", total.FloatString(lines.places), all.FloatString(lines.places))
	}
	manifest.Amount = total.FloatString(lines.places)
	for i := range m.pack.Statements {
		s := &m.pack.Statements[i]
		if s.Role != packs.Report {
			continue
		}
		r, err := m.execute(ctx, st, s, engine.Date(d))
		if err != nil {
			return nil, nil, err
		}
		data, err := r.csv()
		if err != nil {
			return nil, nil, err
		}
		files = append(files, file{s.Name + ".csv", data})
		manifest.Reports = append(manifest.Reports, ReportFile{s.Name, s.Name + ".csv", len(r.rows), hashOf(data)})
	}
	body, err := json.MarshalIndent(manifest, "", "  ")
	if err != nil {
		return nil, nil, err
	}
	files = append(files, file{manifestName, append(body, '\n')})
	// Some file systems take names that differ in case for one.
	names := map[string]bool{}
	for _, f := range files {
		n := strings.ToLower(f.name)
		if names[n] {
			return nil, nil, fmt.Errorf("%w member id or report name: two would be written to %s", ErrInvalid, f.name)
		}
		names[n] = true
	}
	return files, manifest, nil
}

// statementID names a member's statement.
func statementID(c *Certificate, member string) string {
	return c.TradeDate + "/v" + strconv.Itoa(c.Version) + "/" + member
}

// memberFile renders one member's lines.
func (r *statementResult) memberFile(c *Certificate, lines []*statementLine) (file, StatementFile, error) {
	member := lines[0].member
	name, err := fileName(member)
	if err != nil {
		return file{}, StatementFile{}, err
	}
	entry := StatementFile{ID: statementID(c, member), Member: member, File: name + ".csv", Lines: len(lines)}
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	row := []string{"statement", "line", "trade_date"}
	for _, col := range r.columns {
		row = append(row, col.Name)
	}
	row = append(row, "fees")
	fees := "as scheduled"
	if len(c.Illustrative) > 0 {
		fees = "illustrative"
	}
	sum := new(big.Rat)
	for i := -1; i < len(lines); i++ {
		if i >= 0 {
			l := lines[i]
			row = append(row[:0], entry.ID, strconv.Itoa(l.number), c.TradeDate)
			for _, v := range l.values {
				row = append(row, text(v))
			}
			row = append(row, fees)
			sum.Add(sum, l.amount)
		}
		if err := w.Write(row); err != nil {
			return file{}, entry, err
		}
	}
	w.Flush()
	entry.Amount, entry.SHA256 = sum.FloatString(r.places), hashOf(b.Bytes())
	return file{entry.File, b.Bytes()}, entry, w.Error()
}

// fileName is a member's id as a file name, refused where it could be another
// member's or leave the directory.
func fileName(member string) (string, error) {
	for _, c := range []byte(member) {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '.') {
			return "", fmt.Errorf("%w member id %q: a statement's file name takes letters, digits, '-', '_' and '.' only", ErrInvalid, member)
		}
	}
	if member == "" || member[0] == '.' || len(member) > 200 || strings.EqualFold(member+".json", manifestName) || strings.HasPrefix(member, "adjustments-") {
		return "", fmt.Errorf("%w member id %q: it cannot name a file", ErrInvalid, member)
	}
	return member, nil
}

// csv renders a result with its header.
func (r *result) csv() ([]byte, error) {
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	row := make([]string, len(r.columns))
	for i, c := range r.columns {
		row[i] = c.Name
	}
	if err := w.Write(row); err != nil {
		return nil, err
	}
	for _, values := range r.rows {
		for i, v := range values {
			row[i] = text(v)
		}
		if err := w.Write(row); err != nil {
			return nil, err
		}
	}
	w.Flush()
	return b.Bytes(), w.Error()
}

// compareFiles holds files against what a directory has.
func (m *Market) compareFiles(dir string, files []file) error {
	var differ []string
	for _, f := range files {
		have, err := fsys.ReadFile(m.o.FS, filepath.Join(dir, f.name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err != nil || !bytes.Equal(have, f.data) {
			differ = append(differ, f.name)
		}
	}
	if len(differ) > 0 {
		slices.Sort(differ)
		return &StatementsError{dir, differ}
	}
	return nil
}

// writeDir makes a directory with files appear whole or not at all.
func (m *Market) writeDir(dir string, files []file) error {
	parent := filepath.Dir(dir)
	if err := m.o.FS.MkdirAll(parent, 0o755); err != nil {
		return err
	}
	prefix := "." + filepath.Base(dir) + "-"
	if err := m.clearTemporary(parent, prefix); err != nil {
		return err
	}
	temp := filepath.Join(parent, prefix+uuid.NewString())
	if err := m.o.FS.MkdirAll(temp, 0o755); err != nil {
		return err
	}
	for _, f := range files {
		if err := m.writeFile(filepath.Join(temp, f.name), f.data); err != nil {
			return err
		}
	}
	if err := m.o.FS.SyncDir(temp); err != nil {
		return err
	}
	if err := m.o.FS.Rename(temp, dir); err != nil {
		return err
	}
	return m.o.FS.SyncDir(parent)
}

// clearTemporary removes what a crash left of an earlier writing.
func (m *Market) clearTemporary(parent, prefix string) error {
	entries, err := m.o.FS.ReadDir(parent)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), prefix) {
			continue
		}
		temp := filepath.Join(parent, e.Name())
		inner, err := m.o.FS.ReadDir(temp)
		if err != nil {
			return err
		}
		for _, f := range inner {
			if err := m.o.FS.Remove(filepath.Join(temp, f.Name())); err != nil {
				return err
			}
		}
		if err := m.o.FS.Remove(temp); err != nil {
			return err
		}
	}
	return nil
}

func (m *Market) writeFile(name string, data []byte) (err error) {
	f, err := m.o.FS.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Sync()
}
