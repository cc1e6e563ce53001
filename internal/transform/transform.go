// Package transform changes records on their way to a destination: by a
// function of the user's that is called over HTTP as Data Firehose calls a
// Lambda function, or by one SELECT.
//
//	records ──HTTP.Apply──▶ {invocationId, …, records[{recordId, data}]} ──POST──▶ the function ──▶ {records[{recordId, result, data, metadata}]} ──▶ results
//	records ──SQL.Apply───▶ typed columns ──▶ one small Parquet file ──▶ engine: the SELECT ──▶ documents ──▶ results
//
// Invariants:
//   - Every record has one result, in the order of the records: what an answer
//     forgets, repeats or garbles is a Failed record, never a lost one.
//   - One bad record fails alone. Only a function that fails as a whole fails
//     the records it was called with.
//   - A SQL transform gives the same records the same kinds, documents and codes,
//     whenever and in whatever batches they come; a statement that could not is
//     refused when it is made.
//   - Memory is bounded: by BatchBytesMax, and by the bounds on an answer.
//
// The user's page is docs/transform.md.
package transform

import (
	"context"
	"errors"
	"strings"
	"time"
)

// Record is one record to be transformed. Data is the transform's to read until
// Apply returns.
type Record struct {
	ID        string    // Firehose's record id as the producer was answered; no two of a batch are the same
	ArrivedAt time.Time // UTC
	Data      []byte
}

// Kind is what a transform decided about a record.
type Kind uint8

// The kinds of Result.
const (
	Ok      Kind = iota // deliver Data
	Dropped             // deliver nothing; this is no failure
	Failed              // to the error output, with Code and Message
)

// Result is what became of one record. It is the caller's; Data is Go memory
// that may be shared with other results of the same Apply.
type Result struct {
	Kind Kind
	Data []byte            // Ok
	Keys map[string]string // Ok: partition keys by name; nil if there are none
	// Ok: where the record goes, "" where the transform does not say.
	// Operation is insert, update or delete.
	Database, Table, Operation string
	Code, Message              string // Failed: one of the codes below, and one line for people
	// Attempts counts the calls that were made with the record: attemptsMade
	// of the error output. It is 1 where nothing is retried.
	Attempts int
}

// The codes of Failed results. Those of the Lambda contract are Firehose's own
// words, because error objects are read by tools that know them.
const (
	FunctionError          = "Lambda.FunctionError"          // the call failed, and its retries
	MissingRecordID        = "Lambda.MissingRecordId"        // the answer leaves the record out
	DuplicatedRecordID     = "Lambda.DuplicatedRecordId"     // the answer holds the record twice
	ProcessingFailedStatus = "Lambda.ProcessingFailedStatus" // the function's own verdict
	InvalidReturnFormat    = "Lambda.InvalidReturnFormat"    // the answer, or the record in it, is not what the contract says

	CastError      = "SQL.CastError"      // an expression has no value for the record: a cast, an overflow, a division by zero
	MalformedData  = "SQL.MalformedData"  // the document does not fit the declared columns
	OutputTooLarge = "SQL.OutputTooLarge" // the document that came out is larger than a record may be
)

// Transformer is safe for concurrent use.
type Transformer interface {
	// Apply returns one Result for each record, in the order of records. An
	// error (ctx is done, ErrClosed, the engine is busy) says nothing about any
	// record: the caller tries the same batch again. What the contract knows as
	// a failure is a Failed result for each record concerned, never an error.
	Apply(ctx context.Context, records []Record) ([]Result, error)
	// BatchBytesMax bounds the sum of Data that one Apply takes; the caller
	// cuts batches. A single record may be larger.
	BatchBytesMax() int
	// Close ends what runs and waits for it.
	Close() error
}

var (
	_ Transformer = (*HTTP)(nil)
	_ Transformer = (*SQL)(nil)
)

// SQLPrefix begins a LambdaArn parameter that is a statement.
const SQLPrefix = "sql:"

// Statement is the statement in a processor's LambdaArn parameter; ok is false
// if the parameter is an ARN.
func Statement(lambdaARN string) (statement string, ok bool) {
	return strings.CutPrefix(lambdaARN, SQLPrefix)
}

// ErrClosed is returned by Apply after Close.
var ErrClosed = errors.New("transform is closed")

// ErrOptions is the root of errors about options, an URL or a token file that
// cannot be used.
var ErrOptions = errors.New("transform cannot be used")

// MaxRecordBytes bounds a document: what Firehose takes as a record.
const MaxRecordBytes = 1_024_000

// errDuplicateID is a batch that breaks Record's rule: its answer could not be
// told apart.
var errDuplicateID = errors.New("two records of a batch have one id")
