package packs

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/csv"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/tapehouse/tapehouse/internal/calendar"
	"github.com/tapehouse/tapehouse/internal/record"
)

// The limits of a pack.
const (
	fileSizeBytesMax = 64 << 20
	filesMax         = 1000
	streamsMax       = 100
	columnsMax       = 500
)

// manifestName is the file that a pack's directory begins with.
const manifestName = "pack.yaml"

// formatVersion is the form of pack.yaml that this program reads.
const formatVersion = 1

// packDocument is the form of pack.yaml.
type packDocument struct {
	Format     int                 `yaml:"format"`
	Name       string              `yaml:"name"`
	Version    string              `yaml:"version"`
	Namespace  string              `yaml:"namespace"`
	Calendar   string              `yaml:"calendar"`
	Views      string              `yaml:"views"`
	Streams    []streamDocument    `yaml:"streams"`
	References []referenceDocument `yaml:"references"`
	Statements []statementDocument `yaml:"statements"`
	Close      closeDocument       `yaml:"close"`
}

type streamDocument struct {
	Name      string            `yaml:"name"`
	Table     string            `yaml:"table"`
	Comment   string            `yaml:"comment"`
	Partition string            `yaml:"partition"`
	Sequence  *sequenceDocument `yaml:"sequence"`
	Buffer    bufferDocument    `yaml:"buffer"`
	Columns   []columnDocument  `yaml:"columns"`
}

type sequenceDocument struct {
	Source   string `yaml:"source"`
	Session  string `yaml:"session"`
	Epoch    string `yaml:"epoch"`
	Sequence string `yaml:"sequence"`
}

type bufferDocument struct {
	SizeMiB         int `yaml:"size_mib"`
	IntervalSeconds int `yaml:"interval_seconds"`
}

type columnDocument struct {
	Name     string `yaml:"name"`
	Type     string `yaml:"type"`
	Required bool   `yaml:"required"`
	Derive   string `yaml:"derive"`
	From     string `yaml:"from"`
}

type referenceDocument struct {
	Table   string           `yaml:"table"`
	Comment string           `yaml:"comment"`
	File    string           `yaml:"file"`
	Columns []columnDocument `yaml:"columns"`
}

type statementDocument struct {
	Name     string   `yaml:"name"`
	Role     string   `yaml:"role"`
	File     string   `yaml:"file"`
	Comment  string   `yaml:"comment"`
	Key      []string `yaml:"key"`
	Explains string   `yaml:"explains"`
}

type closeDocument struct {
	Roster      string         `yaml:"roster"`
	Markers     string         `yaml:"markers"`
	Corrections string         `yaml:"corrections"`
	Facts       []factDocument `yaml:"facts"`
}

type factDocument struct {
	Stream   string `yaml:"stream"`
	Quantity string `yaml:"quantity"`
	Price    string `yaml:"price"`
}

// loader gathers one pack and names the place of every error.
type loader struct {
	fsys fs.FS
	pack *Pack
}

// fault is an error at a place: a file, or a file and what within it.
func fault(place, format string, args ...any) error {
	return fmt.Errorf("%w: %s: %w", ErrInvalid, place, fmt.Errorf(format, args...))
}

// Load reads the pack whose pack.yaml stands at the root of fsys and checks it
// whole: a Pack that Load returns is usable. Unknown keys are refused with
// their line. Errors wrap ErrInvalid.
func Load(fsys fs.FS) (*Pack, error) {
	l := &loader{fsys: fsys, pack: &Pack{}}
	text, err := l.read(manifestName)
	if err != nil {
		return nil, err
	}
	var doc packDocument
	if err := yaml.NewDecoder(bytes.NewReader(text), yaml.Strict()).Decode(&doc); err != nil {
		return nil, fault(manifestName, "%w", err)
	}
	if doc.Format != formatVersion {
		return nil, fault(manifestName, "format %d is not known to this program, which reads %d", doc.Format, formatVersion)
	}
	p := l.pack
	p.Name, p.Version, p.Namespace = doc.Name, doc.Version, doc.Namespace
	if p.Name == "" || p.Version == "" {
		return nil, fault(manifestName, "name and version are required")
	}
	if !identifierRE.MatchString(p.Namespace) {
		return nil, fault(manifestName, "namespace %q: want a lower-case identifier", p.Namespace)
	}
	if p.CalendarRaw, err = l.read(doc.Calendar); err != nil {
		return nil, err
	}
	if p.Calendar, err = calendar.Parse(p.CalendarRaw); err != nil {
		return nil, fault(doc.Calendar, "%w", err)
	}
	if doc.Views != "" {
		views, err := l.read(doc.Views)
		if err != nil {
			return nil, err
		}
		p.Views = string(views)
	}
	for _, step := range []func() error{
		func() error { return l.streams(doc.Streams) },
		func() error { return l.references(doc.References) },
		func() error { return l.statements(doc.Statements) },
		func() error { return l.close(doc.Close) },
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	p.Hash, err = l.hash()
	return p, err
}

var identifierRE = regexp.MustCompile(`^[a-z][a-z0-9_]{0,62}$`)

func (l *loader) read(name string) ([]byte, error) {
	if !fs.ValidPath(name) || name == "." {
		return nil, fault(manifestName, "file name %q: want a path within the pack", name)
	}
	f, err := l.fsys.Open(name)
	if err != nil {
		return nil, fault(name, "%w", err)
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, fileSizeBytesMax+1))
	if err != nil {
		return nil, fault(name, "%w", err)
	}
	if len(text) > fileSizeBytesMax {
		return nil, fault(name, "larger than the limit of %d bytes", fileSizeBytesMax)
	}
	return text, nil
}

func (l *loader) streams(in []streamDocument) error {
	if len(in) == 0 || len(in) > streamsMax {
		return fault(manifestName, "%d streams: want 1 to %d", len(in), streamsMax)
	}
	for i, d := range in {
		place := fmt.Sprintf("%s stream %d (%s)", manifestName, i+1, d.Name)
		name, err := record.ParseStreamName(d.Name)
		if err != nil {
			return fault(place, "%w", err)
		}
		if _, twice := l.pack.Stream(name); twice {
			return fault(place, "the name stands twice")
		}
		if err := l.newTable(d.Table); err != nil {
			return fault(place, "%w", err)
		}
		s := Stream{Name: name, Table: d.Table, Comment: d.Comment, Partition: d.Partition,
			BufferSizeMiB: d.Buffer.SizeMiB, BufferInterval: time.Duration(d.Buffer.IntervalSeconds) * time.Second}
		// The bounds are those of Firehose's buffering hints.
		if s.BufferSizeMiB < 1 || s.BufferSizeMiB > 128 || s.BufferInterval > 15*time.Minute || s.BufferInterval < 0 {
			return fault(place, "buffer of %d MiB and %s: want 1 to 128 MiB and 0 to 900 s", s.BufferSizeMiB, s.BufferInterval)
		}
		if s.Schema, err = schema(d.Columns, true); err != nil {
			return fault(place, "%w", err)
		}
		if s.Partition != "" {
			if c := s.Schema.Index(s.Partition); c < 0 || s.Schema.Fields[c].Type.Kind != record.Date || !s.Schema.Fields[c].Required {
				return fault(place, "partition %q: want a required column of type date", s.Partition)
			}
		}
		if q := d.Sequence; q != nil {
			s.Sequence = record.SequenceColumns{Source: q.Source, Session: q.Session, Epoch: q.Epoch, Sequence: q.Sequence}
			for _, c := range []struct {
				name string
				kind record.Kind
			}{{q.Source, record.String}, {q.Session, record.String}, {q.Epoch, record.Long}, {q.Sequence, record.Long}} {
				n := s.Schema.Index(c.name)
				if n < 0 || s.Schema.Fields[n].Type.Kind != c.kind || !s.Schema.Fields[n].Required || s.Schema.Fields[n].Derive != record.FromJSON {
					return fault(place, "sequence column %q: want a required %s column that the producer sends", c.name, record.Type{Kind: c.kind})
				}
			}
		}
		l.pack.Streams = append(l.pack.Streams, s)
	}
	return nil
}

func (l *loader) newTable(name string) error {
	if !identifierRE.MatchString(name) {
		return fmt.Errorf("table %q: want a lower-case identifier", name)
	}
	for _, s := range l.pack.Streams {
		if s.Table == name {
			return fmt.Errorf("table %s stands twice", name)
		}
	}
	if _, twice := l.pack.Reference(name); twice {
		return fmt.Errorf("table %s stands twice", name)
	}
	return nil
}

// schema checks columns and numbers them from 1. Only a stream's columns may
// derive.
func schema(in []columnDocument, mayDerive bool) (record.Schema, error) {
	var s record.Schema
	if len(in) == 0 || len(in) > columnsMax {
		return s, fmt.Errorf("%d columns: want 1 to %d", len(in), columnsMax)
	}
	for i, d := range in {
		place := fmt.Sprintf("column %d (%s)", i+1, d.Name)
		if !identifierRE.MatchString(d.Name) {
			return s, fmt.Errorf("%s: want a lower-case identifier", place)
		}
		if s.Index(d.Name) >= 0 {
			return s, fmt.Errorf("%s: the name stands twice", place)
		}
		typ, err := record.ParseType(d.Type)
		if err != nil {
			return s, fmt.Errorf("%s: %w", place, err)
		}
		f := record.Field{ID: i + 1, Name: d.Name, Type: typ, Required: d.Required, Derive: record.Derivation(d.Derive), From: d.From}
		if f.Derive != record.FromJSON && !mayDerive {
			return s, fmt.Errorf("%s: a reference table's column cannot derive", place)
		}
		s.Fields = append(s.Fields, f)
	}
	for i, f := range s.Fields {
		place := fmt.Sprintf("column %d (%s)", i+1, f.Name)
		if err := checkDerivation(s, f); err != nil {
			return s, fmt.Errorf("%s: %w", place, err)
		}
	}
	return s, nil
}

func checkDerivation(s record.Schema, f record.Field) error {
	want, fromTime := record.Kind(0), false
	switch f.Derive {
	case record.FromJSON:
		if f.From != "" {
			return errors.New("from is for derived columns only")
		}
		return nil
	case record.TradeDate:
		want, fromTime = record.Date, true
	case record.EpochNanos:
		want, fromTime = record.Long, true
	case record.RecordStream:
		want = record.String
	case record.RecordOffset:
		want = record.Long
	case record.ArrivedAt:
		want = record.TimestampTZ
	default:
		return fmt.Errorf("derive %q: want trade-date, epoch-ns, record-stream, record-offset or arrived-at", f.Derive)
	}
	if f.Type.Kind != want {
		return fmt.Errorf("derive %s gives a %s, not a %s", f.Derive, record.Type{Kind: want}, f.Type)
	}
	if !fromTime {
		if f.From != "" {
			return fmt.Errorf("derive %s reads no column", f.Derive)
		}
		return nil
	}
	n := s.Index(f.From)
	if n < 0 || s.Fields[n].Type.Kind != record.TimestampTZ || s.Fields[n].Derive != record.FromJSON {
		return fmt.Errorf("from %q: want a timestamptz column that the producer sends", f.From)
	}
	if f.Required && !s.Fields[n].Required {
		return fmt.Errorf("required, but %s, which it derives from, is not", f.From)
	}
	return nil
}

func (l *loader) references(in []referenceDocument) error {
	for i, d := range in {
		place := fmt.Sprintf("%s reference %d (%s)", manifestName, i+1, d.Table)
		if err := l.newTable(d.Table); err != nil {
			return fault(place, "%w", err)
		}
		r := Reference{Table: d.Table, Comment: d.Comment, File: d.File}
		var err error
		if r.Schema, err = schema(d.Columns, false); err != nil {
			return fault(place, "%w", err)
		}
		text, err := l.read(d.File)
		if err != nil {
			return err
		}
		if r.Rows, err = readCSV(d.File, text, r.Schema); err != nil {
			return err
		}
		l.pack.References = append(l.pack.References, r)
	}
	return nil
}

// readCSV reads a table whose first line names the schema's columns in order.
// Lines that begin with # are comments.
func readCSV(name string, text []byte, s record.Schema) ([][]string, error) {
	r := csv.NewReader(bytes.NewReader(text))
	r.Comment = '#'
	r.FieldsPerRecord = len(s.Fields)
	head, err := r.Read()
	if err != nil {
		return nil, fault(name, "%w", err)
	}
	want := make([]string, len(s.Fields))
	for i, f := range s.Fields {
		want[i] = f.Name
	}
	if !slices.Equal(head, want) {
		return nil, fault(name, "header %s: want %s", strings.Join(head, ","), strings.Join(want, ","))
	}
	var rows [][]string
	for {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			return rows, nil
		}
		if err != nil {
			return nil, fault(name, "%w", err)
		}
		for i, f := range s.Fields {
			if err := checkCell(f, row[i]); err != nil {
				line, column := r.FieldPos(i)
				return nil, fault(fmt.Sprintf("%s:%d:%d", name, line, column), "column %s: %w", f.Name, err)
			}
		}
		rows = append(rows, row)
	}
}

var roles = []Role{MemberStatement, ExplainCharge, Report}

func (l *loader) statements(in []statementDocument) error {
	for i, d := range in {
		place := fmt.Sprintf("%s statement %d (%s)", manifestName, i+1, d.Name)
		if !identifierRE.MatchString(d.Name) {
			return fault(place, "name %q: want a lower-case identifier", d.Name)
		}
		if _, twice := l.pack.Statement(d.Name); twice {
			return fault(place, "the name stands twice")
		}
		if !slices.Contains(roles, Role(d.Role)) {
			return fault(place, "role %q: want one of %v", d.Role, roles)
		}
		if (Role(d.Role) == MemberStatement) != (len(d.Key) > 0) {
			return fault(place, "key names the columns that identify a line of a %s, and of nothing else", MemberStatement)
		}
		text, err := l.read(d.File)
		if err != nil {
			return err
		}
		if !strings.Contains(string(text), "$1") {
			return fault(d.File, "the trade date, $1, is not used")
		}
		l.pack.Statements = append(l.pack.Statements, Statement{Name: d.Name, Role: Role(d.Role), File: d.File,
			Comment: d.Comment, Key: d.Key, Explains: d.Explains, SQL: string(text)})
	}
	for i, s := range l.pack.Statements {
		place := fmt.Sprintf("%s statement %d (%s)", manifestName, i+1, s.Name)
		if s.Role != ExplainCharge {
			if s.Explains != "" {
				return fault(place, "explains is for an %s only", ExplainCharge)
			}
			continue
		}
		of, ok := l.pack.Statement(s.Explains)
		if !ok || of.Role != MemberStatement {
			return fault(place, "explains %q: want a %s of this pack", s.Explains, MemberStatement)
		}
		if last := fmt.Sprintf("$%d", len(of.Key)+1); !strings.Contains(s.SQL, last) {
			return fault(s.File, "parameter %s is not used: the parameters are the trade date and %v", last, of.Key)
		}
	}
	return nil
}

func (l *loader) close(d closeDocument) error {
	const place = manifestName + " close"
	c := Close{Roster: d.Roster, Markers: record.StreamName(d.Markers), Corrections: record.StreamName(d.Corrections)}
	roster, ok := l.pack.Reference(c.Roster)
	if !ok {
		return fault(place, "roster %q: want a reference table", c.Roster)
	}
	for _, name := range []record.StreamName{c.Markers, c.Corrections} {
		if _, ok := l.pack.Stream(name); !ok {
			return fault(place, "%q is not a stream of this pack", name)
		}
	}
	for _, f := range d.Facts {
		s, ok := l.pack.Stream(record.StreamName(f.Stream))
		if !ok || s.Sequence.IsZero() {
			return fault(place, "fact %q: want a stream of this pack whose records are numbered", f.Stream)
		}
		if n := s.Schema.Index(f.Quantity); f.Quantity != "" && (n < 0 || s.Schema.Fields[n].Type.Kind != record.Long) {
			return fault(place, "fact %s: quantity %q: want a long column", f.Stream, f.Quantity)
		}
		if n := s.Schema.Index(f.Price); f.Price != "" && (n < 0 || s.Schema.Fields[n].Type.Kind != record.Decimal) {
			return fault(place, "fact %s: price %q: want a decimal column", f.Stream, f.Price)
		}
		c.Facts = append(c.Facts, Fact{Stream: s.Name, Quantity: f.Quantity, Price: f.Price})
	}
	stream := roster.Column("stream")
	for _, name := range []string{"source", "session_pattern", "stream", "effective_from", "effective_to"} {
		if roster.Column(name) < 0 {
			return fault(place, "roster %s lacks the column %s", c.Roster, name)
		}
	}
	for _, row := range roster.Rows {
		if !slices.ContainsFunc(c.Facts, func(f Fact) bool { return string(f.Stream) == row[stream] }) {
			return fault(roster.File, "stream %q is not among the facts of the close", row[stream])
		}
	}
	l.pack.Close = c
	return nil
}

// hash covers the name, length and bytes of every file, in the order of names.
func (l *loader) hash() (string, error) {
	h := sha256.New()
	n := 0
	err := fs.WalkDir(l.fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if n++; n > filesMax {
			return fault(name, "a pack has at most %d files", filesMax)
		}
		text, err := l.read(name)
		if err != nil {
			return err
		}
		head := binary.BigEndian.AppendUint64(append([]byte(name), 0), uint64(len(text)))
		_, _ = h.Write(head)
		_, _ = h.Write(text)
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return hex.EncodeToString(h.Sum(nil)[:16]), nil
}
