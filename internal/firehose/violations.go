package firehose

import (
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/tapehouse/tapehouse/internal/awsapi"
)

// violationsMax bounds how many violations are spelled out in one answer.
const violationsMax = 20

// violations collects what breaks the service model's constraints and words it
// as AWS does: "2 validation errors detected: Value '…' at '…' failed to
// satisfy constraint: …; Value …".
type violations struct {
	n    int
	text []string
}

func (v *violations) add(value, path, constraint string) {
	v.n++
	if len(v.text) < violationsMax {
		v.text = append(v.text, "Value "+value+" at '"+path+"' failed to satisfy constraint: "+constraint)
	}
}

// err returns nil if nothing was violated.
func (v *violations) err() error {
	if v.n == 0 {
		return nil
	}
	noun := " validation errors detected: "
	if v.n == 1 {
		noun = " validation error detected: "
	}
	return awsapi.BadRequest(awsapi.CodeValidation, strconv.Itoa(v.n)+noun+strings.Join(v.text, "; "))
}

// shown quotes a value, shortened so that an answer stays readable.
func shown(value string) string {
	const bytesMax = 256
	if len(value) > bytesMax {
		cut := bytesMax
		for cut > 0 && !utf8.RuneStart(value[cut]) {
			cut--
		}
		value = value[:cut] + "…"
	}
	return "'" + value + "'"
}

func (v *violations) missing(path string) { v.add("null", path, "Member must not be null") }

// pattern is a constraint of the model in Java's words and as a check.
type pattern struct {
	text    string
	matches func(string) bool
}

// matching compiles a pattern that Go's engine knows; Java matches whole values.
func matching(text string) pattern {
	return pattern{text, regexp.MustCompile(`^(?:` + text + `)$`).MatchString}
}

func notBlank(s string) bool { return strings.TrimSpace(s) != "" && !strings.ContainsAny(s, "\n\r") }

var (
	tagKeyRE   = regexp.MustCompile(`^[\p{L}\p{Z}\p{N}_.:\/=+\-@%]*$`)
	tagValueRE = tagKeyRE

	streamNamePattern  = matching(`[a-zA-Z0-9_.-]+`)
	roleARNPattern     = matching(`arn:.*:iam::\d{12}:role/[a-zA-Z_0-9+=,.@\-_/]+`)
	bucketARNPattern   = matching(`arn:.*:s3:::[\w\.\-]{1,255}`)
	catalogARNPattern  = matching(`arn:.*:glue:.*:\d{12}:catalog(?:(/[a-z0-9_-]+){1,2})?`)
	warehousePattern   = matching(`s3:\/\/.*`)
	tableNamePattern   = matching(`[a-zA-Z0-9\.\_]+`)
	noSpacePattern     = matching(`^\S+$`)
	logGroupPattern    = matching(`[\.\-_/#A-Za-z0-9]*`)
	logStreamPattern   = matching(`[^:*]*`)
	destinationPattern = matching(`[a-zA-Z0-9-]+`)
	parameterPattern   = pattern{`^(?!\s*$).+`, notBlank}
	tagKeyPattern      = pattern{`^(?!aws:)[\p{L}\p{Z}\p{N}_.:\/=+\-@%]*$`, func(s string) bool { return !strings.HasPrefix(s, "aws:") && tagKeyRE.MatchString(s) }}
	tagValuePattern    = pattern{`^[\p{L}\p{Z}\p{N}_.:\/=+\-@%]*$`, tagValueRE.MatchString}
	anyPattern         = pattern{`.*`, func(s string) bool { return !strings.ContainsAny(s, "\n\r") }}
)

// string checks a string member. A nil s is an absent member.
func (v *violations) string(path string, s *string, required bool, low, high int, p pattern) {
	if s == nil {
		if required {
			v.missing(path)
		}
		return
	}
	if !p.matches(*s) {
		v.add(shown(*s), path, "Member must satisfy regular expression pattern: "+p.text)
	}
	v.length(path, shown(*s), utf8.RuneCountInString(*s), low, high)
}

func (v *violations) length(path, value string, n, low, high int) {
	if n < low {
		v.add(value, path, "Member must have length greater than or equal to "+strconv.Itoa(low))
	}
	if n > high {
		v.add(value, path, "Member must have length less than or equal to "+strconv.Itoa(high))
	}
}

func (v *violations) integer(path string, n *int32, required bool, low, high int32) {
	if n == nil {
		if required {
			v.missing(path)
		}
		return
	}
	value := "'" + strconv.Itoa(int(*n)) + "'"
	if *n < low {
		v.add(value, path, "Member must have value greater than or equal to "+strconv.Itoa(int(low)))
	}
	if *n > high {
		v.add(value, path, "Member must have value less than or equal to "+strconv.Itoa(int(high)))
	}
}

func (v *violations) enum(path string, s *string, words ...string) {
	if s == nil {
		return
	}
	for _, w := range words {
		if *s == w {
			return
		}
	}
	v.add(shown(*s), path, "Member must satisfy enum value set: ["+strings.Join(words, ", ")+"]")
}

func (v *violations) streamName(path string, s *string, required bool) {
	v.string(path, s, required, 1, 64, streamNamePattern)
}

func (v *violations) hints(path string, h *BufferingHints) {
	if h == nil {
		return
	}
	v.integer(path+".sizeInMBs", h.SizeInMBs, false, 1, 128)
	v.integer(path+".intervalInSeconds", h.IntervalInSeconds, false, 0, 900)
}

func (v *violations) cloudWatch(path string, c *CloudWatchLogging) {
	if c == nil {
		return
	}
	v.string(path+".logGroupName", c.LogGroupName, false, 0, 512, logGroupPattern)
	v.string(path+".logStreamName", c.LogStreamName, false, 0, 512, logStreamPattern)
}

func member(path string, i int) string { return path + "." + strconv.Itoa(i+1) + ".member" }

func (v *violations) tags(path string, tags *[]Tag) {
	if tags == nil {
		return
	}
	v.length(path, "'["+strconv.Itoa(len(*tags))+" members]'", len(*tags), 1, 50)
	for i := range *tags {
		t := &(*tags)[i]
		v.string(member(path, i)+".key", &t.Key, true, 1, 128, tagKeyPattern)
		v.string(member(path, i)+".value", t.Value, false, 0, 256, tagValuePattern)
	}
}

func (v *violations) iceberg(path string, d *IcebergDestination) {
	v.string(path+".roleARN", d.RoleARN, true, 1, 512, roleARNPattern)
	if d.Catalog == nil {
		v.missing(path + ".catalogConfiguration")
	} else {
		v.string(path+".catalogConfiguration.catalogARN", d.Catalog.CatalogARN, false, 1, 512, catalogARNPattern)
		v.string(path+".catalogConfiguration.warehouseLocation", d.Catalog.WarehouseLocation, false, 1, 2048, warehousePattern)
	}
	for i := range d.Tables {
		t := &d.Tables[i]
		p := member(path+".destinationTableConfigurationList", i)
		v.string(p+".destinationTableName", &t.Table, true, 1, 255, tableNamePattern)
		v.string(p+".destinationDatabaseName", &t.Database, true, 1, 255, tableNamePattern)
		for j := range t.UniqueKeys {
			v.string(member(p+".uniqueKeys", j), &t.UniqueKeys[j], true, 1, 1024, noSpacePattern)
		}
		if t.PartitionSpec != nil {
			for j := range t.PartitionSpec.Identity {
				v.string(member(p+".partitionSpec.identity", j)+".sourceName", &t.PartitionSpec.Identity[j].SourceName, true, 1, 1024, noSpacePattern)
			}
		}
		v.string(p+".s3ErrorOutputPrefix", t.ErrorPrefix, false, 0, 1024, anyPattern)
	}
	v.enabled(path+".schemaEvolutionConfiguration", d.SchemaEvolution)
	v.enabled(path+".tableCreationConfiguration", d.TableCreation)
	v.hints(path+".bufferingHints", d.BufferingHints)
	v.cloudWatch(path+".cloudWatchLoggingOptions", d.CloudWatch)
	v.processing(path+".processingConfiguration", d.Processing)
	v.enum(path+".s3BackupMode", d.S3BackupMode, "FailedDataOnly", "AllData")
	if d.RetryOptions != nil {
		v.integer(path+".retryOptions.durationInSeconds", d.RetryOptions.DurationInSeconds, false, 0, 7200)
	}
	if d.S3 == nil {
		v.missing(path + ".s3Configuration")
	} else {
		v.s3(path+".s3Configuration", d.S3)
	}
}

func (v *violations) enabled(path string, e *Enabled) {
	if e != nil && e.Enabled == nil {
		v.missing(path + ".enabled")
	}
}

func (v *violations) processing(path string, p *Processing) {
	if p == nil {
		return
	}
	for i := range p.Processors {
		q := member(path+".processors", i)
		v.enum(q+".type", &p.Processors[i].Type, "RecordDeAggregation", "Decompression", "CloudWatchLogProcessing", "Lambda", "MetadataExtraction", "AppendDelimiterToRecord")
		for j := range p.Processors[i].Parameters {
			a := &p.Processors[i].Parameters[j]
			v.enum(member(q+".parameters", j)+".parameterName", &a.Name, "LambdaArn", "NumberOfRetries", "MetadataExtractionQuery", "JsonParsingEngine", "RoleArn",
				"BufferSizeInMBs", "BufferIntervalInSeconds", "SubRecordType", "Delimiter", "CompressionFormat", "DataMessageExtraction")
			v.string(member(q+".parameters", j)+".parameterValue", &a.Value, true, 1, 5120, parameterPattern)
		}
	}
}

func (v *violations) s3(path string, d *S3Destination) {
	v.string(path+".roleARN", d.RoleARN, true, 1, 512, roleARNPattern)
	v.string(path+".bucketARN", d.BucketARN, true, 1, 2048, bucketARNPattern)
	v.string(path+".prefix", d.Prefix, false, 0, 1024, anyPattern)
	v.string(path+".errorOutputPrefix", d.ErrorOutputPrefix, false, 0, 1024, anyPattern)
	v.hints(path+".bufferingHints", d.BufferingHints)
	v.enum(path+".compressionFormat", d.CompressionFormat, "UNCOMPRESSED", "GZIP", "ZIP", "Snappy", "HADOOP_SNAPPY")
	if d.Encryption != nil {
		v.enum(path+".encryptionConfiguration.noEncryptionConfig", d.Encryption.NoEncryptionConfig, "NoEncryption")
	}
	v.cloudWatch(path+".cloudWatchLoggingOptions", d.CloudWatch)
}
