package transform

import (
	"encoding/base64"
	"fmt"
	"strconv"

	"github.com/google/uuid"

	"github.com/tapehouse/tapehouse/internal/engine"
)

// The Lambda contract, as Data Firehose has it:
//
//	call    {"invocationId": "<uuid>", "deliveryStreamArn": "…", "region": "…",
//	         "records": [{"recordId": "…", "approximateArrivalTimestamp": <ms>, "data": "<base64>"}, …]}
//	answer  {"records": [{"recordId": "…", "result": "Ok|Dropped|ProcessingFailed", "data": "<base64>",
//	         "metadata": {"partitionKeys": {"<key>": "<value>"},
//	                      "otfMetadata": {"destinationDatabaseName": "…", "destinationTableName": "…", "operation": "insert|update|delete"}}}, …]}
//	error   {"errorMessage": "…", "errorType": "…"}

const (
	// callBytesMax bounds a call's body and an answer's: Lambda's limit on a
	// synchronous invocation.
	callBytesMax = 6 << 20
	// keysMax bounds the partition keys of a record: Firehose's limit.
	keysMax = 50
	// shownMax bounds what a message quotes of an answer.
	shownMax = 200
)

// callSpace names invocation ids.
var callSpace = uuid.MustParse("8f0f8a36-0c0b-4b5e-9d3a-5f1f6a3d2e11")

// call is one invocation's body.
type call struct {
	stream, region string
}

// recordBytes bounds what a record takes of the body.
func recordBytes(r *Record) int {
	const members = len(`{"recordId":"","approximateArrivalTimestamp":-9223372036854775808,"data":""},`)
	return members + 6*len(r.ID) + base64.StdEncoding.EncodedLen(len(r.Data))
}

// headBytes bounds what the body takes without records.
func (c call) headBytes() int {
	const members = len(`{"invocationId":"00000000-0000-0000-0000-000000000000","deliveryStreamArn":"","region":"","records":[]}`)
	return members + 6*(len(c.stream)+len(c.region))
}

// cut is how many of the records, which are not none, one call takes; 0 if the
// first alone is too much.
func (c call) cut(records []Record) int {
	size := c.headBytes()
	for i := range records {
		if size += recordBytes(&records[i]); size > callBytesMax {
			return i
		}
	}
	return len(records)
}

// body is the call with the records. The same records make the same
// invocationId, so that a function with effects can recognise a call that is
// made again after a crash.
func (c call) body(records []Record) []byte {
	size := c.headBytes()
	ids := make([]byte, 0, 64*len(records))
	for i := range records {
		size += recordBytes(&records[i])
		ids = append(append(ids, records[i].ID...), '\n')
	}
	b := make([]byte, 0, size)
	b = append(b, `{"invocationId":"`...)
	b = append(b, uuid.NewSHA1(callSpace, append(ids, c.stream...)).String()...)
	b = append(b, `","deliveryStreamArn":`...)
	b = engine.AppendJSONString(b, c.stream)
	b = append(b, `,"region":`...)
	b = engine.AppendJSONString(b, c.region)
	b = append(b, `,"records":[`...)
	for i := range records {
		r := &records[i]
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"recordId":`...)
		b = engine.AppendJSONString(b, r.ID)
		b = append(b, `,"approximateArrivalTimestamp":`...)
		b = strconv.AppendInt(b, r.ArrivedAt.UnixMilli(), 10)
		b = append(b, `,"data":"`...)
		b = base64.StdEncoding.AppendEncode(b, r.Data)
		b = append(b, `"}`...)
	}
	return append(b, `]}`...)
}

// answer reads one answer.
type answer struct {
	records []Record
	results []Result // of records
	seen    []bool
	index   map[string]int // of records, once they come in another order
	next    int            // the record that is expected
	arena   []byte         // the results' data
	strays  int            // elements that belong to no record of the call
}

// errorBody is what a function that failed answers.
type errorBody struct{ message, kind string }

func (e errorBody) String() string {
	if e.kind != "" {
		return shown(e.kind + ": " + e.message)
	}
	return shown(e.message)
}

// shown is s as a message quotes it.
func shown(s string) string {
	if len(s) > shownMax {
		return fmt.Sprintf("%q…", s[:shownMax])
	}
	return fmt.Sprintf("%q", s)
}

// decodeAnswer gives each of the records its result, in results. failure is
// what the function says of itself if the answer is an error and no records;
// results mean nothing then. strays counts elements that name no record.
func decodeAnswer(body []byte, records []Record, results []Result) (strays int, failure *errorBody) {
	a := &answer{records: records, results: results, seen: make([]bool, len(records))}
	var e errorBody
	found, isError := false, false
	s := &scanner{b: body}
	s.space()
	ok := s.object(1, func(name []byte) bool {
		switch string(name) {
		case "records":
			if found || s.peek() != '[' {
				return false
			}
			found = true
			return s.array(2, func() bool { return a.element(s) })
		case "errorMessage", "errorType":
			v, ok := s.value(2)
			if ok && v[0] == '"' {
				isError = true
				if string(name) == "errorType" {
					e.kind = unquote(v)
				} else {
					e.message = unquote(v)
				}
			}
			return ok
		}
		return s.skip(2)
	})
	ok = ok && s.end()
	if ok && isError && !found {
		return 0, &e
	}
	if !ok || !found {
		message := "the answer lacks the array records"
		if !ok {
			message = fmt.Sprintf("the answer is not the contract's JSON: it goes wrong at byte %d of %d", s.pos, len(body))
		}
		for i := range results {
			results[i] = Result{Kind: Failed, Code: InvalidReturnFormat, Message: message}
		}
		return 0, nil
	}
	for i := range results {
		if !a.seen[i] {
			results[i] = Result{Kind: Failed, Code: MissingRecordID, Message: "the answer leaves the record out"}
		}
	}
	return a.strays, nil
}

// element reads one record of the answer. It returns false only for what is no
// JSON; what breaks the contract fails its record.
func (a *answer) element(s *scanner) bool {
	if s.peek() != '{' {
		a.strays++
		return s.skip(3)
	}
	var id, result, data, metadata []byte
	ok := s.object(3, func(name []byte) (ok bool) {
		switch string(name) {
		case "recordId":
			id, ok = s.value(4)
		case "result":
			result, ok = s.value(4)
		case "data":
			data, ok = s.value(4)
		case "metadata":
			metadata, ok = s.value(4)
		default:
			ok = s.skip(4)
		}
		return ok
	})
	if !ok {
		return false
	}
	i := a.find(id)
	if i < 0 {
		a.strays++
		return true
	}
	r := &a.results[i]
	if a.seen[i] {
		*r = Result{Kind: Failed, Code: DuplicatedRecordID, Message: "the answer holds the record more than once"}
		return true
	}
	a.seen[i] = true
	*r = a.result(s, result, data, metadata)
	return true
}

// find is the record that id, a JSON value or nil, names, or -1.
func (a *answer) find(id []byte) int {
	if len(id) == 0 || id[0] != '"' {
		return -1
	}
	name := id[1 : len(id)-1]
	if !plain(id) {
		name = []byte(unquote(id))
	}
	if a.next < len(a.records) && string(name) == a.records[a.next].ID {
		a.next++
		return a.next - 1
	}
	if a.index == nil {
		a.index = make(map[string]int, len(a.records))
		for i := range a.records {
			a.index[a.records[i].ID] = i
		}
	}
	i, ok := a.index[string(name)]
	if !ok {
		return -1
	}
	a.next = i + 1
	return i
}

func invalid(format string, args ...any) Result {
	return Result{Kind: Failed, Code: InvalidReturnFormat, Message: fmt.Sprintf(format, args...)}
}

// result reads the values of one record, nil where they are absent.
func (a *answer) result(s *scanner, result, data, metadata []byte) Result {
	if len(result) == 0 || result[0] != '"' {
		return invalid("result is missing or no string: it must be Ok, Dropped or ProcessingFailed")
	}
	switch word := unquote(result); word {
	case "Ok":
	case "Dropped":
		return Result{Kind: Dropped}
	case "ProcessingFailed":
		return Result{Kind: Failed, Code: ProcessingFailedStatus, Message: "the function's result for the record is ProcessingFailed"}
	default:
		return invalid("result is %s: it must be Ok, Dropped or ProcessingFailed", shown(word))
	}
	if len(data) == 0 || data[0] != '"' {
		return invalid("result is Ok, and data is missing or no string")
	}
	text := data[1 : len(data)-1]
	if !plain(data) {
		text = []byte(unquote(data))
	}
	if a.arena == nil {
		a.arena = make([]byte, 0, base64.StdEncoding.DecodedLen(len(s.b)))
	}
	from := len(a.arena)
	b, err := base64.StdEncoding.AppendDecode(a.arena, text)
	if err != nil {
		return invalid("data is not base64: %v", err)
	}
	a.arena = b
	r := Result{Kind: Ok, Data: b[from:len(b):len(b)]}
	if len(metadata) == 0 || metadata[0] == 'n' {
		return r
	}
	if problem := r.readMetadata(metadata); problem != "" {
		return invalid("%s", problem)
	}
	return r
}

// readMetadata reads metadata, which is JSON, or says what is wrong with it.
func (r *Result) readMetadata(metadata []byte) (problem string) {
	s := &scanner{b: metadata}
	if s.peek() != '{' {
		return "metadata is no object"
	}
	s.object(1, func(name []byte) bool {
		section := string(name)
		switch {
		case section != "partitionKeys" && section != "otfMetadata", s.peek() == 'n':
			return s.skip(2)
		case s.peek() != '{':
			problem = "metadata." + section + " is no object"
			return false
		}
		return s.object(2, func(name []byte) bool {
			key := string(name)
			v, _ := s.value(3)
			problem = r.set(section, key, v)
			return problem == ""
		})
	})
	return problem
}

// set takes one value of the metadata.
func (r *Result) set(section, key string, v []byte) (problem string) {
	if section == "partitionKeys" {
		if v[0] != '"' {
			return fmt.Sprintf("metadata.partitionKeys.%s must be a string", key)
		}
		if r.Keys == nil {
			r.Keys = map[string]string{}
		}
		r.Keys[key] = unquote(v)
		if len(r.Keys) > keysMax {
			return fmt.Sprintf("metadata.partitionKeys has more than %d keys", keysMax)
		}
		return ""
	}
	to := map[string]*string{"destinationDatabaseName": &r.Database, "destinationTableName": &r.Table, "operation": &r.Operation}[key]
	switch {
	case to == nil:
		return ""
	case v[0] == 'n':
		*to = ""
		return ""
	case v[0] != '"':
		return fmt.Sprintf("metadata.otfMetadata.%s must be a string", key)
	}
	*to = unquote(v)
	if key == "operation" && !operations[*to] {
		return fmt.Sprintf("metadata.otfMetadata.operation is %s: it must be insert, update or delete", shown(*to))
	}
	return ""
}

// operations are the values of Result.Operation; "" leaves it to the stream.
var operations = map[string]bool{"": true, "insert": true, "update": true, "delete": true}
