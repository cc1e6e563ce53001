package glue

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"

	"github.com/tapehouse/tapehouse/internal/awsapi"
	"github.com/tapehouse/tapehouse/internal/catalog"
)

const versionsPage = 100

type tableVersion struct {
	Table     tableOutput
	VersionID string `json:"VersionId"`
}

func (h *Handler) showVersion(e *catalog.External) tableVersion {
	return tableVersion{h.show(entry{external: e}), versionID(e)}
}

// readVersion reads a VersionId. One that no table can have is one that is not there.
func readVersion(id string) (int64, error) {
	v, err := strconv.ParseInt(id, 10, 64)
	if err != nil || v < 0 || strconv.FormatInt(v, 10) != id {
		return 0, notFound("Version " + id + " not found.")
	}
	return v + 1, nil
}

type getTableVersionInput struct {
	tableOf
	VersionID string `json:"VersionId"`
}

func (h *Handler) getTableVersion(ctx context.Context, _ *awsapi.Call, in *getTableVersionInput) (any, error) {
	type answer struct{ TableVersion tableVersion }
	e, err := h.find(ctx, in.DatabaseName, in.TableName)
	if err != nil {
		return nil, err
	}
	if in.VersionID == "" || in.VersionID == e.version() {
		return answer{tableVersion{h.show(e), e.version()}}, nil
	}
	wanted, err := readVersion(in.VersionID)
	if err != nil {
		return nil, err
	}
	if e.external != nil {
		all, err := h.catalog.ExternalVersions(ctx, e.name())
		if err != nil {
			return nil, err
		}
		for i := range all {
			if all[i].Version == wanted {
				return answer{h.showVersion(&all[i])}, nil
			}
		}
	}
	return nil, notFound("Version " + in.VersionID + " of table " + e.name().Table + " not found.")
}

type getTableVersionsInput struct {
	tableOf
	NextToken  string
	MaxResults *int
}

// getTableVersions lists the newest first. Of an Iceberg table it knows the current
// one: the former ones are snapshots, which its metadata lists.
func (h *Handler) getTableVersions(ctx context.Context, _ *awsapi.Call, in *getTableVersionsInput) (any, error) {
	var out struct {
		TableVersions []json.RawMessage
		NextToken     string `json:",omitempty"`
	}
	out.TableVersions = []json.RawMessage{}
	before := int64(0)
	if err := readToken(in.NextToken, &before); err != nil {
		return nil, err
	}
	e, err := h.find(ctx, in.DatabaseName, in.TableName)
	if err != nil {
		return nil, err
	}
	if e.managed != nil {
		row, err := marshal(tableVersion{h.show(e), e.version()})
		out.TableVersions = append(out.TableVersions, row)
		return out, err
	}
	all, err := h.catalog.ExternalVersions(ctx, e.name())
	if err != nil {
		return nil, err
	}
	limit, size := pageOf(in.MaxResults, versionsPage), 0
	for i := range all {
		if before > 0 && all[i].Version >= before {
			continue
		}
		if len(out.TableVersions) == limit || size > answerBytesMax {
			out.NextToken, err = tokenOf(all[i-1].Version)
			return out, err
		}
		row, err := marshal(h.showVersion(&all[i]))
		if err != nil {
			return nil, err
		}
		out.TableVersions = append(out.TableVersions, row)
		size += len(row)
	}
	return out, nil
}

type deleteTableVersionInput struct {
	tableOf
	VersionID string `json:"VersionId"`
}

func (h *Handler) deleteTableVersion(ctx context.Context, c *awsapi.Call, in *deleteTableVersionInput) (any, error) {
	e, err := h.find(ctx, in.DatabaseName, in.TableName)
	if err != nil {
		return nil, err
	}
	return nil, h.dropVersion(ctx, c, e, in.VersionID)
}

func (h *Handler) dropVersion(ctx context.Context, c *awsapi.Call, e entry, id string) error {
	version, err := readVersion(id)
	switch {
	case err != nil:
		return err
	case e.managed != nil:
		return invalid("The versions of the Iceberg table " + e.name().String() + " are its snapshots, which expire by themselves.")
	case e.external.Version == version:
		return invalid("The version " + id + " of table " + e.name().Table + " is the current one, which cannot be deleted.")
	}
	err = h.catalog.DropExternalVersion(ctx, e.name(), version)
	if errors.Is(err, catalog.ErrNotFound) {
		return notFound("Version " + id + " of table " + e.name().Table + " not found.")
	}
	if err == nil {
		h.log(c, "glue table version deleted", "table", e.name().String(), "version", id)
	}
	return err
}

type batchDeleteTableVersionInput struct {
	tableOf
	VersionIDs []string `json:"VersionIds"`
}

type versionError struct {
	TableName   string
	VersionID   string `json:"VersionId"`
	ErrorDetail errorDetail
}

func (h *Handler) batchDeleteTableVersion(ctx context.Context, c *awsapi.Call, in *batchDeleteTableVersionInput) (any, error) {
	var out struct {
		Errors []versionError `json:",omitempty"`
	}
	e, err := h.find(ctx, in.DatabaseName, in.TableName)
	if err != nil {
		return nil, err
	}
	for _, id := range in.VersionIDs {
		err := h.dropVersion(ctx, c, e, id)
		if err == nil {
			continue
		}
		d, ok := detailOf(err)
		if !ok {
			return nil, err
		}
		out.Errors = append(out.Errors, versionError{in.TableName, id, d})
	}
	return out, nil
}
