package crawler

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/tapehouse/tapehouse/internal/hive"
)

const (
	tableNameMax = 128
	hashDigits   = 8
)

// plainName is a name in the characters that every SQL dialect takes without quotes:
// lower-case letters, digits and '_'. What is no such character is '_'.
func plainName(s string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(s) {
		if 'a' <= r && r <= 'z' || '0' <= r && r <= '9' || r == '_' {
			b.WriteRune(r)
		} else {
			b.WriteByte('_')
		}
	}
	return b.String()
}

func shortHash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])[:hashDigits]
}

// tableName names the table at a location: the prefix and the folder's (or file's)
// name. A name without a letter or digit is a hash of the location; one that would
// begin with a digit begins with '_'; one that is too long ends in a hash.
func tableName(prefix, name, uri string) string {
	base := plainName(name)
	if strings.Trim(base, "_") == "" {
		base = "table_" + shortHash(uri)
	}
	full := prefix + base
	if full[0] >= '0' && full[0] <= '9' {
		full = "_" + full
	}
	if len(full) > tableNameMax {
		full = withHash(full, uri)
	}
	return full
}

// withHash is the name at a location whose plain name another table has.
func withHash(name, uri string) string {
	return name[:min(len(name), tableNameMax-1-hashDigits)] + "_" + shortHash(uri)
}

// hidden reports whether a file or folder is one that readers of Hive's tables pass
// over.
func hidden(segment string) bool { return segment[0] == '.' || segment[0] == '_' }

// refusedSegment says why no table can have a folder or file of that name; "": it can.
func refusedSegment(s string) string {
	switch {
	case s == "":
		return "an empty folder name (two slashes)"
	case s == "." || s == "..":
		return "a folder named " + s
	case !utf8.ValidString(s):
		return "a name that is not UTF-8"
	case strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return "a name with control characters"
	}
	return ""
}

// level is what a folder's name says about partitions.
type level struct {
	key   string // "" of a bare folder
	value string
}

// levelOf reads a folder's name, or says why it is refused: two readers would not agree
// on the value of a name KEY=VALUE whose escapes are broken.
func levelOf(segment string) (l level, refuse string) {
	key, value, ok := hive.ParseSegment(segment)
	switch {
	case ok && !utf8.ValidString(key+value):
		return level{}, fmt.Sprintf("the partition folder %q is not UTF-8 once its escapes are read", segment)
	case ok:
		return level{key: key, value: value}, ""
	case key != "":
		return level{}, fmt.Sprintf("the partition folder %q has an escape that is none", segment)
	}
	if k, _, found := strings.Cut(segment, "="); found && k == "" {
		return level{}, fmt.Sprintf("the partition folder %q names no key", segment)
	} else if found && strings.Contains(k, "%") {
		return level{}, fmt.Sprintf("the partition folder %q has an escape that is none", segment)
	}
	return level{value: segment}, ""
}
