package crawler

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/zeebo/xxh3"

	"github.com/tapehouse/tapehouse/internal/fsys"
)

// What is learnt of the files of a target lies in files beside the catalog, in the
// order in which sources list names, so that a crawl reads it along with the listing
// and writes the next one, whatever the number of files:
//
//	NAME.SEQUENCE.seen = magic "TPHSEEN1"  stamp:u64  { length:u32 crc32c:u32 block }*
//	block              = { 'F' length:uvarint JSON         the next finding's
//	                     | 'R'                             findings count from 0 again
//	                     | 'O' shared:uvarint length:uvarint suffix of the name
//	                           size:uvarint modified:varint etag:u64 finding:uvarint rows:uvarint }*
//
// Integers of fixed size are little-endian; a name shares its first bytes with the one
// before it in its block. The stamp stands for everything that findings depend on
// beside the file: another one makes the file worthless. It is a cache: not synced,
// and the first block that is not whole ends it; what is missing is read again. A crawl
// that ends early leaves its file beside the older ones, which are read together.
const (
	memoryMagic      = "TPHSEEN1"
	memorySuffix     = ".seen"
	memoryBlock      = 64 << 10
	memoryBlockMax   = 8 << 20
	memoryFlushEvery = time.Second
	memoryFilesMax   = 8
	memoryFindings   = 4_096
	// inferenceVersion changes with what files are recognised as.
	inferenceVersion = 1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// memory is what was learnt of one target's files.
type memory struct {
	fs     fsys.FS
	dir    string
	name   string
	stamp  uint64
	logger *slog.Logger

	streams []*memoryStream // the newest first
	next    uint64          // sequence of the file to be written
	out     *memoryWriter
	broken  bool // nothing more is written

	onlyRead bool
	kept     int
	reused   int
}

// openMemory opens what earlier crawls of the target left. A directory of "" keeps
// nothing; only reading changes nothing.
func openMemory(fs fsys.FS, dir, name string, stamp uint64, in *interner, logger *slog.Logger, onlyRead bool) (*memory, error) {
	m := &memory{fs: fs, dir: dir, name: name, stamp: stamp, logger: logger, broken: onlyRead, onlyRead: onlyRead}
	if dir == "" {
		m.broken = true
		return m, nil
	}
	if err := fs.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the crawler's directory %s: %w", dir, err)
	}
	sequences, err := m.sequences()
	if err != nil {
		return nil, err
	}
	for i, n := range sequences {
		m.next = max(m.next, n+1)
		if i >= memoryFilesMax {
			if !onlyRead {
				_ = fs.Remove(m.path(n)) // a cache
			}
			continue
		}
		if s := openStream(fs, m.path(n), stamp, in); s != nil {
			m.streams = append(m.streams, s)
		}
	}
	return m, nil
}

func (m *memory) path(sequence uint64) string {
	return filepath.Join(m.dir, m.name+"."+strconv.FormatUint(sequence, 10)+memorySuffix)
}

// sequences lists the target's files, the newest first.
func (m *memory) sequences() ([]uint64, error) {
	entries, err := m.fs.ReadDir(m.dir)
	if err != nil {
		return nil, fmt.Errorf("list the crawler's directory %s: %w", m.dir, err)
	}
	var out []uint64
	for _, e := range entries {
		rest, ok := strings.CutPrefix(e.Name(), m.name+".")
		if !ok {
			continue
		}
		if rest, ok = strings.CutSuffix(rest, memorySuffix); !ok {
			continue
		}
		if n, err := strconv.ParseUint(rest, 10, 63); err == nil {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	slices.Reverse(out)
	return out, nil
}

// lookup returns what was learnt of the object as it is now. Names come in their
// order.
func (m *memory) lookup(o Object) (learnt, bool) {
	for _, s := range m.streams {
		if e := s.seek(o.Name); e != nil && e.size == o.SizeBytes && e.modified == o.ModifiedAt.UnixNano() && e.etag == etagHash(o.ETag) {
			return e.learnt, true
		}
	}
	return learnt{}, false
}

func etagHash(etag string) uint64 {
	if etag == "" {
		return 0
	}
	return xxh3.HashString(etag)
}

// keep remembers the object. Names come in their order. An error only ends the
// keeping: the next crawl reads more.
func (m *memory) keep(o Object, l learnt, reused bool) {
	if l.again {
		return
	}
	m.kept++
	if reused {
		m.reused++
	}
	if m.broken {
		return
	}
	if m.out == nil {
		f, err := m.fs.OpenFile(m.path(m.next), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
		if err != nil {
			m.fail(err)
			return
		}
		m.out = newMemoryWriter(f, m.stamp)
	}
	if err := m.out.add(o, l); err != nil {
		m.fail(err)
	}
}

func (m *memory) fail(err error) {
	m.broken = true
	m.logger.Warn("crawler's memory is not written; the next crawl reads all files again", "dir", m.dir, "err", err)
}

// close ends the crawl. done means that it saw every name: what older files have more
// is gone.
func (m *memory) close(done bool) {
	old, same := len(m.streams), false
	if done {
		same = old == 1 && m.reused == m.kept && m.streams[0].finish() == m.kept
	}
	for _, s := range m.streams {
		_ = s.f.Close() // only read
	}
	if m.out == nil {
		if done && m.dir != "" && m.kept == 0 && !m.onlyRead {
			m.removeBelow(m.next)
		}
		return
	}
	err := m.out.close()
	switch {
	case same:
		_ = m.fs.Remove(m.path(m.next)) // it is the old one again
	case err != nil:
		m.fail(err)
	case done && !m.broken:
		m.removeBelow(m.next)
	}
}

func (m *memory) removeBelow(next uint64) {
	sequences, err := m.sequences()
	if err != nil {
		m.fail(err)
		return
	}
	for _, n := range sequences {
		if n < next {
			_ = m.fs.Remove(m.path(n)) // a cache
		}
	}
}

// forget removes what was learnt of the targets whose names begin with prefix.
func forget(fs fsys.FS, dir, prefix string) error {
	if dir == "" {
		return nil
	}
	entries, err := fs.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) && strings.HasSuffix(e.Name(), memorySuffix) {
			err = errors.Join(err, fs.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return err
}

// memoryWriter writes one file.
type memoryWriter struct {
	f        fsys.File
	head     []byte
	block    []byte
	last     string
	ids      map[*finding]uint64
	flushed  time.Time
	appended int
}

func newMemoryWriter(f fsys.File, stamp uint64) *memoryWriter {
	head := binary.LittleEndian.AppendUint64([]byte(memoryMagic), stamp)
	return &memoryWriter{f: f, head: head, ids: map[*finding]uint64{}, flushed: time.Now()}
}

func (w *memoryWriter) add(o Object, l learnt) error {
	id, ok := w.ids[l.finding]
	if !ok {
		if len(w.ids) >= memoryFindings {
			clear(w.ids)
			w.block = append(w.block, 'R')
		}
		text, err := json.Marshal(l.finding)
		if err != nil {
			return err
		}
		id = uint64(len(w.ids))
		w.ids[l.finding] = id
		w.block = append(w.block, 'F')
		w.block = binary.AppendUvarint(w.block, uint64(len(text)))
		w.block = append(w.block, text...)
	}
	shared := 0
	for shared < min(len(w.last), len(o.Name)) && w.last[shared] == o.Name[shared] {
		shared++
	}
	w.block = append(w.block, 'O')
	w.block = binary.AppendUvarint(w.block, uint64(shared))
	w.block = binary.AppendUvarint(w.block, uint64(len(o.Name)-shared))
	w.block = append(w.block, o.Name[shared:]...)
	w.block = binary.AppendUvarint(w.block, uint64(o.SizeBytes))
	w.block = binary.AppendVarint(w.block, o.ModifiedAt.UnixNano())
	w.block = binary.LittleEndian.AppendUint64(w.block, etagHash(o.ETag))
	w.block = binary.AppendUvarint(w.block, id)
	w.block = binary.AppendUvarint(w.block, uint64(l.rows))
	w.last = o.Name
	if w.appended++; len(w.block) >= memoryBlock || w.appended%64 == 0 && time.Since(w.flushed) > memoryFlushEvery {
		return w.flush()
	}
	return nil
}

func (w *memoryWriter) flush() error {
	b := w.head
	w.head = nil
	if len(w.block) > 0 {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(w.block)))
		b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(w.block, castagnoli))
		b = append(b, w.block...)
	}
	w.block, w.last, w.flushed = w.block[:0], "", time.Now()
	if len(b) == 0 {
		return nil
	}
	_, err := w.f.Write(b)
	return err
}

func (w *memoryWriter) close() error { return errors.Join(w.flush(), w.f.Close()) }

// memoryStream reads one file.
type memoryStream struct {
	f        fsys.File
	in       *bufio.Reader
	intern   *interner
	block    []byte
	findings []*finding
	cur      memoryEntry
	valid    bool // cur is an entry
	entries  int
}

type memoryEntry struct {
	name     string
	size     int64
	modified int64 // ns since 1970
	etag     uint64
	learnt   learnt
}

// openStream returns nil for a file that cannot be used.
func openStream(fs fsys.FS, path string, stamp uint64, in *interner) *memoryStream {
	f, err := fs.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return nil
	}
	s := &memoryStream{f: f, in: bufio.NewReaderSize(f, memoryBlock), intern: in}
	head := make([]byte, 16)
	if _, err := io.ReadFull(s.in, head); err != nil || string(head[:8]) != memoryMagic || binary.LittleEndian.Uint64(head[8:]) != stamp {
		_ = f.Close() // only read
		return nil
	}
	s.advance()
	return s
}

// seek returns the entry of that name, or nil. Names come in their order.
func (s *memoryStream) seek(name string) *memoryEntry {
	for s.valid && s.cur.name < name {
		s.advance()
	}
	if s.valid && s.cur.name == name {
		return &s.cur
	}
	return nil
}

// finish reads what is left and returns the number of entries.
func (s *memoryStream) finish() int {
	for s.valid {
		s.advance()
	}
	return s.entries
}

func (s *memoryStream) advance() {
	name := s.cur.name
	for {
		if len(s.block) == 0 {
			name = ""
			if !s.readBlock() {
				s.valid = false
				return
			}
		}
		d := memoryDecoder{b: s.block[1:]}
		switch s.block[0] {
		case 'R':
			s.findings = s.findings[:0]
			s.block = d.b
			continue
		case 'F':
			text := d.take(d.uvarint())
			var f finding
			if d.bad || json.Unmarshal(text, &f) != nil || !f.wellFormed() {
				s.valid, s.block = false, nil
				s.in.Reset(strings.NewReader(""))
				return
			}
			s.findings = append(s.findings, s.intern.internText(string(text), &f))
			s.block = d.b
			continue
		case 'O':
			if s.decode(&d, name) {
				s.block = d.b
				s.valid = true
				s.entries++
				return
			}
		}
		s.valid, s.block = false, nil
		s.in.Reset(strings.NewReader(""))
		return
	}
}

func (s *memoryStream) decode(d *memoryDecoder, last string) bool {
	shared := d.uvarint()
	if shared > uint64(len(last)) {
		return false
	}
	e := memoryEntry{name: last[:shared] + string(d.take(d.uvarint()))}
	e.size = int64(d.uvarint())
	e.modified = d.varint()
	if b := d.take(8); len(b) == 8 {
		e.etag = binary.LittleEndian.Uint64(b)
	}
	id := d.uvarint()
	rows := int64(d.uvarint())
	if d.bad || id >= uint64(len(s.findings)) || e.name <= last && last != "" || !utf8.ValidString(e.name) || rows < 0 || e.size < 0 {
		return false
	}
	e.learnt = learnt{finding: s.findings[id], rows: rows}
	s.cur = e
	return true
}

func (s *memoryStream) readBlock() bool {
	var head [8]byte
	if _, err := io.ReadFull(s.in, head[:]); err != nil {
		return false
	}
	n := binary.LittleEndian.Uint32(head[:])
	if n == 0 || n > memoryBlockMax {
		return false
	}
	s.block = slices.Grow(s.block[:0], int(n))[:n]
	if _, err := io.ReadFull(s.in, s.block); err != nil {
		s.block = nil
		return false
	}
	if crc32.Checksum(s.block, castagnoli) != binary.LittleEndian.Uint32(head[4:]) {
		s.block = nil
		return false
	}
	return true
}

// wellFormed reports whether the finding is one that we write.
func (f *finding) wellFormed() bool {
	if f.Outcome > outcomePending {
		return false
	}
	if f.Outcome != outcomeTable {
		return true
	}
	for _, c := range f.Columns {
		if c.State == nil {
			return false
		}
	}
	switch f.Format {
	case formatParquet, formatJSON:
		return len(f.Columns) > 0
	case formatCSV:
		return f.CSV != nil && len(f.CSV.Delimiter) == 1 && len(f.Columns) > 0
	}
	return false
}

type memoryDecoder struct {
	b   []byte
	bad bool
}

func (d *memoryDecoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.bad = true
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *memoryDecoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.bad = true
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *memoryDecoder) take(n uint64) []byte {
	if n > uint64(len(d.b)) {
		d.bad = true
		return nil
	}
	b := d.b[:n]
	d.b = d.b[n:]
	return b
}
