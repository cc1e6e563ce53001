package glue

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"github.com/tapehouse/tapehouse/internal/awsapi"
	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/hive"
)

// Statistics of columns are what clients write: a document of kindStatistics for
// each table, "TABLE ID", and each partition, "TABLE ID/HASH OF ITS VALUES". Numbers
// keep their text, and decimals their unscaled bytes, so that none is rounded.
const kindStatistics = "glue-statistics"

type columnStatistics struct {
	ColumnName     string
	ColumnType     string
	AnalyzedTime   json.Number // seconds since 1970
	StatisticsData statisticsData
}

// statisticsData has the member of its type, and no other.
type statisticsData struct {
	Type    string
	Boolean *booleanStatistics          `json:"BooleanColumnStatisticsData,omitempty"`
	Date    *valueStatistics            `json:"DateColumnStatisticsData,omitempty"` // instants
	Decimal *rangeStatistics[decimal]   `json:"DecimalColumnStatisticsData,omitempty"`
	Double  *rangeStatistics[anyNumber] `json:"DoubleColumnStatisticsData,omitempty"`
	Long    *valueStatistics            `json:"LongColumnStatisticsData,omitempty"`
	String  *stringStatistics           `json:"StringColumnStatisticsData,omitempty"`
	Binary  *binaryStatistics           `json:"BinaryColumnStatisticsData,omitempty"`
}

type booleanStatistics struct{ NumberOfTrues, NumberOfFalses, NumberOfNulls int64 }

type valueStatistics = rangeStatistics[json.Number]

type rangeStatistics[T any] struct {
	MinimumValue           *T `json:",omitempty"`
	MaximumValue           *T `json:",omitempty"`
	NumberOfNulls          int64
	NumberOfDistinctValues int64
}

// anyNumber is a double as JSON writes it: a number, or "NaN" and "Infinity".
type anyNumber = json.RawMessage

type decimal struct {
	UnscaledValue []byte // big-endian, two's complement
	Scale         int
}

type stringStatistics struct {
	MaximumLength          int64
	AverageLength          anyNumber
	NumberOfNulls          int64
	NumberOfDistinctValues int64
}

type binaryStatistics struct {
	MaximumLength int64
	AverageLength anyNumber
	NumberOfNulls int64
}

// check refuses data of another type than is said, or of several.
func (d *statisticsData) check() error {
	present := map[string]bool{"BOOLEAN": d.Boolean != nil, "DATE": d.Date != nil, "DECIMAL": d.Decimal != nil, "DOUBLE": d.Double != nil,
		"LONG": d.Long != nil, "STRING": d.String != nil, "BINARY": d.Binary != nil}
	n := 0
	for _, p := range present {
		if p {
			n++
		}
	}
	if n != 1 || !present[d.Type] {
		return invalid("StatisticsData of the type " + d.Type + " must have the member of its type, and no other.")
	}
	return nil
}

type statisticsInput struct {
	tableOf
	PartitionValues      []string
	ColumnStatisticsList []columnStatistics
	ColumnNames          []string
	ColumnName           string
}

// statisticsOf finds whose statistics are meant: a table's, or a partition's, which
// must be there. The columns are those of the table.
func (h *Handler) statisticsOf(ctx context.Context, in *statisticsInput, ofPartition bool) (key string, columns []hive.Column, err error) {
	if !ofPartition {
		e, err := h.find(ctx, in.DatabaseName, in.TableName)
		if err != nil {
			return "", nil, err
		}
		return e.id(), columnsOf(e.definition()), nil
	}
	t, err := h.findExternal(ctx, in.DatabaseName, in.TableName)
	if err != nil {
		return "", nil, err
	}
	found, err := h.catalog.FindPartitions(ctx, t.Name, in.PartitionValues)
	if err != nil {
		return "", nil, err
	}
	if found[0] == nil {
		return "", nil, errPartitionMissing
	}
	columns = columnsOf(t.Definition)
	if s := found[0].Storage; s != nil {
		columns = append(columns, s.Columns...)
	}
	return partitionStatistics(t, in.PartitionValues), columns, nil
}

func columnsOf(t hive.Table) []hive.Column {
	if t.Storage == nil {
		return slices.Clone(t.PartitionKeys)
	}
	return append(slices.Clone(t.Storage.Columns), t.PartitionKeys...)
}

// partitionStatistics is the key of a partition's document. The values may be longer
// than a key.
func partitionStatistics(t *catalog.External, values []string) string {
	b, err := json.Marshal(values)
	if err != nil {
		panic("glue: " + err.Error()) // of texts
	}
	sum := sha256.Sum256(b)
	return t.ID + "/" + hex.EncodeToString(sum[:16])
}

type statisticsError struct {
	ColumnStatistics columnStatistics
	Error            errorDetail
}

func updateStatistics(ofPartition bool) func(*Handler, context.Context, *awsapi.Call, *statisticsInput) (any, error) {
	return func(h *Handler, ctx context.Context, c *awsapi.Call, in *statisticsInput) (any, error) {
		key, columns, err := h.statisticsOf(ctx, in, ofPartition)
		if err != nil {
			return nil, err
		}
		var out struct {
			Errors []statisticsError `json:",omitempty"`
		}
		good := map[string]columnStatistics{}
		for _, s := range in.ColumnStatisticsList {
			err := s.StatisticsData.check()
			if !slices.ContainsFunc(columns, func(c hive.Column) bool { return strings.EqualFold(c.Name, s.ColumnName) }) {
				err = notFound("Column " + s.ColumnName + " not found.")
			}
			if err != nil {
				d, _ := detailOf(err)
				out.Errors = append(out.Errors, statisticsError{s, d})
				continue
			}
			good[strings.ToLower(s.ColumnName)] = s
		}
		err = edit(ctx, h, kindStatistics, key, func(all *map[string]columnStatistics) error {
			if *all == nil {
				*all = map[string]columnStatistics{}
			}
			for name, s := range good {
				(*all)[name] = s
			}
			return nil
		}, func(all *map[string]columnStatistics) bool { return len(*all) == 0 })
		return out, err
	}
}

type columnError struct {
	ColumnName string
	Error      errorDetail
}

func getStatistics(ofPartition bool) func(*Handler, context.Context, *awsapi.Call, *statisticsInput) (any, error) {
	return func(h *Handler, ctx context.Context, _ *awsapi.Call, in *statisticsInput) (any, error) {
		key, _, err := h.statisticsOf(ctx, in, ofPartition)
		if err != nil {
			return nil, err
		}
		all, _, err := document[map[string]columnStatistics](ctx, h, kindStatistics, key)
		if err != nil {
			return nil, err
		}
		out := struct {
			ColumnStatisticsList []columnStatistics
			Errors               []columnError `json:",omitempty"`
		}{ColumnStatisticsList: []columnStatistics{}}
		for _, name := range in.ColumnNames {
			if s, ok := all[strings.ToLower(name)]; ok {
				out.ColumnStatisticsList = append(out.ColumnStatisticsList, s)
			} else {
				out.Errors = append(out.Errors, columnError{name, errorDetail{codeNotFound, "Statistics do not exist for the column " + name + "."}})
			}
		}
		return out, nil
	}
}

func deleteStatistics(ofPartition bool) func(*Handler, context.Context, *awsapi.Call, *statisticsInput) (any, error) {
	return func(h *Handler, ctx context.Context, _ *awsapi.Call, in *statisticsInput) (any, error) {
		key, _, err := h.statisticsOf(ctx, in, ofPartition)
		if err != nil {
			return nil, err
		}
		return nil, edit(ctx, h, kindStatistics, key, func(all *map[string]columnStatistics) error {
			name := strings.ToLower(in.ColumnName)
			if _, ok := (*all)[name]; !ok {
				return notFound("Statistics do not exist for the column " + in.ColumnName + ".")
			}
			delete(*all, name)
			return nil
		}, func(all *map[string]columnStatistics) bool { return len(*all) == 0 })
	}
}

// forgetPartition deletes the statistics of a partition that is gone.
func (h *Handler) forgetPartition(ctx context.Context, t *catalog.External, values []string) {
	key := partitionStatistics(t, values)
	_, version, err := document[json.RawMessage](ctx, h, kindStatistics, key)
	if err == nil && version > 0 {
		_, err = h.catalog.PutDocument(context.WithoutCancel(ctx), catalog.DocumentWrite{Kind: kindStatistics, Key: key, IfVersion: catalog.AnyVersion, Delete: true, KeepVersions: 1})
	}
	if err != nil && !errors.Is(err, catalog.ErrNotFound) {
		h.logger.Warn("the statistics of a deleted partition are left", "table", t.Name.String(), "error", err)
	}
}
