package firehose

import (
	"encoding/base64"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// processorsMax is how many processors a stream may have.
const processorsMax = 5

// settingsOf are the parameters that a processor knows.
var settingsOf = map[string][]string{
	"Lambda":                  {"LambdaArn", "NumberOfRetries", "RoleArn", "BufferSizeInMBs", "BufferIntervalInSeconds"},
	"MetadataExtraction":      {"MetadataExtractionQuery", "JsonParsingEngine"},
	"RecordDeAggregation":     {"SubRecordType", "Delimiter"},
	"AppendDelimiterToRecord": {"Delimiter"},
	"Decompression":           {"CompressionFormat"},
	"CloudWatchLogProcessing": {"DataMessageExtraction"},
}

// Steps is what a Processing comes to, with AWS's defaults. The steps run in
// the order of the fields, whatever the order of the processors.
type Steps struct {
	Gunzip             bool           // each record is a gzip file
	CloudWatchMessages bool           // each record is an envelope of CloudWatch Logs, of which the messages are taken
	DeAggregation      *DeAggregation // a record holds several
	Lambda             *LambdaStep
	Query              string // of MetadataExtraction: a jq program, "" for none
	Delimiter          []byte // appended to each record; nil for none
}

// DeAggregation says how a record is taken apart.
type DeAggregation struct {
	Delimiter []byte // nil: JSON documents, one after the other
}

// LambdaStep is a transformation: by a function, or by SQL.
type LambdaStep struct {
	ARN            string // of the function; "" with SQL
	SQL            string // what follows "sql:"; "" with a function
	Retries        int    // of a function that fails: 3
	BufferBytes    int64  // 1 MiB
	BufferInterval time.Duration
}

// sqlScheme begins a LambdaArn that is a query instead.
const sqlScheme = "sql:"

var lambdaRE = regexp.MustCompile(`^arn:[^:]+:lambda:[a-z0-9-]+:\d{12}:function:[A-Za-z0-9_-]+(:(\$LATEST|[A-Za-z0-9_-]+))?$`)

// Steps reads p. The error is an InvalidArgumentException for the client; there
// is none for a Processing that was accepted. A nil p, and one that is not
// enabled, has no steps.
func (p *Processing) Steps() (Steps, error) {
	var s Steps
	if !p.On() {
		return s, nil
	}
	if n := len(p.Processors); n < 1 || n > processorsMax {
		return s, invalid("A maximum of 5 and a minimum of 1 processor needs to be supplied when processing is enabled.")
	}
	seen := map[string]bool{}
	for i := range p.Processors {
		processor := &p.Processors[i]
		if seen[processor.Type] {
			return s, invalid("Cannot have more than 1 " + processor.Type + " processor.")
		}
		seen[processor.Type] = true
		settings, err := processor.settings()
		if err != nil {
			return s, err
		}
		if err := s.add(processor.Type, settings); err != nil {
			return s, err
		}
	}
	if seen["CloudWatchLogProcessing"] && !seen["Decompression"] {
		return s, invalid("CloudWatchLogProcessingProcessor can only be enabled with DecompressionProcessor")
	}
	return s, nil
}

// settings returns the parameters by name.
func (p *Processor) settings() (map[string]string, error) {
	out := map[string]string{}
	for _, a := range p.Parameters {
		if !slices.Contains(settingsOf[p.Type], a.Name) {
			return nil, invalid("The parameter " + a.Name + " is not one of the processor " + p.Type + ": it takes " + strings.Join(settingsOf[p.Type], ", ") + ".")
		}
		if _, ok := out[a.Name]; ok {
			return nil, invalid("The parameter " + a.Name + " of the processor " + p.Type + " is given twice.")
		}
		out[a.Name] = a.Value
	}
	return out, nil
}

func (s *Steps) add(kind string, settings map[string]string) error {
	switch kind {
	case "Lambda":
		return s.addLambda(settings)
	case "MetadataExtraction":
		if settings["JsonParsingEngine"] != "JQ-1.6" {
			return invalid("MetaDataExtraction JSON Parsing Engine has to be one of JQ-1.6")
		}
		if s.Query = settings["MetadataExtractionQuery"]; s.Query == "" {
			return invalid("MetadataExtractionQuery is required when MetadataExtraction processor is used.")
		}
	case "RecordDeAggregation":
		return s.addDeAggregation(settings)
	case "AppendDelimiterToRecord":
		s.Delimiter = []byte{'\n'}
		if d, ok := settings["Delimiter"]; ok {
			s.Delimiter = []byte(unescape(d))
		}
	case "Decompression":
		if settings["CompressionFormat"] != "GZIP" {
			return invalid("The CompressionFormat of the Decompression processor has to be GZIP.")
		}
		s.Gunzip = true
	case "CloudWatchLogProcessing":
		extract, err := strconv.ParseBool(strings.ToLower(settings["DataMessageExtraction"]))
		if err != nil {
			return invalid("Invalid parameter value for DataMessageExtraction. Allowed values are True and False.")
		}
		s.CloudWatchMessages = extract
	}
	return nil
}

func (s *Steps) addLambda(settings map[string]string) error {
	step := &LambdaStep{ARN: settings["LambdaArn"], Retries: 3, BufferBytes: 1 << 20, BufferInterval: time.Minute}
	sql, isSQL := strings.CutPrefix(step.ARN, sqlScheme)
	switch {
	case step.ARN == "":
		return invalid("LambdaArn is required when Lambda processor is used.")
	case isSQL:
		if step.ARN, step.SQL = "", strings.TrimSpace(sql); step.SQL == "" {
			return invalid("LambdaArn holds no query after sql: write sql:SELECT …")
		}
	case !lambdaRE.MatchString(step.ARN):
		return invalid("LambdaArn must be the ARN of a Lambda function, which the section transforms of the configuration gives a URL, or sql:SELECT …")
	}
	if text, ok := settings["NumberOfRetries"]; ok {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 || n > 300 {
			return invalid("Number of retries for lambda must be between 0 and 300.")
		}
		step.Retries = n
	}
	size, hasSize := settings["BufferSizeInMBs"]
	interval, hasInterval := settings["BufferIntervalInSeconds"]
	if hasSize != hasInterval {
		return invalid("Both BufferSizeInMBs and BufferIntervalInSeconds are required to configure buffering for lambda processor.")
	}
	if hasSize {
		mib, err := strconv.ParseFloat(size, 64)
		if err != nil || !(mib >= 0.2 && mib <= 3) {
			return invalid("BufferSizeInMBs for lambda processor must be between 0.2 and 3.")
		}
		step.BufferBytes = int64(math.Round(mib * (1 << 20)))
		n, err := strconv.Atoi(interval)
		if err != nil || n < 0 || n > 900 {
			return invalid("BufferIntervalInSeconds for lambda processor must be between 0 and 900.")
		}
		step.BufferInterval = time.Duration(n) * time.Second
	}
	s.Lambda = step
	return nil
}

func (s *Steps) addDeAggregation(settings map[string]string) error {
	text, has := settings["Delimiter"]
	switch settings["SubRecordType"] {
	case "JSON":
		if has {
			return invalid("Delimiter should not be present for JSON")
		}
		s.DeAggregation = &DeAggregation{}
	case "DELIMITED":
		if !has {
			return invalid("Delimiter should be present for DELIMITED")
		}
		delimiter, err := base64.StdEncoding.DecodeString(text)
		if err != nil || len(delimiter) == 0 {
			return invalid("The Delimiter of the RecordDeAggregation processor must be base64-encoded.")
		}
		s.DeAggregation = &DeAggregation{Delimiter: []byte(unescape(string(delimiter)))}
	default:
		return invalid("SubRecordType has to be one of JSON, DELIMITED")
	}
	return nil
}

// unescape reads the escapes that a delimiter, which may hold no line break,
// is written with: \n is what consoles and templates give for a new line.
var escapes = strings.NewReplacer(`\\`, `\`, `\n`, "\n", `\r`, "\r", `\t`, "\t")

func unescape(s string) string { return escapes.Replace(s) }
