package icebergrest

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/tapehouse/tapehouse/internal/catalog"
)

// tablesMax bounds the tables of one transaction, as the catalog does.
const tablesMax = 200

// tableChange is the body of a commit, and a part of a transaction's.
type tableChange struct {
	Identifier   *identifier     `json:"identifier"`
	Requirements json.RawMessage `json:"requirements"`
	Updates      json.RawMessage `json:"updates"`
}

// creates reports whether the change makes its table.
func (t *tableChange) creates() (bool, error) {
	var requirements []struct {
		Type string `json:"type"`
	}
	if len(t.Requirements) == 0 {
		return false, nil
	}
	if err := json.Unmarshal(t.Requirements, &requirements); err != nil {
		return false, badRequest("requirements: %s", bounded(err.Error()))
	}
	for _, r := range requirements {
		if r.Type == "assert-create" {
			return true, nil
		}
	}
	return false, nil
}

// foreign authorizes a change of the table and gives the catalog's form of it.
func (c *call) foreign(name catalog.Name, t *tableChange) (catalog.Foreign, error) {
	creates, err := t.creates()
	if err != nil {
		return catalog.Foreign{}, err
	}
	action := "UpdateTable"
	if creates {
		action = "CreateTable"
	}
	return catalog.Foreign{Table: name, Requirements: t.Requirements, Updates: t.Updates}, c.authorize(action, []string{name.Namespace}, name.Table)
}

func (h *Handler) commitTable(ctx context.Context, c *call) error {
	var b tableChange
	if err := c.decode(&b); err != nil {
		return err
	}
	if b.Identifier != nil {
		if named, err := b.Identifier.table(); err != nil || named != c.name() {
			return badRequest("The body's identifier is not the path's table")
		}
	}
	f, err := c.foreign(c.name(), &b)
	if err != nil {
		return err
	}
	if creates, _ := b.creates(); creates {
		c.missing = typeNoSuchNamespace
	}
	out, err := h.catalog.CommitForeign(ctx, []catalog.Foreign{f}, h.o.Guard)
	if err != nil {
		return err
	}
	m, err := out[0].Metadata(false)
	if err != nil {
		return err
	}
	c.out = tableAnswer{MetadataLocation: out[0].MetadataLocation(), Metadata: m}
	return nil
}

func (h *Handler) commitTransaction(ctx context.Context, c *call) error {
	var b struct {
		Changes []tableChange `json:"table-changes"`
	}
	if err := c.decode(&b); err != nil {
		return err
	}
	if n := len(b.Changes); n == 0 || n > tablesMax {
		return badRequest("table-changes has %d tables: want 1 to %d", n, tablesMax)
	}
	changes := make([]catalog.Foreign, len(b.Changes))
	for i := range b.Changes {
		t := &b.Changes[i]
		if t.Identifier == nil {
			return badRequest("table-changes: element %d has no identifier", i+1)
		}
		name, err := t.Identifier.table()
		if err != nil {
			return err
		}
		if changes[i], err = c.foreign(name, t); err != nil {
			return err
		}
	}
	if _, err := h.catalog.CommitForeign(ctx, changes, h.o.Guard); err != nil {
		return err
	}
	c.status = http.StatusNoContent
	return nil
}
