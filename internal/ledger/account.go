package ledger

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/tapehouse/tapehouse/internal/record"
)

// DateCount is what a feed has brought for one trade date.
type DateCount struct {
	Rows  int64 `json:"rows"`
	First int64 `json:"first"` // least sequence number
	Last  int64 `json:"last"`  // greatest
}

// RejectSample names one rejected record, for a person to look at.
type RejectSample struct {
	Sequence    int64         `json:"sequence"`
	HasSequence bool          `json:"has_sequence"`
	Code        string        `json:"code"`
	Message     string        `json:"message"`
	Offset      record.Offset `json:"offset"`
}

// Account is the durable state of a feed.
type Account struct {
	Seen     Intervals `json:"seen"`     // stored as rows
	Rejected Intervals `json:"rejected"` // rejected, and not replaced since by a good record of the same number
	// RejectedUnnumbered counts rejects of this source whose number could not be read.
	RejectedUnnumbered int64                `json:"rejected_unnumbered"`
	Conflicts          []Conflict           `json:"conflicts"`
	ConflictCount      int64                `json:"conflict_count"`
	Samples            []RejectSample       `json:"reject_samples"`
	Dates              map[int32]*DateCount `json:"dates"`
	Duplicates         int64                `json:"duplicates"` // acknowledged and not stored; informative, not exact after a crash
	Unchecked          int64                `json:"unchecked"`  // of those, older than the window: content not compared
}

func (a *Account) init() {
	if a.Dates == nil {
		a.Dates = map[int32]*DateCount{}
	}
}

func (a *Account) clone() Account {
	c := *a
	c.Seen, c.Rejected = slices.Clone(a.Seen), slices.Clone(a.Rejected)
	c.Conflicts, c.Samples = slices.Clone(a.Conflicts), slices.Clone(a.Samples)
	c.Dates = make(map[int32]*DateCount, len(a.Dates))
	for d, n := range a.Dates {
		v := *n
		c.Dates[d] = &v
	}
	return c
}

// Effect is what one frame of the log did, as the pump or a replay read it.
type Effect struct {
	Key       record.Key
	First     record.Offset
	Count     int // records in the frame: rows, rejects and conflicts
	Runs      []Run
	Rejects   []Reject
	Conflicts []ConflictOf
	Replayed  []Replayed
}

// Replayed says that a record of the frame stands for one that was put before:
// it was replayed, and will not be again.
type Replayed struct {
	Key    record.Key    // of the record that it stands for
	Offset record.Offset // of that record
	// Resolves, if not nil, is the reject that the earlier record was.
	Resolves *Reject
}

// ConflictOf is a conflicting record with its feed.
type ConflictOf struct {
	Feed
	Conflict
}

// Apply enters a frame into the account. Frames of a key come in order and
// without a hole; one that is already applied is passed over, so that a replay
// may start below the checkpoint.
func (l *Ledger) Apply(e Effect) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch at := l.applied[e.Key]; {
	case e.First < at:
		return nil
	case e.First > at:
		return fmt.Errorf("sequence ledger: frame at offset %d of %s follows offset %d: the log has a hole", e.First, e.Key, at)
	}
	for i := range e.Runs {
		run := &e.Runs[i]
		f := l.feedLocked(run.Feed)
		f.mu.Lock()
		f.account.enter(run)
		f.mu.Unlock()
	}
	for i := range e.Replayed {
		l.applyReplayed(e.Key, &e.Replayed[i])
	}
	for i := range e.Rejects {
		l.applyReject(&e.Rejects[i])
	}
	for i := range e.Conflicts {
		c := &e.Conflicts[i]
		f := l.feedLocked(c.Feed)
		f.mu.Lock()
		f.account.conflict(c.Conflict)
		f.mu.Unlock()
	}
	l.applied[e.Key] = e.First + record.Offset(e.Count)
	return nil
}

// applyReplayed remembers a replay, and takes back the reject that it resolves.
func (l *Ledger) applyReplayed(into record.Key, r *Replayed) {
	of := l.replayed[into]
	if of == nil {
		of = map[record.Key]*Intervals{}
		l.replayed[into] = of
	}
	if of[r.Key] == nil {
		of[r.Key] = &Intervals{}
	}
	at := int64(r.Offset)
	if of[r.Key].Contains(at, at+1) {
		return
	}
	of[r.Key].Add(at, at+1)
	if r.Resolves != nil {
		l.resolve(r.Resolves)
	}
}

func (l *Ledger) resolve(r *Reject) {
	f := l.feeds[r.Feed]
	if r.anonymous() {
		f = nil
	}
	if !r.HasSequence || f == nil {
		source := r.Source
		if l.unkeyed[source] == 0 {
			source = ""
		}
		if l.unkeyed[source]--; l.unkeyed[source] <= 0 {
			delete(l.unkeyed, source)
		}
	}
	if f == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	a := &f.account
	if r.HasSequence {
		a.Rejected.Remove(r.Sequence, r.Sequence+1)
	} else if a.RejectedUnnumbered > 0 {
		a.RejectedUnnumbered--
	}
	a.Samples = slices.DeleteFunc(a.Samples, func(s RejectSample) bool { return s.Offset == r.Offset })
}

// Replayed reports whether the record at the offset of key was replayed into
// the stream of into.
func (l *Ledger) Replayed(into, key record.Key, at record.Offset) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	set := l.replayed[into][key]
	return set != nil && set.Contains(int64(at), int64(at)+1)
}

func (l *Ledger) feedLocked(id Feed) *feed {
	f := l.feeds[id]
	if f == nil {
		f = &feed{id: id, chunks: map[int64]*chunk{}}
		f.account.init()
		l.feeds[id] = f
	}
	return f
}

// anonymous reports that nothing tells whose the record is.
func (r *Reject) anonymous() bool { return r.Source == "" && !r.HasSequence }

func (l *Ledger) applyReject(r *Reject) {
	stray := r.anonymous() || l.feeds[r.Feed] == nil && len(l.feeds) >= straysMax
	if !r.HasSequence || stray {
		source := r.Source
		if _, known := l.unkeyed[source]; !known && len(l.unkeyed) >= straysMax {
			source = ""
		}
		l.unkeyed[source]++
	}
	if stray {
		return
	}
	f := l.feedLocked(r.Feed)
	f.mu.Lock()
	defer f.mu.Unlock()
	a := &f.account
	switch {
	case !r.HasSequence:
		a.RejectedUnnumbered++
	case a.Seen.Contains(r.Sequence, r.Sequence+1):
		a.conflict(Conflict{r.Sequence, r.Offset, "malformed resend: " + r.Code})
		return
	case len(a.Rejected) < intervalsMax:
		a.Rejected.Add(r.Sequence, r.Sequence+1)
	}
	if len(a.Samples) < samplesMax {
		a.Samples = append(a.Samples, RejectSample{r.Sequence, r.HasSequence, r.Code, r.Message, r.Offset})
	}
}

func (a *Account) enter(r *Run) {
	hi := r.Sequence + int64(r.N)
	a.Seen.Add(r.Sequence, hi)
	if len(a.Rejected) > 0 {
		a.Rejected.Remove(r.Sequence, hi)
		a.Samples = slices.DeleteFunc(a.Samples, func(s RejectSample) bool {
			return s.HasSequence && s.Sequence >= r.Sequence && s.Sequence < hi
		})
	}
	d := a.Dates[r.TradeDate]
	if d == nil {
		d = &DateCount{First: r.Sequence, Last: hi - 1}
		a.Dates[r.TradeDate] = d
	}
	d.Rows += int64(r.N)
	d.First, d.Last = min(d.First, r.Sequence), max(d.Last, hi-1)
}

func (a *Account) conflict(c Conflict) {
	a.ConflictCount++
	if len(a.Conflicts) < samplesMax {
		a.Conflicts = append(a.Conflicts, c)
	}
}

// FeedAccount is a feed with a copy of its account.
type FeedAccount struct {
	Feed
	Account
}

// Accounts returns a copy of every feed's account, by source, session, epoch,
// with the vector up to which they are true.
func (l *Ledger) Accounts() ([]FeedAccount, record.Vector) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.accountsLocked()
}

func (l *Ledger) accountsLocked() ([]FeedAccount, record.Vector) {
	out := make([]FeedAccount, 0, len(l.feeds))
	for id, f := range l.feeds {
		f.mu.Lock()
		out = append(out, FeedAccount{id, f.account.clone()})
		f.mu.Unlock()
	}
	slices.SortFunc(out, func(a, b FeedAccount) int {
		return cmp.Or(cmp.Compare(a.Source, b.Source), cmp.Compare(a.Session, b.Session), cmp.Compare(a.Epoch, b.Epoch))
	})
	return out, l.applied.Clone()
}

// Unkeyed returns how many rejected records could not be assigned to a
// sequence number, by source; "" where not even the source could be read.
func (l *Ledger) Unkeyed() map[string]int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.unkeyed)
}

// Applied is the vector up to which the account is true.
func (l *Ledger) Applied() record.Vector {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.applied.Clone()
}

// Forget drops a deleted stream's key from the applied vector. Its feeds stay:
// what a source has sent does not become unsent.
func (l *Ledger) Forget(k record.Key) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.applied, k)
	delete(l.replayed, k)
}
