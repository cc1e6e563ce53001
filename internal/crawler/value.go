package crawler

import "strings"

// A sample shows some rows, not all, so a decimal made of texts has room: whole
// numbers of up to 14 digits and 4 decimals are decimal(18,4), which 64 bits hold,
// and the steps above end at decimal(38,10). Each bound is rounded by itself, so
// that a wider text never makes the other bound narrower.
func textDecimal(digits, scale int) *State {
	switch {
	case digits <= 14:
		digits = 14
	case digits <= 28:
		digits = 28
	}
	switch {
	case scale == 0:
	case scale <= 4:
		scale = 4
	case scale <= 10:
		scale = 10
	}
	return decimal(digits, scale)
}

var (
	stateBoolean   = &State{Kinds: kindBoolean}
	stateDouble    = &State{Kinds: kindDouble}
	stateDate      = &State{Kinds: kindDate}
	stateDay       = &State{Kinds: kindDay}
	stateTimestamp = &State{Kinds: kindTimestamp}
	stateString    = &State{Kinds: kindString}
	stateNumber    = &State{Kinds: kindNumber, Digits: 14}
	stateNumber19  = &State{Kinds: kindNumber, Digits: 28}
)

// textState is the state of one text of a CSV file. Empty is null. What would not
// come back as it was is text: leading zeros, a plus sign, a zone's offset.
func textState(s string) *State {
	s = strings.TrimSpace(s)
	if s == "" {
		return unknown
	}
	switch s[0] {
	case '-', '.', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		if n := numberState(s); n != nil {
			return n
		}
		return timeState(s)
	case 't', 'T', 'f', 'F':
		if strings.EqualFold(s, "true") || strings.EqualFold(s, "false") {
			return stateBoolean
		}
	case 'N', 'I':
		if s == "NaN" || s == "Infinity" {
			return stateDouble
		}
	}
	return stateString
}

// numberState is the state of a number's text, or nil.
func numberState(s string) *State {
	rest := strings.TrimPrefix(s, "-")
	if rest == "Infinity" {
		return stateDouble
	}
	whole := digits(rest)
	if whole > 1 && rest[0] == '0' {
		return nil // an identifier: its zeros count
	}
	rest = rest[whole:]
	scale, point := 0, false
	if rest != "" && rest[0] == '.' {
		point = true
		rest = rest[1:]
		if scale = digits(rest); scale == 0 {
			return nil
		}
		rest = rest[scale:]
	}
	if whole == 0 && !point {
		return nil
	}
	if rest != "" {
		if exponent(rest) {
			return stateDouble
		}
		return nil
	}
	if !point {
		text := strings.TrimPrefix(s, "-")
		switch {
		case whole <= 14:
			return stateNumber
		case whole < longDigits || whole == longDigits && fitsLong(text, s[0] == '-'):
			return stateNumber19
		}
	}
	return textDecimal(whole, scale)
}

func fitsLong(digits string, negative bool) bool {
	if negative {
		return digits <= "9223372036854775808"
	}
	return digits <= "9223372036854775807"
}

func digits(s string) int {
	n := 0
	for n < len(s) && s[n]-'0' <= 9 {
		n++
	}
	return n
}

// exponent reports whether s is e, a sign if any, and one to three digits.
func exponent(s string) bool {
	if s[0] != 'e' && s[0] != 'E' {
		return false
	}
	s = s[1:]
	if s != "" && (s[0] == '+' || s[0] == '-') {
		s = s[1:]
	}
	n := digits(s)
	return n >= 1 && n <= 3 && n == len(s)
}

// timeState is the state of a text that begins with a digit and is no number:
// yyyy-MM-dd, or that with HH:mm:ss and up to nine decimals, parted by a space, or by T
// and then with Z if need be. A zone's offset makes it text, for Hive's timestamp would
// lose it.
func timeState(s string) *State {
	if len(s) < 10 || s[4] != '-' || s[7] != '-' {
		return stateString
	}
	year, month, day := number(s[:4]), number(s[5:7]), number(s[8:10])
	if year < 1 || month < 1 || month > 12 || day < 1 || day > daysIn(year, month) {
		return stateString
	}
	if len(s) == 10 {
		return stateDate
	}
	if len(s) < 19 || (s[10] != ' ' && s[10] != 'T') || s[13] != ':' || s[16] != ':' {
		return stateString
	}
	hour, minute, second := number(s[11:13]), number(s[14:16]), number(s[17:19])
	if hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 59 {
		return stateString
	}
	rest := s[19:]
	if rest != "" && rest[0] == '.' {
		n := digits(rest[1:])
		if n < 1 || n > 9 {
			return stateString
		}
		rest = rest[1+n:]
	}
	if rest == "" || rest == "Z" && s[10] == 'T' {
		return stateTimestamp
	}
	return stateString
}

// number reads digits; -1 for anything else.
func number(s string) int {
	n := 0
	for i := range len(s) {
		d := s[i] - '0'
		if d > 9 {
			return -1
		}
		n = n*10 + int(d)
	}
	return n
}

func daysIn(year, month int) int {
	switch month {
	case 4, 6, 9, 11:
		return 30
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	}
	return 31
}
