package glue

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/tapehouse/tapehouse/internal/awsapi"
	"github.com/tapehouse/tapehouse/internal/catalog"
)

// searchPage is the size of a page that was not asked for.
const searchPage = 100

type searchTablesInput struct {
	catalogOf
	NextToken         string
	Filters           []predicate
	SearchText        string
	SortCriteria      []sortCriterion
	MaxResults        *int
	ResourceShareType string
}

type predicate struct{ Key, Value, Comparator string }

type sortCriterion struct{ FieldName, Sort string }

// A field of a table that can be searched and sorted by: text, or an instant.
var (
	textFields = map[string]func(*tableOutput) string{
		"Name":         func(t *tableOutput) string { return t.Name },
		"DatabaseName": func(t *tableOutput) string { return t.DatabaseName },
		"Description":  func(t *tableOutput) string { return t.Description },
		"Owner":        func(t *tableOutput) string { return t.Owner },
		"TableType":    func(t *tableOutput) string { return t.Type },
	}
	timeFields = map[string]func(*tableOutput) float64{
		"CreateTime":     func(t *tableOutput) float64 { return t.CreateTime.seconds() },
		"UpdateTime":     func(t *tableOutput) float64 { return t.UpdateTime.seconds() },
		"LastAccessTime": func(t *tableOutput) float64 { return t.LastAccessTime },
	}
)

func (e *epoch) seconds() float64 {
	if e == nil {
		return 0
	}
	return float64(time.Time(*e).UnixMilli()) / 1000
}

const fieldNames = "want Name, DatabaseName, Description, Owner, TableType, CreateTime, UpdateTime or LastAccessTime"

// place is where a table stands in the order that was asked for.
type place struct {
	Text     string  `json:"t,omitempty"`
	Seconds  float64 `json:"s,omitempty"`
	Database string  `json:"d"`
	Table    string  `json:"n"`
}

func (a place) compare(b place, descending bool) int {
	c := cmp.Or(strings.Compare(a.Text, b.Text), cmp.Compare(a.Seconds, b.Seconds))
	if descending {
		c = -c
	}
	return cmp.Or(c, strings.Compare(a.Database, b.Database), strings.Compare(a.Table, b.Table))
}

// searchTables looks through all tables of the catalog. A page begins behind the
// place where the last one ended, so that tables which come and go meanwhile make
// no other table be missed.
func (h *Handler) searchTables(ctx context.Context, _ *awsapi.Call, in *searchTablesInput) (any, error) {
	out := tableList{TableList: []json.RawMessage{}}
	var after *place
	if err := readToken(in.NextToken, &after); err != nil {
		return nil, err
	}
	placed, descending, err := sorting(in.SortCriteria)
	if err != nil {
		return nil, err
	}
	wanted, err := filters(in.Filters)
	if err != nil || in.ResourceShareType == "FOREIGN" || in.ResourceShareType == "FEDERATED" {
		return out, err
	}
	found, err := h.search(ctx, func(t *tableOutput) (place, bool) {
		p := placed(t)
		return p, (after == nil || after.compare(p, descending) < 0) && wanted(t) && mentions(t, in.SearchText)
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(found, func(a, b place) int { return a.compare(b, descending) })
	limit, size := pageOf(in.MaxResults, searchPage), 0
	for i, p := range found {
		if i == limit || size > answerBytesMax {
			out.NextToken, err = tokenOf(found[i-1])
			return out, err
		}
		e, err := h.load(ctx, catalog.Name{Namespace: p.Database, Table: p.Table})
		if errors.Is(err, catalog.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		row, err := marshal(h.show(e))
		if err != nil {
			return nil, err
		}
		out.TableList = append(out.TableList, row)
		size += len(row)
	}
	return out, nil
}

// search returns the places of the tables that are wanted. It holds no more than
// those: a definition can be of megabytes.
func (h *Handler) search(ctx context.Context, wanted func(*tableOutput) (place, bool)) ([]place, error) {
	names, err := h.names(ctx, "")
	if err != nil {
		return nil, err
	}
	var found []place
	for _, n := range names {
		e, err := h.load(ctx, n)
		if errors.Is(err, catalog.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		t := h.show(e)
		if p, ok := wanted(&t); ok {
			found = append(found, p)
		}
	}
	return found, nil
}

// sorting reads by what the tables are sorted, beside database and name.
func sorting(criteria []sortCriterion) (func(*tableOutput) place, bool, error) {
	named := func(t *tableOutput) place { return place{Database: t.DatabaseName, Table: t.Name} }
	if len(criteria) == 0 || criteria[0].FieldName == "" {
		return named, false, nil
	}
	field, descending := criteria[0].FieldName, criteria[0].Sort == "DESC"
	if text := textFields[field]; text != nil {
		return func(t *tableOutput) place { p := named(t); p.Text = text(t); return p }, descending, nil
	}
	if seconds := timeFields[field]; seconds != nil {
		return func(t *tableOutput) place { p := named(t); p.Seconds = seconds(t); return p }, descending, nil
	}
	return nil, false, invalid("SortCriteria: the field " + field + " is not supported: " + fieldNames + ".")
}

// filters compiles predicates, all of which must hold.
func filters(predicates []predicate) (func(*tableOutput) bool, error) {
	var all []func(*tableOutput) bool
	for _, p := range predicates {
		text, seconds := textFields[p.Key], timeFields[p.Key]
		switch {
		case text != nil && p.Comparator != "" && p.Comparator != "EQUALS":
			return nil, invalid("Filters: the comparator " + p.Comparator + " is for times, and " + p.Key + " is text.")
		case text != nil:
			all = append(all, func(t *tableOutput) bool { return hasToken(text(t), p.Value) })
		case seconds != nil:
			bound, err := readInstant(p.Value)
			if err != nil {
				return nil, invalid("Filters: " + p.Key + ": " + err.Error() + ".")
			}
			all = append(all, func(t *tableOutput) bool { return holds(p.Comparator, cmp.Compare(seconds(t), bound)) })
		default:
			return nil, invalid("Filters: the key " + p.Key + " is not supported: " + fieldNames + ".")
		}
	}
	return func(t *tableOutput) bool {
		return !slices.ContainsFunc(all, func(f func(*tableOutput) bool) bool { return !f(t) })
	}, nil
}

func holds(comparator string, order int) bool {
	switch comparator {
	case "GREATER_THAN":
		return order > 0
	case "GREATER_THAN_EQUALS":
		return order >= 0
	case "LESS_THAN":
		return order < 0
	case "LESS_THAN_EQUALS":
		return order <= 0
	}
	return order == 0
}

// readInstant reads seconds since 1970 or RFC 3339.
func readInstant(s string) (float64, error) {
	if n, err := strconv.ParseFloat(s, 64); err == nil {
		return n, nil
	}
	for _, layout := range []string{time.RFC3339Nano, time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return float64(t.UnixMilli()) / 1000, nil
		}
	}
	return 0, fmt.Errorf("%.80q is no time: want 2026-11-20T09:30:00Z, or seconds since 1970", s)
}

// hasToken reports whether the text is the value, or has it as one of the parts
// between its punctuation: "trades" is in "trades-2026" and not in "mytrades".
func hasToken(text, value string) bool {
	text, value = strings.ToLower(text), strings.ToLower(value)
	return text == value || slices.Contains(strings.FieldsFunc(text, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) }), value)
}

// mentions reports whether the text stands in one of the table's names, texts and
// parameters; in quotes, whether it is one of them.
func mentions(t *tableOutput, text string) bool {
	if text == "" {
		return true
	}
	text = strings.ToLower(text)
	is := func(s string) bool { return strings.Contains(strings.ToLower(s), text) }
	if n := len(text); n > 2 && (text[0] == '"' || text[0] == '\'') && text[n-1] == text[0] {
		exact := text[1 : n-1]
		is = func(s string) bool { return strings.ToLower(s) == exact }
	}
	for _, s := range []string{t.Name, t.DatabaseName, t.Description, t.Owner} {
		if is(s) {
			return true
		}
	}
	columns := t.PartitionKeys
	if t.Storage != nil {
		columns = append(slices.Clone(t.Storage.Columns), columns...)
	}
	for _, c := range columns {
		if is(c.Name) || is(c.Comment) {
			return true
		}
	}
	for k, v := range t.Parameters {
		if is(k) || is(v) {
			return true
		}
	}
	return false
}
