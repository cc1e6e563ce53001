package firehose

import (
	"strings"
	"unicode/utf8"
)

// prefixLengthMax is how many characters an evaluated prefix may have.
const prefixLengthMax = 512

// The namespaces of prefix expressions.
const (
	spaceTimestamp = "timestamp"
	spaceFirehose  = "firehose"
	spaceQuery     = "partitionKeyFromQuery"
	spaceLambda    = "partitionKeyFromLambda"
)

const errorOutputType = "!{firehose:error-output-type}"

// prefix is a Prefix or an ErrorOutputPrefix, as far as the front door looks
// into it: what a timestamp's pattern means is for whoever evaluates it.
type prefix struct {
	member      string // "Prefix" or "ErrorOutputPrefix"
	expressions int
	errorType   bool     // it has !{firehose:error-output-type}
	query       []string // keys of !{partitionKeyFromQuery:…}
	lambda      []string // keys of !{partitionKeyFromLambda:…}
}

// parsePrefix splits s into its expressions. The error is an
// InvalidArgumentException.
func parsePrefix(member string, s *string) (prefix, error) {
	p := prefix{member: member}
	if s == nil {
		return p, nil
	}
	least := 0 // characters that the evaluated prefix has at least
	rest := *s
	for {
		before, after, found := strings.Cut(rest, "!{")
		least += utf8.RuneCountInString(before)
		if !found {
			break
		}
		body, tail, closed := strings.Cut(after, "}")
		space, value, colon := strings.Cut(body, ":")
		if !closed || !colon || value == "" || strings.Contains(body, "{") {
			return p, invalid("Invalid expression usage in " + member + ": write !{namespace:value}.")
		}
		least++
		p.expressions++
		switch space {
		case spaceTimestamp:
		case spaceFirehose:
			switch value {
			case "error-output-type":
				p.errorType = true
			case "random-string":
				least += 10 // it has eleven characters
			default:
				return p, invalid("Invalid conversion character used in the value of the expression in " + member + ": firehose takes error-output-type and random-string.")
			}
		case spaceQuery:
			p.query = append(p.query, value)
		case spaceLambda:
			p.lambda = append(p.lambda, value)
		default:
			return p, invalid("Namespace to the left of colon (" + space + ") is an invalid keyword!")
		}
		rest = tail
	}
	if least > prefixLengthMax {
		label := "prefix"
		if member == "ErrorOutputPrefix" {
			label = member
		}
		return p, invalid("Length of evaluated " + label + " cannot be greater than 512")
	}
	return p, nil
}

func (p *prefix) partitioned() bool { return len(p.query)+len(p.lambda) > 0 }

// checkPrefixes checks the two prefixes of a destination against each other and
// returns the first.
func checkPrefixes(d *S3Destination) (prefix, error) {
	data, err := parsePrefix("Prefix", d.Prefix)
	if err != nil {
		return data, err
	}
	failed, err := parsePrefix("ErrorOutputPrefix", d.ErrorOutputPrefix)
	switch {
	case err != nil:
		return data, err
	case data.errorType:
		return data, invalid("Prefix must not contain any occurrence of " + errorOutputType)
	case data.expressions > 0 && (d.ErrorOutputPrefix == nil || *d.ErrorOutputPrefix == ""):
		return data, invalid("ErrorOutputPrefix cannot be null or empty when Prefix contains expressions")
	case failed.partitioned():
		return data, invalid("Dynamic Partitioning Namespaces can't be part of an error prefix expression")
	case failed.expressions > 0 && !failed.errorType:
		return data, invalid("ErrorOutputPrefix must contain at least one occurrence of " + errorOutputType)
	}
	return data, nil
}

// PartitionKeys returns the names of the keys that the prefix takes from the jq
// query and from the transformation's metadata, in order of their first use.
func (d *ExtendedS3Destination) PartitionKeys() (query, lambda []string) {
	p, err := parsePrefix("Prefix", d.Prefix)
	if err != nil {
		return nil, nil
	}
	return distinct(p.query), distinct(p.lambda)
}

func distinct(names []string) []string {
	var out []string
	seen := map[string]bool{}
	for _, n := range names {
		if !seen[n] {
			seen[n] = true
			out = append(out, n)
		}
	}
	return out
}
