package glue

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/tapehouse/tapehouse/internal/awsapi"
	"github.com/tapehouse/tapehouse/internal/hive"
)

// Partition indexes are kept as what they are called: looking partitions up needs
// none here. kindIndexes is the kind of the documents, by the table's identity.
const (
	kindIndexes = "glue-partition-indexes"
	indexesMax  = 3 // of a table, as in Glue
)

type partitionIndex struct {
	Keys      []string
	IndexName string
}

// indexesOf checks indexes for a table.
func indexesOf(t *hive.Table, indexes []partitionIndex) ([]partitionIndex, error) {
	if len(indexes) > indexesMax {
		return nil, awsapi.BadRequest(codeLimit, fmt.Sprintf("A table can have %d partition indexes, and it would have %d.", indexesMax, len(indexes)))
	}
	for i, x := range indexes {
		if slices.ContainsFunc(indexes[:i], func(o partitionIndex) bool { return strings.EqualFold(o.IndexName, x.IndexName) }) {
			return nil, awsapi.BadRequest(codeExists, "The partition index "+x.IndexName+" exists already.")
		}
		for j, k := range x.Keys {
			if !slices.ContainsFunc(t.PartitionKeys, func(c hive.Column) bool { return strings.EqualFold(c.Name, k) }) {
				return nil, invalid("The partition index " + x.IndexName + " names " + k + ", which is no partition key of the table.")
			}
			if slices.ContainsFunc(x.Keys[:j], func(o string) bool { return strings.EqualFold(o, k) }) {
				return nil, invalid("The partition index " + x.IndexName + " names " + k + " twice.")
			}
		}
	}
	return indexes, nil
}

func (h *Handler) writeIndexes(ctx context.Context, id string, indexes []partitionIndex) error {
	return edit(ctx, h, kindIndexes, id, func(all *[]partitionIndex) error { *all = indexes; return nil }, isEmpty[partitionIndex])
}

func isEmpty[T any](all *[]T) bool { return len(*all) == 0 }

type createPartitionIndexInput struct {
	tableOf
	PartitionIndex partitionIndex
}

func (h *Handler) createPartitionIndex(ctx context.Context, c *awsapi.Call, in *createPartitionIndexInput) (any, error) {
	t, err := h.findExternal(ctx, in.DatabaseName, in.TableName)
	if err != nil {
		return nil, err
	}
	err = edit(ctx, h, kindIndexes, t.ID, func(all *[]partitionIndex) (err error) {
		*all, err = indexesOf(&t.Definition, append(*all, in.PartitionIndex))
		return err
	}, isEmpty[partitionIndex])
	if err == nil {
		h.log(c, "glue partition index created", "table", t.Name.String(), "index", in.PartitionIndex.IndexName)
	}
	return nil, err
}

type getPartitionIndexesInput struct {
	tableOf
	NextToken string
}

type indexDescriptor struct {
	IndexName   string
	Keys        []keyElement
	IndexStatus string
}

type keyElement struct{ Name, Type string }

// getPartitionIndexes answers an empty list for an Iceberg table: Terraform asks it
// of every table.
func (h *Handler) getPartitionIndexes(ctx context.Context, _ *awsapi.Call, in *getPartitionIndexesInput) (any, error) {
	out := struct{ PartitionIndexDescriptorList []indexDescriptor }{[]indexDescriptor{}}
	e, err := h.find(ctx, in.DatabaseName, in.TableName)
	if err != nil || e.external == nil {
		return out, err
	}
	all, _, err := document[[]partitionIndex](ctx, h, kindIndexes, e.id())
	for _, x := range all {
		d := indexDescriptor{IndexName: x.IndexName, IndexStatus: "ACTIVE"}
		for _, k := range x.Keys {
			element := keyElement{Name: strings.ToLower(k)}
			for _, c := range e.external.Definition.PartitionKeys {
				if strings.EqualFold(c.Name, k) {
					element.Name, element.Type = c.Name, c.Type
				}
			}
			d.Keys = append(d.Keys, element)
		}
		out.PartitionIndexDescriptorList = append(out.PartitionIndexDescriptorList, d)
	}
	return out, err
}

type deletePartitionIndexInput struct {
	tableOf
	IndexName string
}

func (h *Handler) deletePartitionIndex(ctx context.Context, c *awsapi.Call, in *deletePartitionIndexInput) (any, error) {
	t, err := h.findExternal(ctx, in.DatabaseName, in.TableName)
	if err != nil {
		return nil, err
	}
	err = edit(ctx, h, kindIndexes, t.ID, func(all *[]partitionIndex) error {
		i := slices.IndexFunc(*all, func(x partitionIndex) bool { return strings.EqualFold(x.IndexName, in.IndexName) })
		if i < 0 {
			return notFound("Index with the given indexName : " + in.IndexName + " does not exist.")
		}
		*all = slices.Delete(*all, i, i+1)
		return nil
	}, isEmpty[partitionIndex])
	if err == nil {
		h.log(c, "glue partition index deleted", "table", t.Name.String(), "index", in.IndexName)
	}
	return nil, err
}
