package hive

import (
	"errors"
	"fmt"
	"strings"
)

// DefaultPartition is the value that Hive's path spells a null or empty value by.
const DefaultPartition = "__HIVE_DEFAULT_PARTITION__"

// ParseSegment reads a folder's name KEY=VALUE, each with %XX escapes. ok is
// false for a name without a key, or with an escape that is none.
func ParseSegment(segment string) (key, value string, ok bool) {
	k, v, found := strings.Cut(segment, "=")
	if !found || k == "" {
		return "", "", false
	}
	key, errKey := unescape(k)
	value, errValue := unescape(v)
	return key, value, errors.Join(errKey, errValue) == nil
}

// Segment is the folder KEY=VALUE as Hive spells it.
func Segment(key, value string) string {
	if value == "" {
		value = DefaultPartition
	}
	return escape(key) + "=" + escape(value)
}

// escapedBytes are those that Hive's FileUtils escapes in paths, beside control
// characters.
const escapedBytes = "\"#%'*/:=?\\\x7f{[]^"

func escape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c < ' ' || strings.IndexByte(escapedBytes, c) >= 0 {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

func unescape(s string) (string, error) {
	if !strings.Contains(s, "%") {
		return s, nil
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b.WriteByte(s[i])
			continue
		}
		if i+2 >= len(s) {
			return "", fmt.Errorf("%q ends within an escape", s)
		}
		high, low := hexDigit(s[i+1]), hexDigit(s[i+2])
		if high < 0 || low < 0 {
			return "", fmt.Errorf("%q has no escape at %q", s, s[i:i+3])
		}
		b.WriteByte(byte(high<<4 | low))
		i += 2
	}
	return b.String(), nil
}

func hexDigit(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
