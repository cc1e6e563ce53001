package firehose

import (
	"math"
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

// notBlank is ^(?!\s*$).+ in Java, where white space is ASCII's.
func notBlank(s string) bool {
	return strings.Trim(s, " \t\v\f") != "" && !strings.ContainsAny(s, "\n\r")
}

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
	versionPattern     = matching(`[0-9]+`)
	kmsKeyPattern      = matching(`arn:.*:kms:[a-zA-Z0-9\-]+:\d{12}:(key|alias)/[a-zA-Z_0-9+=,.@\-_/]+`)
	extensionPattern   = matching(`^(|\.[0-9a-z!\-_.*'()]+)$`)
	timeZonePattern    = matching(`^$|[a-zA-Z/_]+`)
	notBlankPattern    = pattern{`^(?!\s*$).+`, notBlank}
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
	v.length(path, shown(*s), utf8.RuneCountInString(*s), low, high)
	if !p.matches(*s) {
		v.add(shown(*s), path, "Member must satisfy regular expression pattern: "+p.text)
	}
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

func (v *violations) atLeast(path string, n *int32, low int32) {
	v.integer(path, n, false, low, math.MaxInt32)
}

// proportion checks a number from 0 to 1.
func (v *violations) proportion(path string, n *float64) {
	switch {
	case n == nil:
	case *n < 0:
		v.add("'"+strconv.FormatFloat(*n, 'g', -1, 64)+"'", path, "Member must have value greater than or equal to 0")
	case *n > 1:
		v.add("'"+strconv.FormatFloat(*n, 'g', -1, 64)+"'", path, "Member must have value less than or equal to 1")
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

// word checks a required enum member, which is "" where it was absent.
func (v *violations) word(path, s string, words ...string) {
	if s == "" {
		v.missing(path)
		return
	}
	v.enum(path, &s, words...)
}

// present checks a required string member, which is "" where it was absent.
func (v *violations) present(path, s string, high int, p pattern) {
	if s == "" {
		v.missing(path)
		return
	}
	v.string(path, &s, true, 1, high, p)
}

func (v *violations) streamName(path string, s *string, required bool) {
	v.string(path, s, required, 1, 64, streamNamePattern)
}
