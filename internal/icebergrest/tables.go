package icebergrest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

	"github.com/tapehouse/tapehouse/internal/catalog"
)

// identifier names a table as bodies do.
type identifier struct {
	Namespace []string `json:"namespace"`
	Name      string   `json:"name"`
}

// table is the catalog's name; an error if there cannot be such a table.
func (i identifier) table() (catalog.Name, error) {
	if len(i.Namespace) != 1 || i.Namespace[0] == "" || i.Name == "" {
		return catalog.Name{}, newError(http.StatusNotFound, typeNoSuchTable, "Table %s.%s does not exist: namespaces have one level", quotedNamespace(i.Namespace), bounded(i.Name))
	}
	return catalog.Name{Namespace: i.Namespace[0], Table: i.Name}, nil
}

type tablesAnswer struct {
	Identifiers []identifier `json:"identifiers"`
	Next        *string      `json:"next-page-token,omitempty"`
}

func (h *Handler) listTables(ctx context.Context, c *call) error {
	if _, err := h.catalog.NamespaceProperties(ctx, c.namespace[0]); err != nil {
		return err
	}
	tables, err := h.catalog.List(ctx, c.namespace[0])
	if err != nil {
		return err
	}
	names := make([]string, len(tables))
	for i, t := range tables {
		names[i] = t.Table
	}
	out := tablesAnswer{Identifiers: []identifier{}}
	if names, out.Next, err = c.page(names); err != nil {
		return err
	}
	for _, n := range names {
		out.Identifiers = append(out.Identifiers, identifier{c.namespace, n})
	}
	c.out = out
	return nil
}

// tableAnswer is a table's state. A staged one has no place of its metadata.
type tableAnswer struct {
	MetadataLocation string            `json:"metadata-location,omitempty"`
	Metadata         json.RawMessage   `json:"metadata"`
	Config           map[string]string `json:"config,omitempty"`
}

func (h *Handler) answerTable(c *call, t *catalog.Table, refsOnly bool) error {
	m, err := t.Metadata(refsOnly)
	if err != nil {
		return err
	}
	c.etag = etag(t, refsOnly)
	c.out = tableAnswer{t.MetadataLocation(), m, h.o.Files}
	return nil
}

// etag changes whenever the answer does: a metadata file never changes.
func etag(t *catalog.Table, refsOnly bool) string {
	sum := sha256.Sum256([]byte(t.Name.String() + "\x00" + t.MetadataLocation() + "\x00" + strconv.FormatBool(refsOnly)))
	return `"` + hex.EncodeToString(sum[:16]) + `"`
}

func (h *Handler) createTable(ctx context.Context, c *call) error {
	var b struct {
		Name       string            `json:"name"`
		Location   string            `json:"location"`
		Schema     json.RawMessage   `json:"schema"`
		Spec       json.RawMessage   `json:"partition-spec"`
		Order      json.RawMessage   `json:"write-order"`
		Stage      bool              `json:"stage-create"`
		Properties map[string]string `json:"properties"`
	}
	if err := c.decode(&b); err != nil {
		return err
	}
	if err := c.authorize("CreateTable", c.namespace, b.Name); err != nil {
		return err
	}
	spec := catalog.ForeignTable{Name: catalog.Name{Namespace: c.namespace[0], Table: b.Name}, Schema: b.Schema, PartitionSpec: b.Spec,
		WriteOrder: b.Order, Location: b.Location, Properties: b.Properties}
	if b.Stage {
		m, err := h.catalog.StageForeign(ctx, spec, h.o.Guard)
		if err != nil {
			return err
		}
		c.out = tableAnswer{Metadata: m, Config: h.o.Files}
		return nil
	}
	t, err := h.catalog.CreateForeign(ctx, spec, h.o.Guard)
	if err != nil {
		return err
	}
	return h.answerTable(c, t, false)
}

func (h *Handler) registerTable(ctx context.Context, c *call) error {
	var b struct {
		Name             string `json:"name"`
		MetadataLocation string `json:"metadata-location"`
		Overwrite        bool   `json:"overwrite"`
	}
	if err := c.decode(&b); err != nil {
		return err
	}
	if err := c.authorize("CreateTable", c.namespace, b.Name); err != nil {
		return err
	}
	if b.Overwrite {
		return unsupported("A registration does not overwrite a table: drop it, or register under another name")
	}
	t, err := h.catalog.Register(ctx, catalog.Name{Namespace: c.namespace[0], Table: b.Name}, b.MetadataLocation, h.o.Guard)
	if err != nil {
		return err
	}
	return h.answerTable(c, t, false)
}

func (h *Handler) loadTable(ctx context.Context, c *call) error {
	refsOnly := false
	switch s := c.query.Get("snapshots"); s {
	case "", "all":
	case "refs":
		refsOnly = true
	default:
		return badRequest("snapshots=%s: want all or refs", bounded(s))
	}
	t, err := h.catalog.Load(ctx, c.name())
	if err != nil {
		return err
	}
	have := etag(t, refsOnly)
	for match := range strings.SplitSeq(strings.Join(c.r.Header["If-None-Match"], ","), ",") {
		if strings.TrimPrefix(strings.TrimSpace(match), "W/") == have {
			c.etag, c.status = have, http.StatusNotModified
			return nil
		}
	}
	return h.answerTable(c, t, refsOnly)
}

func (h *Handler) tableExists(ctx context.Context, c *call) error {
	c.status = http.StatusNoContent
	_, err := h.catalog.Load(ctx, c.name())
	return err
}

func (h *Handler) dropTable(ctx context.Context, c *call) error {
	purge := false
	if s := c.query.Get("purgeRequested"); s != "" {
		var err error
		if purge, err = strconv.ParseBool(s); err != nil {
			return badRequest("purgeRequested=%s: want true or false", bounded(s))
		}
	}
	if err := h.catalog.DropForeign(ctx, c.name(), purge, h.o.Guard); err != nil {
		return err
	}
	h.o.Logger.Info("table dropped", "table", c.name().String(), "purge", purge, "by", c.key.Name)
	c.status = http.StatusNoContent
	return nil
}

func (h *Handler) renameTable(ctx context.Context, c *call) error {
	var b struct {
		Source      identifier `json:"source"`
		Destination identifier `json:"destination"`
	}
	if err := c.decode(&b); err != nil {
		return err
	}
	if err := c.authorize("UpdateTable", b.Source.Namespace, b.Source.Name); err != nil {
		return err
	}
	if err := c.authorize("CreateTable", b.Destination.Namespace, b.Destination.Name); err != nil {
		return err
	}
	from, err := b.Source.table()
	if err != nil {
		return err
	}
	if len(b.Destination.Namespace) != 1 {
		return noSuchNamespace(b.Destination.Namespace)
	}
	to := catalog.Name{Namespace: b.Destination.Namespace[0], Table: b.Destination.Name}
	if _, err := h.catalog.Load(ctx, from); err != nil {
		return err
	}
	c.missing = typeNoSuchNamespace
	if err := h.catalog.RenameForeign(ctx, from, to, h.o.Guard); err != nil {
		return err
	}
	h.o.Logger.Info("table renamed", "table", from.String(), "to", to.String(), "by", c.key.Name)
	c.status = http.StatusNoContent
	return nil
}

// The kinds of reports.
const (
	reportScan   = "scan-report"
	reportCommit = "commit-report"
	reportOther  = "other"
)

// report takes a client's report of a scan or commit, and counts it: what is in
// it stays the client's.
func (h *Handler) report(_ context.Context, c *call) error {
	var b struct {
		Kind string `json:"report-type"`
	}
	if err := c.decode(&b); err != nil {
		return err
	}
	switch b.Kind {
	case "":
		return badRequest("The report has no report-type")
	case reportScan, reportCommit:
	default:
		b.Kind = reportOther
	}
	h.metrics.reports.WithLabelValues(b.Kind).Inc()
	c.status = http.StatusNoContent
	return nil
}
