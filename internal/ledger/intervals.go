package ledger

import (
	"encoding/json"
	"slices"
	"sort"
)

// Interval is a half-open range of sequence numbers [Lo, Hi).
type Interval struct{ Lo, Hi int64 }

// MarshalJSON writes [lo,hi], the checkpoint's form.
func (i Interval) MarshalJSON() ([]byte, error) { return json.Marshal([2]int64{i.Lo, i.Hi}) }

// UnmarshalJSON reads [lo,hi].
func (i *Interval) UnmarshalJSON(b []byte) error {
	var a [2]int64
	if err := json.Unmarshal(b, &a); err != nil {
		return err
	}
	i.Lo, i.Hi = a[0], a[1]
	return nil
}

// Len is the number of sequence numbers in the interval.
func (i Interval) Len() int64 { return i.Hi - i.Lo }

// Intervals is a set of sequence numbers as sorted, disjoint, non-adjacent
// intervals. A gapless feed is one interval, however long it runs.
type Intervals []Interval

// Add puts [lo, hi) into the set.
func (s *Intervals) Add(lo, hi int64) {
	if lo >= hi {
		return
	}
	v := *s
	// The usual case: the feed goes on where it stood.
	if n := len(v); n > 0 && v[n-1].Hi == lo {
		v[n-1].Hi = hi
		return
	}
	i := sort.Search(len(v), func(k int) bool { return v[k].Hi >= lo })
	j := i
	for j < len(v) && v[j].Lo <= hi {
		lo, hi = min(lo, v[j].Lo), max(hi, v[j].Hi)
		j++
	}
	*s = slices.Replace(v, i, j, Interval{lo, hi})
}

// Remove takes [lo, hi) out of the set.
func (s *Intervals) Remove(lo, hi int64) {
	if lo >= hi {
		return
	}
	v := *s
	i := sort.Search(len(v), func(k int) bool { return v[k].Hi > lo })
	j := i
	var rest []Interval
	for j < len(v) && v[j].Lo < hi {
		if v[j].Lo < lo {
			rest = append(rest, Interval{v[j].Lo, lo})
		}
		if v[j].Hi > hi {
			rest = append(rest, Interval{hi, v[j].Hi})
		}
		j++
	}
	*s = slices.Replace(v, i, j, rest...)
}

// Contains reports whether all of [lo, hi) is in the set.
func (s Intervals) Contains(lo, hi int64) bool {
	if lo >= hi {
		return true
	}
	i := sort.Search(len(s), func(k int) bool { return s[k].Hi > lo })
	return i < len(s) && s[i].Lo <= lo && hi <= s[i].Hi
}

// Count is the number of sequence numbers of [lo, hi) in the set.
func (s Intervals) Count(lo, hi int64) int64 {
	var n int64
	for i := sort.Search(len(s), func(k int) bool { return s[k].Hi > lo }); i < len(s) && s[i].Lo < hi; i++ {
		n += min(hi, s[i].Hi) - max(lo, s[i].Lo)
	}
	return n
}

// Gaps returns what of [lo, hi) is not in the set.
func (s Intervals) Gaps(lo, hi int64) Intervals {
	var out Intervals
	for i := sort.Search(len(s), func(k int) bool { return s[k].Hi > lo }); i < len(s) && s[i].Lo < hi; i++ {
		if s[i].Lo > lo {
			out = append(out, Interval{lo, s[i].Lo})
		}
		lo = s[i].Hi
	}
	if lo < hi {
		out = append(out, Interval{lo, hi})
	}
	return out
}

// Within returns what of [lo, hi) is in the set.
func (s Intervals) Within(lo, hi int64) Intervals {
	var out Intervals
	for i := sort.Search(len(s), func(k int) bool { return s[k].Hi > lo }); i < len(s) && s[i].Lo < hi; i++ {
		out = append(out, Interval{max(lo, s[i].Lo), min(hi, s[i].Hi)})
	}
	return out
}

// Total is the number of sequence numbers in the set.
func (s Intervals) Total() int64 {
	var n int64
	for _, i := range s {
		n += i.Len()
	}
	return n
}
