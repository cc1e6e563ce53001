package record

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Kind is a column's logical type; the words are Iceberg's.
type Kind uint8

// The kinds that a stream's table may have.
const (
	Boolean     Kind = iota + 1
	Int              // 32-bit
	Long             // 64-bit
	Decimal          // exact, precision ≤ 18: an unscaled int64
	Double           // never for money
	String           // UTF-8
	Date             // days since 1970-01-01
	TimestampTZ      // microseconds since the epoch, UTC
)

// Type is a column type. Precision and Scale are set for Decimal only.
type Type struct {
	Kind      Kind
	Precision int
	Scale     int
}

var kindNames = map[Kind]string{Boolean: "boolean", Int: "int", Long: "long", Double: "double", String: "string", Date: "date", TimestampTZ: "timestamptz"}

// String is Iceberg's spelling of the type.
func (t Type) String() string {
	if t.Kind == Decimal {
		return "decimal(" + strconv.Itoa(t.Precision) + ", " + strconv.Itoa(t.Scale) + ")"
	}
	if s, ok := kindNames[t.Kind]; ok {
		return s
	}
	return fmt.Sprintf("kind(%d)", t.Kind)
}

var decimalRE = regexp.MustCompile(`^decimal\(\s*(\d+)\s*,\s*(\d+)\s*\)$`)

// ParseType reads Iceberg's spelling.
func ParseType(s string) (Type, error) {
	s = strings.ToLower(strings.TrimSpace(s))
	if m := decimalRE.FindStringSubmatch(s); m != nil {
		p, _ := strconv.Atoi(m[1])
		sc, _ := strconv.Atoi(m[2])
		if p < 1 || p > 18 || sc > p {
			return Type{}, fmt.Errorf("%w type %q: a stream's decimal has precision 1 to 18 and a scale within it", ErrInvalid, s)
		}
		return Type{Decimal, p, sc}, nil
	}
	for k, n := range kindNames {
		if n == s {
			return Type{Kind: k}, nil
		}
	}
	return Type{}, fmt.Errorf("%w type %q: want boolean, int, long, decimal(p,s), double, string, date or timestamptz", ErrInvalid, s)
}

// Derivation says how a column that the producer does not send gets its value.
type Derivation string

// The derivations. From names the column whose JSON value they read.
const (
	FromJSON     Derivation = ""              // the JSON member of the column's name
	TradeDate    Derivation = "trade-date"    // Date: the session calendar's trade date of From
	EpochNanos   Derivation = "epoch-ns"      // Long: From's time as nanoseconds since the epoch
	RecordStream Derivation = "record-stream" // String: the record's Key
	RecordOffset Derivation = "record-offset" // Long: the record's offset
	ArrivedAt    Derivation = "arrived-at"    // TimestampTZ: when the put arrived
)

// Field is one column.
type Field struct {
	ID       int // Iceberg field id, stable across renames
	Name     string
	Type     Type
	Required bool
	Derive   Derivation
	From     string // the source column of TradeDate and EpochNanos
}

// Schema is a table's columns, in order. ID is Iceberg's schema id.
type Schema struct {
	ID     int
	Fields []Field
}

// Index returns the position of the named column, or -1.
func (s Schema) Index(name string) int {
	for i := range s.Fields {
		if s.Fields[i].Name == name {
			return i
		}
	}
	return -1
}

// SequenceColumns names the columns that identify a record at its source:
// (source, session, epoch, sequence). Source and Session are String columns,
// Epoch and Sequence Long. The zero value means that the stream's producers do
// not number their records.
type SequenceColumns struct {
	Source, Session, Epoch, Sequence string
}

// IsZero reports whether no sequence is declared.
func (c SequenceColumns) IsZero() bool { return c == SequenceColumns{} }
