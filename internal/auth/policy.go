package auth

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// The groups of operations that a grant may name instead of single ones. They
// do not hold each other: who administers streams cannot put into them.
const (
	GroupPut     = "put"     // records in, and nothing else
	GroupRead    = "read"    // what is there: names, configurations, states
	GroupAdmin   = "admin"   // what changes streams or closes a trade date
	GroupConnect = "connect" // a SQL session
)

// AnyStream is the stream of an operation that names none: only a grant over
// all streams covers it.
const AnyStream = "*"

// OperationConnect and the services below are those of principals that log in
// with a password; an AWS service has its signing name.
const (
	ServiceSQL       = "sql"
	ServiceConsole   = "console"
	OperationConnect = "connect"
)

// operations is the whole of what can be allowed: for each service each
// operation's group. What stands in no grant is denied; an operation that does
// not stand here is denied to everybody whose grant is not for all operations.
var operations = map[string]map[string]string{
	"firehose": {
		"PutRecord":      GroupPut,
		"PutRecordBatch": GroupPut,

		"DescribeDeliveryStream":    GroupRead,
		"ListDeliveryStreams":       GroupRead,
		"ListTagsForDeliveryStream": GroupRead,

		"CreateDeliveryStream":          GroupAdmin,
		"DeleteDeliveryStream":          GroupAdmin,
		"UpdateDestination":             GroupAdmin,
		"StartDeliveryStreamEncryption": GroupAdmin,
		"StopDeliveryStreamEncryption":  GroupAdmin,
		"TagDeliveryStream":             GroupAdmin,
		"UntagDeliveryStream":           GroupAdmin,
	},
	// The Data Catalog: the Glue API's names, under which the Iceberg REST
	// protocol's operations are allowed too.
	"glue": {
		"BatchGetCrawlers":                GroupRead,
		"BatchGetPartition":               GroupRead,
		"GetClassifier":                   GroupRead,
		"GetClassifiers":                  GroupRead,
		"GetCrawler":                      GroupRead,
		"GetCrawlerMetrics":               GroupRead,
		"GetCrawlers":                     GroupRead,
		"ListCrawlers":                    GroupRead,
		"ListCrawls":                      GroupRead,
		"GetCatalogImportStatus":          GroupRead,
		"GetColumnStatisticsForPartition": GroupRead,
		"GetColumnStatisticsForTable":     GroupRead,
		"GetDatabase":                     GroupRead,
		"GetDatabases":                    GroupRead,
		"GetPartition":                    GroupRead,
		"GetPartitionIndexes":             GroupRead,
		"GetPartitions":                   GroupRead,
		"GetTable":                        GroupRead,
		"GetTableVersion":                 GroupRead,
		"GetTableVersions":                GroupRead,
		"GetTables":                       GroupRead,
		"GetTags":                         GroupRead,
		"GetUserDefinedFunction":          GroupRead,
		"GetUserDefinedFunctions":         GroupRead,
		"SearchTables":                    GroupRead,

		"BatchCreatePartition":               GroupAdmin,
		"BatchDeletePartition":               GroupAdmin,
		"BatchDeleteTable":                   GroupAdmin,
		"BatchDeleteTableVersion":            GroupAdmin,
		"BatchUpdatePartition":               GroupAdmin,
		"CreateClassifier":                   GroupAdmin,
		"CreateCrawler":                      GroupAdmin,
		"DeleteClassifier":                   GroupAdmin,
		"DeleteCrawler":                      GroupAdmin,
		"StartCrawler":                       GroupAdmin,
		"StartCrawlerSchedule":               GroupAdmin,
		"StopCrawler":                        GroupAdmin,
		"StopCrawlerSchedule":                GroupAdmin,
		"UpdateClassifier":                   GroupAdmin,
		"UpdateCrawler":                      GroupAdmin,
		"UpdateCrawlerSchedule":              GroupAdmin,
		"CreateDatabase":                     GroupAdmin,
		"CreatePartition":                    GroupAdmin,
		"CreatePartitionIndex":               GroupAdmin,
		"CreateTable":                        GroupAdmin,
		"DeleteColumnStatisticsForPartition": GroupAdmin,
		"DeleteColumnStatisticsForTable":     GroupAdmin,
		"DeleteDatabase":                     GroupAdmin,
		"DeletePartition":                    GroupAdmin,
		"DeletePartitionIndex":               GroupAdmin,
		"DeleteTable":                        GroupAdmin,
		"DeleteTableVersion":                 GroupAdmin,
		"TagResource":                        GroupAdmin,
		"UntagResource":                      GroupAdmin,
		"UpdateColumnStatisticsForPartition": GroupAdmin,
		"UpdateColumnStatisticsForTable":     GroupAdmin,
		"UpdateDatabase":                     GroupAdmin,
		"UpdatePartition":                    GroupAdmin,
		"UpdateTable":                        GroupAdmin,
	},
	ServiceSQL: {OperationConnect: GroupConnect},
	ServiceConsole: {
		"page":           GroupRead,
		"info":           GroupRead,
		"status":         GroupRead,
		"explain-charge": GroupRead,
		"trace":          GroupRead,
		"crawl":          GroupAdmin,
		"flush":          GroupAdmin,
		"maintenance":    GroupRead,
		"maintain":       GroupAdmin,
		"backup-status":  GroupRead,
		"backup":         GroupAdmin,
		"verify":         GroupAdmin,
		"statements":     GroupAdmin,
		"seal":           GroupAdmin,
		"waive":          GroupAdmin,
		"replay":         GroupAdmin,
	},
}

// Operations returns the names of a service's operations that grants know, and
// the group of each. The map is the caller's.
func Operations(service string) map[string]string { return maps.Clone(operations[service]) }

// ErrGrant is the root of every error about a grant that makes no sense.
var ErrGrant = errors.New("invalid grant")

// Grant allows operations of a service on streams. Nothing is allowed that no
// grant allows, and no grant takes away what another gives.
type Grant struct {
	// Service is a signing name ("firehose"), "sql", "console", or "*".
	Service string `json:"service"`
	// Operations are groups (put, read, admin, connect), names, or names with
	// * and ?.
	Operations []string `json:"operations"`
	// Streams are names, or names with * and ?. An operation that is about no
	// single stream, such as ListDeliveryStreams, needs "*".
	Streams []string `json:"streams"`
}

const (
	grantsMax         = 64
	patternsMax       = 256
	patternBytesMax   = 128
	patternCharacters = alphanumeric + "_.-*?"
)

// all is the pattern that covers everything.
const all = "*"

// action is one operation of one service.
type action struct{ service, operation string }

// Policy is what a principal may do: compiled grants. It is immutable. The nil
// policy allows nothing.
type Policy struct {
	grants  []Grant
	streams map[action][]string // the patterns of each known operation
	others  map[string][]string // by service: those for operations not known here
}

// Administrator allows everything.
var Administrator = func() *Policy {
	p, err := NewPolicy(Grant{all, []string{all}, []string{all}})
	if err != nil {
		panic("auth: " + err.Error())
	}
	return p
}()

// NewPolicy compiles grants. A pattern that matches nothing known is refused,
// because a misspelt grant would be found out only by a producer at night.
func NewPolicy(grants ...Grant) (*Policy, error) {
	if len(grants) == 0 || len(grants) > grantsMax {
		return nil, fmt.Errorf("%w: %d grants: want 1 to %d", ErrGrant, len(grants), grantsMax)
	}
	p := &Policy{streams: map[action][]string{}, others: map[string][]string{}}
	for _, g := range grants {
		if g.Service != all && operations[g.Service] == nil {
			return nil, fmt.Errorf("%w: service %q: want one of %s, or *", ErrGrant, bound(g.Service), strings.Join(sorted(operations), ", "))
		}
		if len(g.Operations) == 0 || len(g.Operations) > patternsMax {
			return nil, fmt.Errorf("%w: %d operations: want 1 to %d", ErrGrant, len(g.Operations), patternsMax)
		}
		if len(g.Streams) == 0 || len(g.Streams) > patternsMax {
			return nil, fmt.Errorf("%w: %d streams: want 1 to %d; * stands for all", ErrGrant, len(g.Streams), patternsMax)
		}
		for _, s := range g.Streams {
			if !validPattern(s) {
				return nil, fmt.Errorf("%w: stream %q: want a name, in which * and ? may stand for others", ErrGrant, bound(s))
			}
		}
		p.grants = append(p.grants, Grant{g.Service, slices.Clone(g.Operations), slices.Clone(g.Streams)})
		for _, o := range g.Operations {
			if !p.add(g.Service, o, g.Streams) {
				return nil, fmt.Errorf("%w: operation %q matches none of the service %s: want a group (put, read, admin, connect), an operation's name, or a name with *", ErrGrant, bound(o), g.Service)
			}
		}
	}
	return p, nil
}

// add reports whether the pattern means an operation at all.
func (p *Policy) add(service, pattern string, streams []string) (found bool) {
	if !validPattern(pattern) {
		return false
	}
	if pattern == all {
		p.others[service] = append(p.others[service], streams...)
	}
	for s, names := range operations {
		if service != all && service != s {
			continue
		}
		for name, group := range names {
			if pattern == group || match(pattern, name) {
				p.streams[action{s, name}] = append(p.streams[action{s, name}], streams...)
				found = true
			}
		}
	}
	return found
}

func validPattern(s string) bool {
	return s != "" && len(s) <= patternBytesMax && strings.Trim(s, patternCharacters) == ""
}

// match is path.Match, whose other characters validPattern keeps out.
func match(pattern, name string) bool {
	ok, err := path.Match(pattern, name)
	return ok && err == nil
}

// Allows reports whether the operation of the service is allowed on the stream,
// or on all streams if that is AnyStream. It allocates nothing.
func (p *Policy) Allows(service, operation, stream string) bool {
	if p == nil {
		return false
	}
	if operations[service][operation] != "" {
		return covers(p.streams[action{service, operation}], stream)
	}
	return covers(p.others[service], stream) || covers(p.others[all], stream)
}

func covers(patterns []string, stream string) bool {
	for _, pattern := range patterns {
		if pattern == all || stream != AnyStream && match(pattern, stream) {
			return true
		}
	}
	return false
}

// administers reports whether p allows everything, so that the directory is not
// left without anybody who may.
func (p *Policy) administers() bool {
	return p != nil && slices.ContainsFunc(p.grants, func(g Grant) bool {
		return g.Service == all && slices.Contains(g.Operations, all) && slices.Contains(g.Streams, all)
	})
}

// Grants returns what the policy was made of. The slice is the caller's, its
// elements are not to be changed.
func (p *Policy) Grants() []Grant {
	if p == nil {
		return nil
	}
	return slices.Clone(p.grants)
}

// String is the form in which `tapehouse credentials list` shows a policy.
func (p *Policy) String() string {
	if p == nil {
		return "nothing"
	}
	if p.administers() {
		return "everything"
	}
	var b strings.Builder
	for i, g := range p.grants {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(g.Service + ": " + strings.Join(g.Operations, ", "))
		if !slices.Equal(g.Streams, []string{all}) {
			b.WriteString(" on " + strings.Join(g.Streams, ", "))
		}
	}
	return b.String()
}

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// bound keeps what a person typed, or a file holds, from filling a message.
func bound(s string) string {
	if len(s) > patternBytesMax {
		return s[:patternBytesMax] + "…"
	}
	return s
}
