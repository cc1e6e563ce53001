package glue

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tapehouse/tapehouse/internal/auth"
	"github.com/tapehouse/tapehouse/internal/awsapi"
	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/crawler"
)

const (
	signingName  = "glue"
	targetPrefix = "AWSGlue."

	// bodyBytesMax leaves room for a hundred partitions, each with columns of its own.
	bodyBytesMax = 8 << 20

	// answerBytesMax is where a page ends, however many entries were asked for.
	answerBytesMax = 8 << 20
)

// NeededError is the Guard's answer for a table, or a database, that something needs.
type NeededError struct {
	Table catalog.Name // without Table, the database
	// Reason says what needs it, and what to do instead: "the delivery stream x
	// feeds it: delete the stream first".
	Reason string
}

func (e *NeededError) Error() string {
	return "The table " + e.Table.String() + " cannot be deleted: " + e.Reason + "."
}

// Guard stands before the managed tables, which streams feed and views read.
type Guard interface {
	// Needed returns a *NeededError if the table must stay, else nil.
	Needed(ctx context.Context, table catalog.Name) error
	// Drop drops the table, unless Needed, which it rules out to happen meanwhile.
	Drop(ctx context.Context, table catalog.Name) error
	// NeededDatabase returns a *NeededError if something but a table needs the database.
	NeededDatabase(ctx context.Context, database string) error
	// Hidden reports whether the table is no user's: the state of a view.
	Hidden(t *catalog.Table) bool
}

// Options configure a Handler.
type Options struct {
	Catalog   *catalog.Catalog
	Guard     Guard
	Crawlers  *crawler.Manager // nil: they run on another server
	Region    string           // of the ARNs
	AccountID string           // of the ARNs, and the catalog's id: 12 digits
	Logger    *slog.Logger
	Now       func() time.Time // nil is time.Now
}

// Handler answers the operations of AWS Glue's Data Catalog. It is safe for
// concurrent use.
type Handler struct {
	catalog  *catalog.Catalog
	crawlers *crawler.Manager
	guard    Guard
	region   string
	account  string
	logger   *slog.Logger
	now      func() time.Time

	// changes orders what reads a namespace or a document and then writes it.
	changes sync.Mutex
}

// New returns a handler over o.Catalog.
func New(o Options) *Handler {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Handler{catalog: o.Catalog, crawlers: o.Crawlers, guard: o.Guard, region: o.Region, account: o.AccountID, logger: o.Logger, now: o.Now}
}

// Service returns what awsapi's Mux registers: each operation of the model, those
// that are not supported as refusals.
func (h *Handler) Service() awsapi.Service {
	s := awsapi.Service{SigningName: signingName, TargetPrefix: targetPrefix, BodyBytesMax: bodyBytesMax, MessageMember: "Message",
		Resource: h.resource, Operations: make(map[string]awsapi.Operation, len(operations)), Refusals: make(map[string]*awsapi.Error, len(refusals))}
	for name, o := range operations {
		if h.crawlers == nil && ofCrawlers(name) {
			s.Refusals[name] = awsapi.BadRequest(codeUnsupported, name+" is not answered here: the crawlers run on another server of this catalog.")
			continue
		}
		s.Operations[name] = func(ctx context.Context, c *awsapi.Call) error { return o.run(h, ctx, c) }
	}
	for name, why := range refusals {
		s.Refusals[name] = awsapi.BadRequest(codeUnsupported, name+" is not supported: "+why)
	}
	return s
}

// ofCrawlers reports whether an operation is about crawlers.
func ofCrawlers(operation string) bool {
	return strings.Contains(operation, "Crawl") || strings.Contains(operation, "Classifier")
}

// anyTable stands for all tables of a database: longer than a grant's pattern, so
// that no pattern without * covers it.
var anyTable = strings.Repeat("*", 130)

// resource names what an operation is about, for grants: "database" or
// "database.table", in lower case.
func (h *Handler) resource(operation string, body []byte) (name, arn string) {
	prefix := "arn:aws:glue:" + h.region + ":" + h.account + ":"
	// What the operation does not take says nothing about what it does.
	takes := inputs[operation]
	member := func(m string) string {
		v, ok := awsapi.Member(body, m)
		if !ok || takes == nil || takes.member(m) < 0 {
			return ""
		}
		return strings.ToLower(string(v))
	}
	if ofCrawlers(operation) {
		// A crawler reads any bucket, and its next definition may name any database.
		return auth.AnyStream, prefix + "*"
	}
	database, table := member("DatabaseName"), ""
	switch operation {
	case "GetDatabase", "UpdateDatabase", "DeleteDatabase":
		if database = member("Name"); database != "" {
			return database, prefix + "database/" + database
		}
	case "GetTable", "DeleteTable":
		table = member("Name")
	case "GetTables", "CreateTable", "UpdateTable", "BatchDeleteTable": // the tables' names stand deeper, or are all
	default:
		table = member("TableName")
	}
	switch {
	case database == "":
		return auth.AnyStream, prefix + "*"
	case table == "":
		return database + "." + anyTable, prefix + "table/" + database + "/*"
	}
	return database + "." + table, prefix + "table/" + database + "/" + table
}

// operation is what is done with an input of a type, whose members have the names of
// the model's.
type operation struct {
	run   func(*Handler, context.Context, *awsapi.Call) error
	input reflect.Type
}

// on makes an operation out of what it does with its input. A nil output answers
// {}.
func on[In any](do func(h *Handler, ctx context.Context, c *awsapi.Call, in *In) (any, error)) operation {
	return operation{input: reflect.TypeFor[In](), run: func(h *Handler, ctx context.Context, c *awsapi.Call) error {
		var in In
		if err := decode(c.Operation, c.Body, &in); err != nil {
			return err
		}
		if id, ok := any(&in).(interface{ catalogID() string }); ok {
			if id := id.catalogID(); id != "" && id != h.account {
				return notFound("The catalog " + id + " is not here: this endpoint has one, " + h.account + ".")
			}
		}
		out, err := do(h, ctx, c, &in)
		if err != nil {
			return answerTo(err)
		}
		if out == nil {
			return nil
		}
		data, err := marshal(out)
		if err != nil {
			return fmt.Errorf("encode the answer of %s: %w", c.Operation, err)
		}
		c.Out = append(c.Out, data...)
		return nil
	}}
}

// marshal is json.Marshal with < and > as they are, which types are full of.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// catalogOf is a part of every input that may name a catalog.
type catalogOf struct {
	CatalogID string `json:"CatalogId"`
}

func (c *catalogOf) catalogID() string { return c.CatalogID }

// tableOf is a part of every input that names a table.
type tableOf struct {
	catalogOf
	DatabaseName string
	TableName    string
}

// epoch is an instant as Glue shows it: seconds since 1970, with milliseconds.
type epoch time.Time

// MarshalJSON implements json.Marshaler.
func (e epoch) MarshalJSON() ([]byte, error) {
	return strconv.AppendFloat(nil, float64(time.Time(e).UnixMilli())/1000, 'f', -1, 64), nil
}

func epochOf(t time.Time) *epoch {
	if t.IsZero() {
		return nil
	}
	e := epoch(t)
	return &e
}

// tokenOf makes a page's NextToken out of where the next page begins.
func tokenOf(after any) (string, error) {
	b, err := json.Marshal(after)
	return base64.RawURLEncoding.EncodeToString(b), err
}

// readToken reads what tokenOf made; "" leaves after as it is.
func readToken(token string, after any) error {
	if token == "" {
		return nil
	}
	b, err := base64.RawURLEncoding.DecodeString(token)
	if err == nil {
		err = json.Unmarshal(b, after)
	}
	if err != nil {
		return invalid("The NextToken is none that this operation has given.")
	}
	return nil
}

// pageOf is the size of a page: what was asked for, or standard.
func pageOf(asked *int, standard int) int {
	if asked == nil {
		return standard
	}
	return *asked
}

func (h *Handler) log(c *awsapi.Call, message string, attributes ...any) {
	h.logger.Info(message, append(attributes, "principal", c.Principal, "request_id", c.RequestID)...)
}
