package pgwire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeBackend is a tiny table engine: enough SQL to drive every path of the
// protocol, with transactions that really roll back.
type fakeBackend struct {
	mu       sync.Mutex
	tables   map[string]*fakeTable
	sessions int // open
	options  []SessionOptions
	released int // statements closed
}

type fakeTable struct {
	columns []Column
	rows    [][]any
}

func newFakeBackend() *fakeBackend { return &fakeBackend{tables: map[string]*fakeTable{}} }

func (b *fakeBackend) NewSession(_ context.Context, o SessionOptions) (Session, error) {
	if o.Database == "nowhere" {
		return nil, errorf("3D000", "database %q does not exist", o.Database)
	}
	if o.Database == "explode" {
		panic("no such luck")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sessions++
	b.options = append(b.options, o)
	s := &fakeSession{b: b, o: o, parameters: map[string]string{
		"server_version": "15.0", "client_encoding": "UTF8", "server_encoding": "UTF8", "DateStyle": "ISO, MDY", "TimeZone": "UTC",
		"IntervalStyle": "postgres", "integer_datetimes": "on", "standard_conforming_strings": "on", "extra": "unreported",
	}}
	for k, v := range o.Parameters {
		s.set(k, v)
	}
	return s, nil
}

func (b *fakeBackend) open() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.sessions
}

type fakeSession struct {
	b          *fakeBackend
	o          SessionOptions
	parameters map[string]string
	notices    []Notice
	saved      map[string]*fakeTable // state to roll back to; nil: no transaction
	explicit   bool
	failed     bool
	closed     bool
}

func (s *fakeSession) set(name, value string) {
	for k := range s.parameters {
		if strings.EqualFold(k, name) {
			name = k
		}
	}
	s.parameters[name] = value
}

func (s *fakeSession) Status() byte {
	switch {
	case s.failed:
		return 'E'
	case s.explicit:
		return 'T'
	}
	return 'I'
}

func (s *fakeSession) Parameters() map[string]string { return s.parameters }

func (s *fakeSession) TakeNotices() []Notice {
	n := s.notices
	s.notices = nil
	return n
}

func (s *fakeSession) Close() error {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	if s.closed {
		return errors.New("closed twice")
	}
	s.closed = true
	s.b.sessions--
	if s.saved != nil {
		s.b.tables = s.saved
	}
	return nil
}

func (s *fakeSession) save() {
	if s.saved != nil {
		return
	}
	s.saved = map[string]*fakeTable{}
	for name, t := range s.b.tables {
		s.saved[name] = &fakeTable{t.columns, slices.Clone(t.rows)}
	}
}

func (s *fakeSession) SyncPoint(ctx context.Context, ok bool) error {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	if s.explicit {
		s.failed = s.failed || !ok
		return nil
	}
	if ok && ctx.Err() != nil {
		return ctx.Err()
	}
	if _, poisoned := s.b.tables["poison"]; poisoned && ok && s.saved != nil {
		return errorf("40001", "could not serialize access due to concurrent update")
	}
	if !ok && s.saved != nil {
		s.b.tables = s.saved
	}
	s.saved = nil
	return nil
}

func (s *fakeSession) Split(sql string) ([]string, error) {
	var parts []string
	start, quoted := 0, false
	for i := range len(sql) {
		switch {
		case sql[i] == '\'':
			quoted = !quoted
		case sql[i] == ';' && !quoted:
			parts = append(parts, sql[start:i])
			start = i + 1
		}
	}
	if quoted {
		return nil, errorf("42601", "unterminated quoted string")
	}
	parts = append(parts, sql[start:])
	return slices.DeleteFunc(parts, func(p string) bool { return strings.TrimSpace(p) == "" }), nil
}

var fakeTypes = map[string]uint32{
	"bool": OIDBool, "int2": OIDInt2, "int4": OIDInt4, "integer": OIDInt4, "int8": OIDInt8, "bigint": OIDInt8, "float4": OIDFloat4,
	"float8": OIDFloat8, "numeric": OIDNumeric, "text": OIDText, "varchar": OIDVarchar, "bytea": OIDBytea, "date": OIDDate,
	"time": OIDTime, "timestamp": OIDTimestamp, "timestamptz": OIDTimestampTZ, "interval": OIDInterval, "uuid": OIDUUID,
	"json": OIDJSON, "jsonb": OIDJSONB, "oid": OIDOid, "name": OIDName, "bpchar": OIDBpchar, "int4[]": 1007, "text[]": 1009,
	"numeric[]": 1231, "timestamptz[]": 1185, "int8[]": 1016, "int2vector": OIDInt2Vector,
}

// fakeStatement is a Handle.
type fakeStatement struct {
	s     *fakeSession
	words []string
	sql   string
	table string
	pick  []int
	lits  []string
}

// word is the i-th word of the statement, or "".
func (f *fakeStatement) word(i int) string {
	if i < len(f.words) {
		return strings.Trim(f.words[i], `"`)
	}
	return ""
}

func (f *fakeStatement) Close() error {
	f.s.b.mu.Lock()
	defer f.s.b.mu.Unlock()
	f.s.b.released++
	return nil
}

func splitList(s string) []string {
	var out []string
	for part := range strings.SplitSeq(s, ",") {
		out = append(out, strings.TrimSpace(part))
	}
	return out
}

func (s *fakeSession) column(name, typ string) (Column, error) {
	oid, ok := fakeTypes[strings.ToLower(typ)]
	if !ok {
		return Column{}, errorf("42704", "type %q does not exist", typ)
	}
	return Column{Name: name, OID: oid}, nil
}

// columnsOf returns the columns of a table that list names, "" or * for all.
func (s *fakeSession) columnsOf(table, list string) ([]Column, []int, error) {
	s.b.mu.Lock()
	t := s.b.tables[table]
	s.b.mu.Unlock()
	if t == nil {
		return nil, nil, &Error{Code: "42P01", Message: fmt.Sprintf("relation %q does not exist", table), Position: 7}
	}
	var columns []Column
	var pick []int
	if list = strings.TrimSpace(list); list == "" || list == "*" {
		for i, c := range t.columns {
			columns, pick = append(columns, c), append(pick, i)
		}
		return columns, pick, nil
	}
	for _, name := range splitList(list) {
		i := slices.IndexFunc(t.columns, func(c Column) bool { return c.Name == strings.Trim(name, `"`) })
		if i < 0 {
			return nil, nil, errorf("42703", "column %q does not exist", name)
		}
		columns, pick = append(columns, t.columns[i]), append(pick, i)
	}
	return columns, pick, nil
}

func between(s, open, shut string) (in, rest string, ok bool) {
	_, s, ok = strings.Cut(s, open)
	if !ok {
		return "", s, false
	}
	return strings.Cut(s, shut)
}

func (s *fakeSession) Prepare(ctx context.Context, sql string, paramOIDs []uint32) (*Statement, error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	f := &fakeStatement{s: s, sql: strings.TrimSpace(sql), words: strings.Fields(strings.ToLower(sql))}
	st := &Statement{Handle: f}
	if len(f.words) == 0 {
		st.Empty = true
		return st, nil
	}
	word := f.word
	if s.failed && word(0) != "rollback" && word(0) != "commit" {
		return nil, errorf("25P02", "current transaction is aborted, commands ignored until end of transaction block")
	}
	var err error
	switch word(0) {
	case "select":
		rest := strings.TrimSpace(f.sql[len("select"):])
		if list, table, ok := strings.Cut(rest, " from "); ok {
			f.table = strings.Trim(strings.TrimSpace(table), `"`)
			st.Columns, f.pick, err = s.columnsOf(f.table, list)
			return st, err
		}
		for i, item := range splitList(rest) {
			expr, typ, cast := strings.Cut(item, "::")
			if !cast {
				typ = "int4"
				if strings.HasPrefix(expr, "'") {
					typ = "text"
				}
			}
			c, err := s.column("c"+strconv.Itoa(i+1), typ)
			if err != nil {
				return nil, err
			}
			st.Columns, f.lits = append(st.Columns, c), append(f.lits, expr)
			if strings.HasPrefix(expr, "$") {
				st.ParamOIDs = append(st.ParamOIDs, c.OID)
			}
		}
	case "series", "failrow":
		st.Columns = []Column{{Name: "n", OID: OIDInt4}, {Name: "t", OID: OIDText}, {Name: "d", OID: OIDNumeric, Modifier: (18<<16 | 4) + 4}}
	case "show", "show_all":
		st.Columns = []Column{{Name: word(1), OID: OIDText}}
	case "insert":
		f.table = word(2)
		columns, _, err := s.columnsOf(f.table, "")
		if err != nil {
			return nil, err
		}
		in, _, _ := between(f.sql, "(", ")")
		f.lits = splitList(in)
		if len(f.lits) > len(columns) {
			return nil, errorf("42601", "INSERT has more expressions than target columns")
		}
		for i, lit := range f.lits {
			if strings.HasPrefix(lit, "$") {
				st.ParamOIDs = append(st.ParamOIDs, columns[i].OID)
			}
		}
	case "copy":
		err = s.prepareCopy(f, st)
	case "begin", "commit", "rollback", "set", "create", "drop", "sleep", "panic", "notice", "fail", "deallocate", "discard", "internal":
	default:
		return nil, &Error{Code: "42601", Message: fmt.Sprintf("syntax error at or near %q", word(0)), Hint: "Try harder.",
			Position: strings.Index(sql, f.sql[:1]) + 1}
	}
	for i, oid := range paramOIDs {
		if oid != 0 && i < len(st.ParamOIDs) {
			st.ParamOIDs[i] = oid
		}
	}
	return st, err
}

func (s *fakeSession) prepareCopy(f *fakeStatement, st *Statement) error {
	rest := strings.TrimSpace(f.sql[len("copy"):])
	cp := &Copy{}
	for _, keyword := range []string{" FROM STDIN", " TO STDOUT"} { // psql's spelling
		rest = strings.Replace(rest, keyword, strings.ToLower(keyword), 1)
	}
	head, tail, ok := strings.Cut(rest, " from stdin")
	if ok {
		cp.In = true
	} else if head, tail, ok = strings.Cut(rest, " to stdout"); !ok {
		return errorf("42601", "COPY what?")
	}
	tail = strings.ToLower(tail)
	switch {
	case strings.Contains(tail, "csv"):
		cp.Format = CopyCSV
	case strings.Contains(tail, "binary"):
		cp.Format = CopyBinary
	}
	cp.Header = strings.Contains(tail, "header")
	cp.MatchHeader = strings.Contains(tail, "match")
	name, list, _ := strings.Cut(head, "(")
	f.table = strings.ToLower(strings.Trim(strings.TrimSpace(name), `"`))
	if f.table == "" { // COPY (series n) TO
		f.words = strings.Fields(strings.TrimSuffix(list, ")"))
		cp.Columns = []Column{{Name: "n", OID: OIDInt4}, {Name: "t", OID: OIDText}, {Name: "d", OID: OIDNumeric}}
	} else {
		var err error
		if cp.Columns, f.pick, err = s.columnsOf(f.table, strings.TrimSuffix(strings.TrimSpace(list), ")")); err != nil {
			return err
		}
	}
	st.Copy, st.Columns = cp, cp.Columns
	return nil
}

// fakeResult yields rows from a function.
type fakeResult struct {
	columns []Column
	next    func(dst []any) error
	tag     func() string
	closed  bool
}

func (r *fakeResult) Columns() []Column { return r.columns }
func (r *fakeResult) Tag() string       { return r.tag() }
func (r *fakeResult) Next(dst []any) error {
	if r.closed {
		return errors.New("result is closed")
	}
	if r.next == nil {
		return io.EOF
	}
	return r.next(dst)
}
func (r *fakeResult) Close() error { r.closed = true; return nil }

func done(tag string) (Result, error) {
	return &fakeResult{tag: func() string { return tag }}, nil
}

func rows(columns []Column, all [][]any) (Result, error) {
	i := 0
	return &fakeResult{columns: columns, tag: func() string { return fmt.Sprintf("SELECT %d", i) }, next: func(dst []any) error {
		if i == len(all) {
			return io.EOF
		}
		copy(dst, all[i])
		i++
		return nil
	}}, nil
}

func (s *fakeSession) Execute(ctx context.Context, st *Statement, args []any) (Result, error) {
	f := st.Handle.(*fakeStatement)
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	if s.failed && f.word(0) != "rollback" && f.word(0) != "commit" {
		return nil, errorf("25P02", "current transaction is aborted, commands ignored until end of transaction block")
	}
	switch f.word(0) {
	case "begin":
		s.save()
		s.explicit = true
		return done("BEGIN")
	case "commit", "rollback":
		tag := "COMMIT"
		if (s.failed || f.word(0) == "rollback") && s.saved != nil {
			s.b.tables, tag = s.saved, "ROLLBACK"
		}
		s.saved, s.explicit, s.failed = nil, false, false
		return done(tag)
	}
	s.save()
	switch f.word(0) {
	case "set": // set name to value
		s.set(f.word(1), strings.Trim(f.sql[strings.LastIndex(f.sql, " ")+1:], "' "))
		return done("SET")
	case "show":
		return rows(st.Columns, [][]any{{s.parameters[f.word(1)]}})
	case "create":
		in, _, _ := between(f.sql, "(", ")")
		t := &fakeTable{}
		for _, def := range splitList(in) {
			name, typ, _ := strings.Cut(def, " ")
			c, err := s.column(name, typ)
			if err != nil {
				return nil, err
			}
			t.columns = append(t.columns, c)
		}
		s.b.tables[f.word(2)] = t
		return done("CREATE TABLE")
	case "drop":
		delete(s.b.tables, f.word(2))
		return done("DROP TABLE")
	case "insert":
		t := s.b.tables[f.table]
		if t == nil || len(f.lits) > len(t.columns) {
			return nil, errorf("42601", "INSERT has more expressions than target columns")
		}
		row := make([]any, len(t.columns))
		for i, lit := range f.lits {
			v, err := s.literal(lit, t.columns[i].OID, args)
			if err != nil {
				return nil, err
			}
			row[i] = v
		}
		t.rows = append(t.rows, row)
		return done("INSERT 0 1")
	case "select", "copy":
		if f.table == "" {
			row := make([]any, len(st.Columns))
			for i, lit := range f.lits {
				v, err := s.literal(lit, st.Columns[i].OID, args)
				if err != nil {
					return nil, err
				}
				row[i] = v
			}
			return rows(st.Columns, [][]any{row})
		}
		var out [][]any
		t := s.b.tables[f.table]
		if t == nil {
			return nil, errorf("42P01", "relation %q does not exist", f.table)
		}
		for _, r := range t.rows {
			if len(r) <= slices.Max(append(f.pick, 0)) {
				return nil, errorf("XX001", "the table has changed")
			}
			row := make([]any, len(f.pick))
			for i, at := range f.pick {
				row[i] = r[at]
			}
			out = append(out, row)
		}
		columns := st.Columns
		return rows(columns, out)
	case "series", "failrow":
		n, err := strconv.Atoi(f.word(1))
		if err != nil {
			return nil, errorf("22P02", "how many?")
		}
		i := 0
		return &fakeResult{columns: st.Columns, tag: func() string { return fmt.Sprintf("SELECT %d", i) }, next: func(dst []any) error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if i == n {
				if f.word(0) == "failrow" {
					return errorf("22012", "division by zero")
				}
				return io.EOF
			}
			i++
			dst[0], dst[1], dst[2] = int32(i), "row "+strconv.Itoa(i), number(big.NewInt(int64(i)*10001), 4)
			return nil
		}}, nil
	case "sleep":
		s.b.mu.Unlock()
		<-ctx.Done()
		s.b.mu.Lock()
		return nil, fmt.Errorf("engine: interrupted: %w", ctx.Err())
	case "panic":
		if s.o.ProcessID == 0 { // under the fuzzer, which must find others' panics
			return nil, errorf("0A000", "not here")
		}
		panic("the session is broken")
	case "internal":
		return nil, errors.New("open /var/lib/secret: permission denied")
	case "notice":
		s.notices = append(s.notices, Notice{Message: strings.Join(f.words[1:], " ")}, Notice{Severity: "WARNING", Message: "twice"})
		return done("NOTICE")
	case "fail":
		return nil, errorf(strings.ToUpper(f.word(1)), "as asked")
	case "discard":
		s.o.Deallocate("")
		return done("DISCARD ALL")
	case "deallocate":
		if f.word(1) == "all" {
			s.o.Deallocate("")
		} else if !s.o.Deallocate(f.word(1)) {
			return nil, errorf("26000", "prepared statement %q does not exist", f.word(1))
		}
		return done("DEALLOCATE")
	}
	return nil, errorf("0A000", "not here")
}

func (s *fakeSession) literal(lit string, oid uint32, args []any) (any, error) {
	if n, ok := strings.CutPrefix(lit, "$"); ok {
		i, err := strconv.Atoi(n)
		if err != nil || i < 1 || i > len(args) {
			return nil, errorf("42P02", "there is no parameter $%s", n)
		}
		return args[i-1], nil
	}
	if strings.EqualFold(lit, "null") {
		return nil, nil
	}
	return NewStyle(s.parameters).decodeText(oid, strings.Trim(lit, "'"))
}

func (s *fakeSession) CopyIn(ctx context.Context, st *Statement, in RowReader) (string, error) {
	f := st.Handle.(*fakeStatement)
	s.b.mu.Lock()
	s.save()
	t := s.b.tables[f.table]
	s.b.mu.Unlock()
	if t == nil || len(t.columns) <= slices.Max(append(f.pick, 0)) {
		return "", errorf("42P01", "relation %q does not exist", f.table)
	}
	width := len(t.columns)
	n := 0
	picked := make([]any, len(f.pick))
	for {
		err := in.Next(picked)
		if errors.Is(err, io.EOF) {
			return fmt.Sprintf("COPY %d", n), nil
		}
		if err != nil {
			return "", fmt.Errorf("copy in: %w", err)
		}
		row := make([]any, width)
		for i, at := range f.pick {
			row[at] = picked[i]
		}
		if slices.Contains(row, any("poison")) {
			return "", errorf("23514", "new row violates check constraint")
		}
		s.b.mu.Lock()
		t.rows = append(t.rows, row)
		s.b.mu.Unlock()
		n++
	}
}

// waitUntil polls; the conditions it is used for come within milliseconds.
func waitUntil(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("did not happen within 5 s: %s", what)
		}
	}
}
