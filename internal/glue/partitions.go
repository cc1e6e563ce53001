package glue

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"

	"github.com/tapehouse/tapehouse/internal/awsapi"
	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/hive"
)

const partitionsPage = 1000

// The answers about one partition, in AWS's words.
var (
	errPartitionExists  = awsapi.BadRequest(codeExists, "Partition already exists.")
	errPartitionMissing = notFound("Cannot find partition.")
)

// partitionOutput is Partition.
type partitionOutput struct {
	hive.Partition
	DatabaseName string
	TableName    string
	CreationTime *epoch `json:",omitempty"`
	CatalogID    string `json:"CatalogId"`
}

func (h *Handler) showPartition(table catalog.Name, p *catalog.ExternalPartition) partitionOutput {
	return partitionOutput{p.Partition, table.Namespace, table.Table, epochOf(p.CreatedAt), h.account}
}

// checkValues refuses values that do not stand for the table's keys.
func checkValues(t *catalog.External, values []string) error {
	if have, want := len(values), len(t.Definition.PartitionKeys); have != want {
		return invalid(fmt.Sprintf("The number of partition keys do not match the number of partition values: %d keys, %d values.", want, have))
	}
	return nil
}

type partitionsInput struct {
	tableOf
	PartitionInput     hive.Partition
	PartitionInputList []hive.Partition
	PartitionValues    []string
	PartitionValueList []string
}

func (h *Handler) createPartition(ctx context.Context, c *awsapi.Call, in *partitionsInput) (any, error) {
	t, err := h.findExternal(ctx, in.DatabaseName, in.TableName)
	if err != nil {
		return nil, err
	}
	if err := checkValues(t, in.PartitionInput.Values); err != nil {
		return nil, err
	}
	taken, err := h.catalog.AddPartitions(ctx, t.Name, []hive.Partition{in.PartitionInput})
	if err == nil && len(taken) > 0 {
		err = errPartitionExists
	}
	if err == nil {
		h.log(c, "glue partitions created", "table", t.Name.String(), "partitions", 1)
	}
	return nil, err
}

type partitionError struct {
	PartitionValues []string
	ErrorDetail     errorDetail
}

type partitionErrors struct {
	Errors []partitionError `json:",omitempty"`
}

func (e *partitionErrors) add(values []string, err error) {
	d, _ := detailOf(err)
	e.Errors = append(e.Errors, partitionError{values, d})
}

func (h *Handler) batchCreatePartition(ctx context.Context, c *awsapi.Call, in *partitionsInput) (any, error) {
	t, err := h.findExternal(ctx, in.DatabaseName, in.TableName)
	if err != nil {
		return nil, err
	}
	var out partitionErrors
	var good []hive.Partition
	for _, p := range in.PartitionInputList {
		if err := checkValues(t, p.Values); err != nil {
			out.add(p.Values, err)
			continue
		}
		good = append(good, p)
	}
	taken, err := h.catalog.AddPartitions(ctx, t.Name, good)
	if err != nil {
		return nil, err
	}
	for _, i := range taken {
		out.add(good[i].Values, errPartitionExists)
	}
	h.log(c, "glue partitions created", "table", t.Name.String(), "partitions", len(good)-len(taken))
	return out, nil
}

func (h *Handler) getPartition(ctx context.Context, _ *awsapi.Call, in *partitionsInput) (any, error) {
	t, err := h.findExternal(ctx, in.DatabaseName, in.TableName)
	if err != nil {
		return nil, err
	}
	found, err := h.catalog.FindPartitions(ctx, t.Name, in.PartitionValues)
	if err != nil {
		return nil, err
	}
	if found[0] == nil {
		return nil, errPartitionMissing
	}
	return struct{ Partition partitionOutput }{h.showPartition(t.Name, found[0])}, nil
}

type partitionValues struct{ Values []string }

type batchGetPartitionInput struct {
	tableOf
	PartitionsToGet []partitionValues
}

// batchGetPartition leaves out what is not there, as Glue does; what does not fit
// into the answer are UnprocessedKeys.
func (h *Handler) batchGetPartition(ctx context.Context, _ *awsapi.Call, in *batchGetPartitionInput) (any, error) {
	t, err := h.findExternal(ctx, in.DatabaseName, in.TableName)
	if err != nil {
		return nil, err
	}
	values := make([][]string, len(in.PartitionsToGet))
	for i, p := range in.PartitionsToGet {
		values[i] = p.Values
	}
	out := struct {
		Partitions      []json.RawMessage
		UnprocessedKeys []partitionValues
	}{[]json.RawMessage{}, []partitionValues{}}
	const chunk = 10 // what is held at once, beside the answer
	size := 0
	for from := 0; from < len(values); from += chunk {
		keys := values[from:min(from+chunk, len(values))]
		if size > answerBytesMax {
			out.UnprocessedKeys = append(out.UnprocessedKeys, in.PartitionsToGet[from:]...)
			return out, nil
		}
		found, err := h.catalog.FindPartitions(ctx, t.Name, keys...)
		if err != nil {
			return nil, err
		}
		for _, p := range found {
			if p == nil {
				continue
			}
			row, err := marshal(h.showPartition(t.Name, p))
			if err != nil {
				return nil, err
			}
			out.Partitions = append(out.Partitions, row)
			size += len(row)
		}
	}
	return out, nil
}

type getPartitionsInput struct {
	tableOf
	Expression          string
	NextToken           string
	Segment             *struct{ SegmentNumber, TotalSegments int }
	MaxResults          *int
	ExcludeColumnSchema bool
}

func (h *Handler) getPartitions(ctx context.Context, _ *awsapi.Call, in *getPartitionsInput) (any, error) {
	var out struct {
		Partitions []json.RawMessage
		NextToken  string `json:",omitempty"`
	}
	out.Partitions = []json.RawMessage{}
	var after []string
	if err := readToken(in.NextToken, &after); err != nil {
		return nil, err
	}
	if s := in.Segment; s != nil && s.SegmentNumber >= s.TotalSegments {
		return nil, invalid(fmt.Sprintf("SegmentNumber %d is none of %d segments, which are counted from 0.", s.SegmentNumber, s.TotalSegments))
	}
	e, err := h.find(ctx, in.DatabaseName, in.TableName)
	if err != nil {
		return nil, err
	}
	var keys []hive.Column
	if e.external != nil {
		keys = e.external.Definition.PartitionKeys
	}
	expression, err := hive.ParseExpression(in.Expression, keys)
	if err != nil {
		return nil, invalid(err.Error())
	}
	if e.managed != nil {
		return out, nil // it has no partitions of Hive's
	}
	wanted := func(values []string) bool {
		return (in.Segment == nil || segmentOf(values, in.Segment.TotalSegments) == in.Segment.SegmentNumber) && expression.Matches(values)
	}
	limit, size, last := pageOf(in.MaxResults, partitionsPage), 0, []string(nil)
	var fault error
	err = h.catalog.ExternalPartitions(ctx, e.name(), catalog.PartitionsPage{After: after, Wanted: wanted}, func(p catalog.ExternalPartition) bool {
		if len(out.Partitions) == limit || size > answerBytesMax {
			out.NextToken, fault = tokenOf(last)
			return false
		}
		shown := h.showPartition(e.name(), &p)
		if in.ExcludeColumnSchema && shown.Storage != nil {
			shown.Storage.Columns = nil
		}
		var row []byte
		if row, fault = marshal(shown); fault != nil {
			return false
		}
		out.Partitions = append(out.Partitions, row)
		size, last = size+len(row), p.Values
		return true
	})
	if err == nil {
		err = fault
	}
	return out, err
}

// segmentOf gives each partition one of the segments, always the same.
func segmentOf(values []string, segments int) int {
	f := fnv.New64a()
	for _, v := range values {
		_, _ = f.Write([]byte(v))
		_, _ = f.Write([]byte{0xff}) // in no text
	}
	return int(f.Sum64() % uint64(segments))
}

func (h *Handler) updatePartition(ctx context.Context, c *awsapi.Call, in *partitionsInput) (any, error) {
	t, err := h.findExternal(ctx, in.DatabaseName, in.TableName)
	if err != nil {
		return nil, err
	}
	u, err := updateOf(t, in.PartitionValueList, in.PartitionInput)
	if err != nil {
		return nil, err
	}
	missing, taken, err := h.catalog.UpdatePartitions(ctx, t.Name, []catalog.PartitionUpdate{u})
	switch {
	case err != nil:
		return nil, err
	case len(missing) > 0:
		return nil, errPartitionMissing
	case len(taken) > 0:
		return nil, errPartitionExists
	}
	h.moved(ctx, t, u)
	h.log(c, "glue partitions changed", "table", t.Name.String(), "partitions", 1)
	return nil, nil
}

// updateOf is the change of one partition. One without values keeps those it has.
func updateOf(t *catalog.External, values []string, to hive.Partition) (catalog.PartitionUpdate, error) {
	if to.Values == nil {
		to.Values = values
	}
	err := checkValues(t, values)
	if err == nil {
		err = checkValues(t, to.Values)
	}
	return catalog.PartitionUpdate{Values: values, To: to}, err
}

// moved lets the statistics of a partition that got other values go: they are of
// what was under the former ones.
func (h *Handler) moved(ctx context.Context, t *catalog.External, u catalog.PartitionUpdate) {
	if !slices.Equal(u.Values, u.To.Values) {
		h.forgetPartition(ctx, t, u.Values)
	}
}

type batchUpdatePartitionInput struct {
	tableOf
	Entries []struct {
		PartitionValueList []string
		PartitionInput     hive.Partition
	}
}

type updateError struct {
	PartitionValueList []string
	ErrorDetail        errorDetail
}

func (h *Handler) batchUpdatePartition(ctx context.Context, c *awsapi.Call, in *batchUpdatePartitionInput) (any, error) {
	t, err := h.findExternal(ctx, in.DatabaseName, in.TableName)
	if err != nil {
		return nil, err
	}
	var out struct {
		Errors []updateError `json:",omitempty"`
	}
	fail := func(values []string, err error) {
		d, _ := detailOf(err)
		out.Errors = append(out.Errors, updateError{values, d})
	}
	var updates []catalog.PartitionUpdate
	named := map[string]bool{}
	for _, e := range in.Entries {
		u, err := updateOf(t, e.PartitionValueList, e.PartitionInput)
		if err != nil {
			fail(e.PartitionValueList, err)
			continue
		}
		// All are judged by what is there before: entries that meet would undo each other.
		from, to := fmt.Sprintf("%q", u.Values), fmt.Sprintf("%q", u.To.Values)
		if named[from] || named[to] {
			return nil, invalid(fmt.Sprintf("Entries name the partition %q twice.", u.Values))
		}
		named[from], named[to] = true, true
		updates = append(updates, u)
	}
	missing, taken, err := h.catalog.UpdatePartitions(ctx, t.Name, updates)
	if err != nil {
		return nil, err
	}
	for _, i := range missing {
		fail(updates[i].Values, errPartitionMissing)
	}
	for _, i := range taken {
		fail(updates[i].Values, errPartitionExists)
	}
	for i, u := range updates {
		if !slices.Contains(missing, i) && !slices.Contains(taken, i) {
			h.moved(ctx, t, u)
		}
	}
	h.log(c, "glue partitions changed", "table", t.Name.String(), "partitions", len(updates)-len(missing)-len(taken))
	return out, nil
}

func (h *Handler) deletePartition(ctx context.Context, c *awsapi.Call, in *partitionsInput) (any, error) {
	t, err := h.findExternal(ctx, in.DatabaseName, in.TableName)
	if err != nil {
		return nil, err
	}
	missing, err := h.catalog.RemovePartitions(ctx, t.Name, in.PartitionValues)
	if err == nil && len(missing) > 0 {
		err = errPartitionMissing
	}
	if err != nil {
		return nil, err
	}
	h.forgetPartition(ctx, t, in.PartitionValues)
	h.log(c, "glue partitions deleted", "table", t.Name.String(), "partitions", 1)
	return nil, nil
}

type batchDeletePartitionInput struct {
	tableOf
	PartitionsToDelete []partitionValues
}

func (h *Handler) batchDeletePartition(ctx context.Context, c *awsapi.Call, in *batchDeletePartitionInput) (any, error) {
	t, err := h.findExternal(ctx, in.DatabaseName, in.TableName)
	if err != nil {
		return nil, err
	}
	values := make([][]string, len(in.PartitionsToDelete))
	for i, p := range in.PartitionsToDelete {
		values[i] = p.Values
	}
	missing, err := h.catalog.RemovePartitions(ctx, t.Name, values...)
	if err != nil {
		return nil, err
	}
	var out partitionErrors
	for i, v := range values {
		if slices.Contains(missing, i) {
			out.add(v, errPartitionMissing)
		} else {
			h.forgetPartition(ctx, t, v)
		}
	}
	h.log(c, "glue partitions deleted", "table", t.Name.String(), "partitions", len(values)-len(missing))
	return out, nil
}
