package external

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/tapehouse/tapehouse/internal/hive"
	"github.com/tapehouse/tapehouse/internal/serde"
)

// kind is how the bytes of a file are rows.
type kind uint8

const (
	parquet   kind = iota + 1
	delimited      // LazySimpleSerDe: lines, fields, an escape
	quoted         // OpenCSVSerde: fields may stand in quotes
	documents      // JSON: one document a line, or an array
)

// format is a SerDe with its parameters.
type format struct {
	kind kind

	delimiter byte
	escape    byte // 0: none
	quote     byte // of quoted; 0: none
	null      string
	hasNull   bool
	headers   int // lines to be passed over
	text      serde.Text
	json      serde.Deserializer
	nullRows  bool     // of documents that are malformed
	columns   []string // of texts: the names, in the order of the file's fields
}

// fingerprint is everything that staged rows depend on.
func (f *format) fingerprint() string {
	out := fmt.Sprintf("%d %d %d %d %q %t %d %q %t %t %t %q", f.kind, f.delimiter, f.escape, f.quote, f.null, f.hasNull, f.headers,
		f.text.TimestampFormats, f.text.Epochs, f.text.OverflowNull, f.nullRows, f.columns)
	if o := f.json.OpenX; o != nil {
		out += fmt.Sprintf(" openx %t %t %q", o.ConvertDotsInJSONKeysToUnderscores, o.CaseSensitive, sortedPairs(o.ColumnToJSONKeyMappings))
	}
	if h := f.json.Hive; h != nil {
		out += fmt.Sprintf(" hive %q", h.TimestampFormats)
	}
	return out
}

// parameters looks keys up without regard to case: the SerDe's own first, then
// the partition's, the storage's and the table's.
type parameters []map[string]string

func (p parameters) get(key string) (string, bool) {
	for _, m := range p {
		if v, ok := m[key]; ok {
			return v, true
		}
		for k, v := range m {
			if strings.EqualFold(k, key) {
				return v, true
			}
		}
	}
	return "", false
}

func (p parameters) flag(key string) (bool, error) {
	v, ok := p.get(key)
	if !ok {
		return false, nil
	}
	b, err := strconv.ParseBool(strings.ToLower(strings.TrimSpace(v)))
	if err != nil {
		return false, fmt.Errorf("%s = %q: want true or false", key, v)
	}
	return b, nil
}

func (p parameters) count(key string) (int, error) {
	v, ok := p.get(key)
	if !ok || strings.TrimSpace(v) == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(strings.TrimSpace(v))
	if err != nil || n < 0 || n > 1_000_000 {
		return 0, fmt.Errorf("%s = %q: want a number from 0 to 1,000,000", key, v)
	}
	return n, nil
}

// format reads what a storage descriptor says of the files' form; partition are
// the parameters of the partition whose it is, if it is one's.
func (t *Table) format(s *hive.Storage, partition map[string]string) (*format, error) {
	var own map[string]string
	library := ""
	if s.Serde != nil {
		own, library = s.Serde.Parameters, s.Serde.Library
	}
	p := parameters{own, partition, s.Parameters, t.definition.Parameters}
	f := &format{}
	var err error
	if f.kind, err = kindOf(library, s.InputFormat, p); err == nil {
		switch f.kind {
		case delimited:
			err = f.readDelimited(p)
		case quoted:
			err = f.readQuoted(p)
		case documents:
			err = f.readDocuments(p, library)
		}
	}
	if err == nil && (f.kind == delimited || f.kind == quoted) {
		err = f.readText(p)
		columns := s.Columns
		if len(columns) == 0 && t.definition.Storage != nil {
			columns = t.definition.Storage.Columns
		}
		for _, c := range columns {
			f.columns = append(f.columns, strings.ToLower(c.Name))
		}
		for _, c := range t.Columns {
			if err == nil && c.Type.Kind >= serde.Array {
				err = fmt.Errorf("column %q of type %s: declare it as string", c.Name, c.Type)
			}
		}
	}
	if err != nil {
		return nil, fail(ErrUnsupported, "docs/external-tables.md says what is supported", "external table %s: %v", t.Name, err)
	}
	return f, nil
}

// formatNames are what people call the input formats and SerDes that are not read.
var formatNames = []struct{ part, name string }{
	{"orc", "ORC"}, {"avro", "Avro"}, {"rcfile", "RCFile"}, {"columnarserde", "RCFile"}, {"sequencefile", "SequenceFile"}, {"symlink", "a list of symbolic links"}, {"ion", "Amazon Ion"},
	{"regexserde", "the RegexSerDe"}, {"grok", "the GrokSerDe"}, {"cloudtrail", "the CloudTrailSerDe"}, {"multidelimit", "the MultiDelimitSerDe"}, {"xml", "XML"},
	{"hudi", "Hudi"}, {"delta", "Delta Lake"}, {"iceberg", "Iceberg"}, {"lzo", "LZO"},
}

func unread(class string) error {
	lower := strings.ToLower(class)
	for _, n := range formatNames {
		if strings.Contains(lower, n.part) {
			return fmt.Errorf("%s (%s) is not supported: write Parquet, CSV or JSON", n.name, class)
		}
	}
	return fmt.Errorf("%q is not supported: write Parquet, CSV or JSON", class)
}

// kindOf chooses by the SerDe; where there is none, by the input format or
// what a crawler noted.
func kindOf(library, input string, p parameters) (kind, error) {
	switch input {
	case "", hive.TextInput, hive.ParquetInput, "parquet.hive.DeprecatedParquetInputFormat", "org.apache.hadoop.mapreduce.lib.input.TextInputFormat":
	default:
		return 0, unread(input)
	}
	switch library {
	case hive.ParquetSerde, "parquet.hive.serde.ParquetHiveSerDe":
		return parquet, nil
	case hive.LazySerde:
		return delimited, nil
	case hive.CSVSerde, "com.bizo.hive.serde.csv.CSVSerde":
		return quoted, nil
	case hive.OpenXSerde, hive.HiveJSONSerde, hive.HiveJSONSerde2:
		return documents, nil
	case "":
	default:
		return 0, unread(library)
	}
	classification, _ := p.get(hive.ParamClassification)
	switch c := strings.ToLower(classification); {
	case c == "parquet" || c == "" && input == hive.ParquetInput:
		return parquet, nil
	case c == "csv" || c == "tsv" || c == "" && input != "":
		return delimited, nil
	case c == "json":
		return documents, nil
	case c != "":
		return 0, unread(classification)
	}
	return 0, fmt.Errorf("it has neither a SerDe nor an input format nor the parameter classification")
}

// readText reads the parameters that all texts share.
func (f *format) readText(p parameters) (err error) {
	if f.headers, err = p.count(hive.ParamSkipHeader); err != nil {
		return err
	}
	if n, err := p.count("skip.footer.line.count"); err != nil || n > 0 {
		return fmt.Errorf("skip.footer.line.count is not supported: cut the last lines off the files")
	}
	if v, ok := p.get("line.delim"); ok && v != "\n" && v != "10" && v != `\n` {
		return fmt.Errorf("line.delim = %q is not supported: want \\n", v)
	}
	for _, key := range []string{"serialization.encoding", "encoding", "store.charset", "retrieve.charset"} {
		if v, ok := p.get(key); ok && !strings.EqualFold(strings.ReplaceAll(v, "-", ""), "utf8") && !strings.EqualFold(v, "us-ascii") {
			return fmt.Errorf("%s = %q is not supported: convert the files to UTF-8", key, v)
		}
	}
	if v, ok := p.get("timestamp.formats"); ok {
		f.text.TimestampFormats = formatsOf(v)
		if _, err := serde.NewTextConverter([]serde.Column{{Name: "x", Type: &serde.Type{Kind: serde.Timestamp}}}, f.text); err != nil {
			return fmt.Errorf("timestamp.formats: %w", err)
		}
	}
	if v, ok := p.get("numeric_overflow_handling"); ok {
		switch strings.ToLower(v) {
		case "set_to_null":
			f.text.OverflowNull = true
		case "error", "disabled":
		default:
			return fmt.Errorf("numeric_overflow_handling = %q: want error or set_to_null", v)
		}
	}
	return nil
}

// formatsOf are Joda patterns that a comma parts.
func formatsOf(v string) []string {
	var out []string
	for s := range strings.SplitSeq(v, ",") {
		if s = strings.TrimSpace(s); s != "" {
			out = append(out, s)
		}
	}
	return out
}

func (f *format) readDelimited(p parameters) (err error) {
	f.delimiter, f.null, f.hasNull = 1, `\N`, true
	for _, key := range []string{"serialization.format", "field.delim"} { // the last that is there
		if v, ok := p.get(key); ok {
			if f.delimiter, err = character(key, v); err != nil {
				return err
			}
		}
	}
	if v, ok := p.get("escape.delim"); ok {
		if f.escape, err = character("escape.delim", v); err != nil {
			return err
		}
	}
	if v, ok := p.get("quote.delim"); ok {
		return fmt.Errorf("quote.delim = %q is not supported by LazySimpleSerDe: use OpenCSVSerde", v)
	}
	if v, ok := p.get("serialization.null.format"); ok {
		f.null = v
	}
	for _, key := range []string{"serialization.last.column.takes.rest", "serialization.escape.crlf"} {
		if on, err := p.flag(key); err != nil || on {
			return fmt.Errorf("%s is not supported", key)
		}
	}
	if f.escape == f.delimiter {
		return fmt.Errorf("escape.delim and field.delim are the same character")
	}
	return nil
}

func (f *format) readQuoted(p parameters) error {
	f.delimiter, f.quote, f.escape, f.text.Epochs = ',', '"', '\\', true
	for key, at := range map[string]*byte{"separatorChar": &f.delimiter, "quoteChar": &f.quote, "escapeChar": &f.escape} {
		v, ok := p.get(key)
		if !ok {
			continue
		}
		c, err := character(key, v)
		if err != nil {
			return err
		}
		*at = c
	}
	if f.delimiter == f.quote || f.delimiter == f.escape {
		return fmt.Errorf("separatorChar is also the quoteChar or the escapeChar")
	}
	return nil
}

// escapes are the spellings of characters that cannot be typed.
var escapes = map[string]byte{`\t`: '\t', `\\`: '\\', `\"`: '"', `\'`: '\'', `\0`: 0, `\a`: 7, `\b`: 8, `\f`: 12, `\v`: 11}

// character reads a character as Hive does: a number is its code, otherwise it
// stands for itself. Escapes are read where they cannot mean anything else.
func character(key, v string) (byte, error) {
	c, ok := byte(0), true
	if n, err := strconv.ParseInt(v, 10, 8); err == nil && n >= 0 {
		c = byte(n)
	} else if len(v) == 1 {
		c = v[0]
	} else if e, known := escapes[v]; known {
		c = e
	} else if hex, found := strings.CutPrefix(v, `\u`); found && len(hex) == 4 {
		n, err := strconv.ParseUint(hex, 16, 7)
		c, ok = byte(n), err == nil
	} else if octal, found := strings.CutPrefix(v, `\`); found && len(octal) == 3 {
		n, err := strconv.ParseUint(octal, 8, 7)
		c, ok = byte(n), err == nil
	} else {
		ok = false
	}
	if !ok || c >= 0x80 || c == '\n' || c == '\r' {
		return 0, fmt.Errorf("%s = %q: want one character of ASCII, and no end of line", key, v)
	}
	return c, nil
}

func (f *format) readDocuments(p parameters, library string) (err error) {
	if f.nullRows, err = p.flag("ignore.malformed.json"); err != nil {
		return err
	}
	formats, hasFormats := p.get("timestamp.formats")
	if library == hive.HiveJSONSerde || library == hive.HiveJSONSerde2 {
		f.json.Hive = &serde.Hive{TimestampFormats: formatsOf(formats)}
		if on, err := p.flag("hcatalog.json.case.sensitive"); err != nil || on {
			return fmt.Errorf("hcatalog.json.case.sensitive is not supported")
		}
		_, err = serde.NewConverter([]serde.Column{{Name: "x", Type: &serde.Type{Kind: serde.Timestamp}}}, f.json)
		return err
	}
	if hasFormats {
		return fmt.Errorf("timestamp.formats is not supported by the OpenX JSON SerDe: use org.apache.hive.hcatalog.data.JsonSerDe")
	}
	o := &serde.OpenX{ColumnToJSONKeyMappings: map[string]string{}}
	if v, ok := p.get("case.insensitive"); ok {
		fold, err := strconv.ParseBool(strings.ToLower(v))
		if err != nil {
			return fmt.Errorf("case.insensitive = %q: want true or false", v)
		}
		o.CaseSensitive = !fold
	}
	if o.ConvertDotsInJSONKeysToUnderscores, err = p.flag("dots.in.keys"); err != nil {
		return err
	}
	for i := len(p) - 1; i >= 0; i-- { // the SerDe's own last
		for k, v := range p[i] {
			if len(k) > len("mapping.") && strings.EqualFold(k[:len("mapping.")], "mapping.") {
				o.ColumnToJSONKeyMappings[strings.ToLower(k[len("mapping."):])] = v
			}
		}
	}
	f.json.OpenX = o
	return nil
}
