package delivery

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/prefix"
	"github.com/tapehouse/tapehouse/internal/serde"
)

// Transform is a function of the user's over records: a service, or a query.
type Transform interface {
	// Apply returns a result for each record, in their order. An error says
	// nothing about any record.
	Apply(ctx context.Context, records []TransformRecord) ([]TransformResult, error)
	// BatchBytesMax bounds the sum of Data in one Apply.
	BatchBytesMax() int
	// Local is Processor's.
	Local() bool
	Close() error
}

// TransformRecord is a record to be transformed.
type TransformRecord struct {
	ID        string // unique in the stream; the producer's RecordId where the record was not taken apart
	ArrivedAt time.Time
	Data      []byte
}

// TransformResult is what became of one.
type TransformResult struct {
	Kind      OutcomeKind
	Data      []byte
	Keys      map[string]string // partition keys
	Table     catalog.Name      // zero: not named
	Operation string            // insert, update, delete; "": insert
	Code      string            // of a failure
	Message   string
}

// Extract finds in a record what decides where it goes.
type Extract func(record []byte) (Extracted, error)

// Extracted are partition keys, or a route to a table.
type Extracted struct {
	Keys      map[string]string
	Table     catalog.Name
	Operation string
}

// Pipeline is the Processor that Firehose's processors make, in Firehose's
// order: each step may be left out.
type Pipeline struct {
	Gunzip   bool // a record is a gzip file
	Messages bool // a record is an envelope of CloudWatch Logs: its events' messages go on
	Split    *Split
	Function Transform
	Extract  Extract
}

// Split takes a record apart: at a delimiter, or, where it is empty, into the
// JSON documents that stand one after the other.
type Split struct{ Delimiter []byte }

// Bounds of what one record may become.
const (
	inflatedBytesMax = 16 << 20
	piecesMax        = 100_000
	// processBytesMax bounds what the records of one Process become before a
	// function sees them: what would exceed it waits for the next.
	processBytesMax = 32 << 20
)

// The codes of records that a step could not handle.
const (
	codeGunzip    = "Decompression.InvalidData"
	codeMessages  = "CloudWatchLogProcessing.InvalidData"
	codeSplit     = "RecordDeAggregation.InvalidData"
	codeExtract   = "DynamicPartitioning.MetadataExtractionFailed"
	codeOperation = "Iceberg.OperationNotSupported"
)

// piece is a record, or a part of one, on its way through the steps.
type piece struct {
	record int
	id     string
	data   []byte
}

// Process implements Processor.
func (p *Pipeline) Process(ctx context.Context, records []SourceRecord) ([][]Outcome, error) {
	out := make([][]Outcome, len(records))
	var pieces []piece
	size := 0
	for i := range records {
		if size > processBytesMax {
			records, out = records[:i], out[:i]
			break
		}
		parts, err := p.parts(records[i].Data)
		var bad *stepError
		switch {
		case errors.As(err, &bad):
			out[i] = []Outcome{{Kind: Failed, Code: bad.code, Message: bad.Error()}}
			continue
		case len(parts) == 0: // nothing in it, or a control message
			out[i] = []Outcome{{Kind: Dropped}}
			continue
		}
		id := records[i].ID.String()
		for k, data := range parts {
			size += len(data)
			x := piece{i, id, data}
			if len(parts) > 1 {
				x.id = fmt.Sprintf("%s.%d", id, k)
			}
			pieces = append(pieces, x)
		}
	}
	if p.Function == nil {
		for _, x := range pieces {
			out[x.record] = append(out[x.record], p.place(TransformResult{Data: x.data}))
		}
		return out, nil
	}
	return out, p.transform(ctx, records, pieces, out)
}

// transform gives the pieces to the function in batches that it takes.
func (p *Pipeline) transform(ctx context.Context, records []SourceRecord, pieces []piece, out [][]Outcome) error {
	for len(pieces) > 0 {
		n, size := 0, 0
		var batch []TransformRecord
		for n < len(pieces) && (n == 0 || size+len(pieces[n].data) <= p.Function.BatchBytesMax()) {
			x := pieces[n]
			batch = append(batch, TransformRecord{ID: x.id, ArrivedAt: time.UnixMicro(records[x.record].ArrivedAt).UTC(), Data: x.data})
			size += len(x.data)
			n++
		}
		results, err := p.Function.Apply(ctx, batch)
		if err != nil {
			return err
		}
		if len(results) != n {
			return fmt.Errorf("the transform answered %d of %d records", len(results), n)
		}
		for i := range results {
			r := pieces[i].record
			out[r] = append(out[r], p.place(results[i]))
		}
		pieces = pieces[n:]
	}
	return nil
}

// place finds where a record goes.
func (p *Pipeline) place(r TransformResult) Outcome {
	o := Outcome{Kind: r.Kind, Data: r.Data, Table: r.Table, Code: r.Code, Message: r.Message}
	if r.Kind != Processed {
		return o
	}
	o.Keys = make(map[string]string, len(r.Keys))
	for k, v := range r.Keys {
		o.Keys[partitionKey(prefix.FromLambda, k)] = v
	}
	operation := r.Operation
	if p.Extract != nil {
		x, err := p.Extract(r.Data)
		if err != nil {
			return Outcome{Kind: Failed, Code: codeExtract, Message: err.Error()}
		}
		if x.Table != (catalog.Name{}) {
			o.Table = x.Table
		}
		if x.Operation != "" {
			operation = x.Operation
		}
		for k, v := range x.Keys {
			o.Keys[partitionKey(prefix.FromQuery, k)] = v
		}
	}
	if _, ok := operations[operation]; !ok {
		return Outcome{Kind: Failed, Code: codeOperation, Message: fmt.Sprintf("The operation %q is not known: want insert, update or delete.", operation)}
	}
	o.Operation = operation
	return o
}

// partitionKey is a partition key among an outcome's: two steps may give keys
// of one name.
func partitionKey(from prefix.Source, name string) string { return string(from) + ":" + name }

// stepError is what a step makes of a record that it cannot handle.
type stepError struct {
	code string
	err  error
}

func (e *stepError) Error() string { return e.err.Error() }

// parts takes a record apart. The error is a *stepError.
func (p *Pipeline) parts(data []byte) ([][]byte, error) {
	if p.Gunzip {
		z, err := gzip.NewReader(bytes.NewReader(data))
		if err != nil {
			return nil, &stepError{codeGunzip, fmt.Errorf("the record is not gzip: %w", err)}
		}
		if data, err = io.ReadAll(io.LimitReader(z, inflatedBytesMax+1)); err != nil {
			return nil, &stepError{codeGunzip, fmt.Errorf("decompress the record: %w", err)}
		}
		if len(data) > inflatedBytesMax {
			return nil, &stepError{codeGunzip, fmt.Errorf("the record is larger than %d bytes when decompressed", inflatedBytesMax)}
		}
	}
	parts := [][]byte{data}
	if p.Messages {
		var err error
		if parts, err = messages(data); err != nil {
			return nil, &stepError{codeMessages, err}
		}
	}
	if p.Split == nil {
		return parts, nil
	}
	var out [][]byte
	for _, part := range parts {
		pieces, err := p.Split.apply(part)
		if err != nil {
			return nil, &stepError{codeSplit, err}
		}
		if out = append(out, pieces...); len(out) > piecesMax {
			return nil, &stepError{codeSplit, fmt.Errorf("the record holds more than %d records", piecesMax)}
		}
	}
	return out, nil
}

func (s *Split) apply(data []byte) ([][]byte, error) {
	if len(s.Delimiter) > 0 {
		var out [][]byte
		for part := range bytes.SplitSeq(data, s.Delimiter) {
			if len(part) > 0 {
				out = append(out, part)
			}
			if len(out) > piecesMax {
				break
			}
		}
		return out, nil
	}
	return serde.Documents(data)
}

// messages takes the messages out of an envelope of CloudWatch Logs; a control
// message has none.
func messages(data []byte) ([][]byte, error) {
	var envelope struct {
		MessageType string `json:"messageType"`
		LogEvents   []struct {
			Message *string `json:"message"`
		} `json:"logEvents"`
	}
	if err := json.Unmarshal(data, &envelope); err != nil {
		return nil, fmt.Errorf("the record is no envelope of CloudWatch Logs: %w", err)
	}
	switch envelope.MessageType {
	case "CONTROL_MESSAGE":
		return nil, nil
	case "DATA_MESSAGE":
	default:
		return nil, fmt.Errorf("the record is no envelope of CloudWatch Logs: messageType is %q", envelope.MessageType)
	}
	var out [][]byte
	for i, e := range envelope.LogEvents {
		if e.Message == nil {
			return nil, fmt.Errorf("event %d of the envelope has no message", i+1)
		}
		out = append(out, []byte(*e.Message))
	}
	return out, nil
}

// BatchBytesMax implements Processor.
func (p *Pipeline) BatchBytesMax() int {
	if p.Function != nil {
		return p.Function.BatchBytesMax()
	}
	return 4 << 20
}

// Local implements Processor.
func (p *Pipeline) Local() bool { return p.Function == nil || p.Function.Local() }

// Close implements Processor.
func (p *Pipeline) Close() error {
	if p.Function == nil {
		return nil
	}
	return p.Function.Close()
}
