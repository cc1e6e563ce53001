package columnar

import "strconv"

// The codes of rejects. They are part of the dead letters' format.
const (
	MalformedJSON   = "MalformedJSON"   // not one JSON object, by RFC 8259 as encoding/json reads it
	NotAnObject     = "NotAnObject"     // valid JSON so far, but no object
	InvalidUTF8     = "InvalidUTF8"     // bytes that are no UTF-8, or an escaped half of a surrogate pair
	TooDeep         = "TooDeep"         // nested deeper than MaxDepth
	DuplicateMember = "DuplicateMember" // a column's member stands twice
	MissingMember   = "MissingMember"   // a required column's member is absent or null
	WrongType       = "WrongType"       // a member of another JSON type than its column takes
	OutOfRange      = "OutOfRange"      // a number or an instant that the column's type cannot hold
	Inexact         = "Inexact"         // digits beyond the column's scale
	BadTimestamp    = "BadTimestamp"    // no RFC 3339 date-time with at most 9 fraction digits
	BadDate         = "BadDate"         // no YYYY-MM-DD
	OutsideSession  = "OutsideSession"  // a time outside every session of the calendar
)

// Reject is a document that became no row, and why.
type Reject struct {
	Doc     int32  // index of the document
	Code    string // one of the codes above
	Message string // one line for people: the member, the byte position in the document
	Raw     []byte // the document; aliases the input
	// The sequence columns, as far as the document shows them even though it is
	// bad; HasSequence is true if all that are declared were found.
	Source, Session string
	Epoch, Sequence int64
	HasSequence     bool
}

// fault is a reject in the making. Code "" means none.
type fault struct {
	code   string
	member string
	pos    int
	text   string
}

// message is built without fmt: a stream may have nothing but rejects.
func (f *fault) message() string {
	var buf [128]byte
	b := buf[:0]
	if f.member == "" {
		b = append(append(b, f.text...), " at byte "...)
		return string(strconv.AppendInt(b, int64(f.pos), 10))
	}
	b = strconv.AppendQuote(append(b, "member "...), f.member)
	if f.pos >= 0 {
		b = strconv.AppendInt(append(b, " at byte "...), int64(f.pos), 10)
	}
	return string(append(append(b, ": "...), f.text...))
}
