package market

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tapehouse/tapehouse/internal/calendar"
	"github.com/tapehouse/tapehouse/internal/catalog"
)

// The kinds of documents that the close keeps.
const (
	KindSeal        = "seal"        // by trade date: the newest version
	KindCertificate = "certificate" // by "<trade date>/v<version>"
	KindWaiver      = "waiver"      // by "<trade date>/<n>"
	KindAdjustment  = "adjustment"  // by "<trade date>/v<version>/<n>"
	KindAudit       = "audit"       // by time
	KindDeadline    = "deadline"    // by trade date: the last state told
)

// certificateFormat is the form of the certificate that this program writes.
const certificateFormat = 1

// TableRole says what a table is to a close.
type TableRole string

// The roles of tables.
const (
	RoleFact      TableRole = "fact"      // proven complete
	RoleStream    TableRole = "stream"    // other streams: the markers
	RoleReference TableRole = "reference" // members, fees, roster…
)

// Certificate is the proof written at the seal. Its canonical bytes are its
// compact JSON with the members in the order of this struct; Hash, the last
// member, is the SHA-256 of those bytes without it.
type Certificate struct {
	Format    int       `json:"format"`
	TradeDate string    `json:"trade_date"`
	Version   int       `json:"version"`
	SealedAt  time.Time `json:"sealed_at"`
	SealedBy  string    `json:"sealed_by"`
	Program   string    `json:"program"`
	Pack      PackName  `json:"pack"`
	Calendar  string    `json:"calendar"` // version
	Tag       string    `json:"tag"`
	Log       string    `json:"log"` // the cut: record.Vector's text
	// Illustrative names the reference tables that the pack calls illustrative.
	Illustrative []string        `json:"illustrative,omitempty"`
	Tables       []TableProof    `json:"tables"`
	Sources      []SourceAccount `json:"sources"`
	Controls     []ControlTotal  `json:"controls"`
	Findings     []Finding       `json:"findings"`
	Waivers      []Waiver        `json:"waivers"`
	Former       *FormerSeal     `json:"former,omitempty"`     // of a re-seal
	Difference   *Difference     `json:"difference,omitempty"` // from Former
	Hash         string          `json:"hash"`
}

// PackName identifies a pack.
type PackName struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Hash    string `json:"hash"`
}

// TableProof pins one table.
type TableProof struct {
	Table    string    `json:"table"` // namespace.table
	Role     TableRole `json:"role"`
	Snapshot int64     `json:"snapshot,string"` // 0: the table was empty
	SchemaID int       `json:"schema_id"`
	// Partition is the trade date that Rows and RowHash cover; "": the whole table.
	Partition string `json:"partition,omitempty"`
	Rows      int64  `json:"rows"`
	RowHash   string `json:"row_hash"` // 32 hexadecimal digits
}

// ControlTotal is one control total of a fact.
type ControlTotal struct {
	Table     string `json:"table"`
	Dimension string `json:"dimension"` // a column, or "" for all rows
	Value     string `json:"value"`     // of the column; "" also for null
	Rows      int64  `json:"rows"`
	Quantity  string `json:"quantity"`
	Notional  string `json:"notional"`
}

// FormerSeal names the version that a re-seal follows.
type FormerSeal struct {
	Version int    `json:"version"`
	Hash    string `json:"hash"`
}

// Difference is what a re-seal changed against the former version.
type Difference struct {
	Tables  []TableDifference  `json:"tables,omitempty"`
	Totals  []TotalDifference  `json:"totals,omitempty"`
	Members []MemberDifference `json:"members,omitempty"`
}

// TableDifference is a table whose rows changed.
type TableDifference struct {
	Table      string `json:"table"`
	RowsBefore int64  `json:"rows_before"`
	RowsAfter  int64  `json:"rows_after"`
}

// TotalDifference is a control total that changed, by all rows or by source.
type TotalDifference struct {
	Table     string `json:"table"`
	Dimension string `json:"dimension"`
	Value     string `json:"value"`
	Rows      int64  `json:"rows"` // after less before
	Quantity  string `json:"quantity"`
	Notional  string `json:"notional"`
}

// MemberDifference is a member whose amount changed.
type MemberDifference struct {
	Member string `json:"member"`
	Before string `json:"before"`
	After  string `json:"after"`
	Change string `json:"change"`
}

// sealDocument says which version of a trade date is in force.
type sealDocument struct {
	TradeDate string    `json:"trade_date"`
	Version   int       `json:"version"`
	Hash      string    `json:"certificate_hash"`
	Tag       string    `json:"tag"`
	SealedAt  time.Time `json:"sealed_at"`
	Rows      int64     `json:"rows"` // of facts
	Took      float64   `json:"took_seconds"`
}

// tagPrefix begins the names of the tags of sealed trade dates.
const tagPrefix = "eod-"

// Tag is the name of the snapshots of a sealed version.
func Tag(d calendar.TradeDate, version int) string {
	if version == 1 {
		return tagPrefix + d.String()
	}
	return fmt.Sprintf("%s%s-v%d", tagPrefix, d, version)
}

// OwnTag reports whether tags of that name are a seal's alone.
func OwnTag(name string) bool { return strings.HasPrefix(name, tagPrefix) }

func certificateKey(d calendar.TradeDate, version int) string {
	return fmt.Sprintf("%s/v%d", d, version)
}

// seal computes the hash and returns the canonical bytes.
func (c *Certificate) seal() ([]byte, error) {
	c.Hash = ""
	body, err := marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode certificate: %w", err)
	}
	head, ok := bytes.CutSuffix(body, []byte(`,"hash":""}`))
	if !ok {
		return nil, errors.New("encode certificate: the hash is not its last member")
	}
	c.Hash = hashOf(append(bytes.Clone(head), '}'))
	return append(head, `,"hash":"`+c.Hash+`"}`...), nil
}

// ParseCertificate reads a certificate's canonical bytes and checks its hash:
// *MismatchError if it was altered.
func ParseCertificate(body []byte) (*Certificate, error) {
	var c Certificate
	if err := json.Unmarshal(body, &c); err != nil {
		return nil, fmt.Errorf("read certificate: %w", err)
	}
	if c.Format != certificateFormat {
		return nil, fmt.Errorf("%w certificate: format %d is not known to this program, which reads %d", ErrInvalid, c.Format, certificateFormat)
	}
	head, ok := bytes.CutSuffix(body, []byte(`,"hash":"`+c.Hash+`"}`))
	if !ok {
		return nil, &MismatchError{TradeDate: c.TradeDate, Version: c.Version, Items: []Mismatch{{"certificate", "canonical form", "hash as its last member", "another form"}}}
	}
	if have := hashOf(append(bytes.Clone(head), '}')); have != c.Hash {
		return nil, &MismatchError{TradeDate: c.TradeDate, Version: c.Version, Items: []Mismatch{{"certificate", "hash", c.Hash, have}}}
	}
	return &c, nil
}

// marshal is compact JSON without HTML escapes.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

func hashOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// sealed returns the document that says which version is in force; ErrNotSealed.
func (m *Market) sealed(ctx context.Context, d calendar.TradeDate) (sealDocument, int64, error) {
	doc, err := m.o.Catalog.GetDocument(ctx, KindSeal, d.String())
	if errors.Is(err, catalog.ErrNotFound) {
		return sealDocument{}, 0, fmt.Errorf("%s: %w", d, ErrNotSealed)
	}
	if err != nil {
		return sealDocument{}, 0, err
	}
	var s sealDocument
	if err := json.Unmarshal(doc.Body, &s); err != nil {
		return s, 0, fmt.Errorf("read the seal of %s: %w", d, err)
	}
	return s, doc.Version, nil
}

// Certificate returns a version's certificate and its canonical bytes; version
// 0 is the one in force. ErrNotSealed; *MismatchError if it was altered.
func (m *Market) Certificate(ctx context.Context, d calendar.TradeDate, version int) (*Certificate, []byte, error) {
	want := ""
	if version == 0 {
		s, _, err := m.sealed(ctx, d)
		if err != nil {
			return nil, nil, err
		}
		version, want = s.Version, s.Hash
	}
	doc, err := m.o.Catalog.GetDocument(ctx, KindCertificate, certificateKey(d, version))
	if errors.Is(err, catalog.ErrNotFound) {
		return nil, nil, fmt.Errorf("%s version %d: %w", d, version, ErrNotSealed)
	}
	if err != nil {
		return nil, nil, err
	}
	c, err := ParseCertificate(doc.Body)
	if err != nil {
		return nil, nil, err
	}
	if c.TradeDate != d.String() || c.Version != version || want != "" && c.Hash != want {
		return nil, nil, &MismatchError{TradeDate: d.String(), Version: version, Items: []Mismatch{{"certificate", "identity", certificateKey(d, version) + " " + want, fmt.Sprintf("%s/v%d %s", c.TradeDate, c.Version, c.Hash)}}}
	}
	return c, doc.Body, nil
}

// Mismatch is one thing that is not as the certificate says.
type Mismatch struct {
	Object string `json:"object"`
	What   string `json:"what"`
	Want   string `json:"want"` // by the certificate
	Have   string `json:"have"` // by the data
}

// MismatchError names what differs from the certificate.
type MismatchError struct {
	TradeDate string
	Version   int
	Items     []Mismatch
}

func (e *MismatchError) Error() string {
	lines := []string{fmt.Sprintf("trade date %s version %d does not verify: %d mismatches", e.TradeDate, e.Version, len(e.Items))}
	for i, it := range e.Items {
		if i == samplesMax {
			lines = append(lines, fmt.Sprintf("and %d more", len(e.Items)-i))
			break
		}
		lines = append(lines, fmt.Sprintf("%s: %s: certificate %s, data %s", it.Object, it.What, it.Want, it.Have))
	}
	return strings.Join(lines, "\n  ")
}
