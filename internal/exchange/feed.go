package exchange

import (
	"errors"
	"fmt"
	"io"
	"math/bits"
	"strconv"
	"time"

	"github.com/tapehouse/tapehouse/internal/calendar"
)

// notionalMax is the largest unscaled value of a decimal(18,4).
const notionalMax = 1e18 - 1

// feed is one numbered sequence of a source's records for one stream.
type feed struct {
	stream  streamID
	source  string
	session string
	epoch   int64
	seq     int64
	prefix  []byte // `{"source":…,"epoch":1,"seq":`; empty for the feed of markers
	account marker // of the current epoch
	former  []marker
	// overflow says that a total no longer fits its column.
	overflow bool
}

func newFeed(stream streamID, source, session string) *feed {
	f := &feed{stream: stream, source: source, session: session}
	f.restart()
	return f
}

// restart begins the next epoch, whose sequence starts again at 1.
func (f *feed) restart() {
	if f.epoch > 0 {
		f.former = append(f.former, f.account)
	}
	f.epoch++
	f.seq = 0
	f.account = marker{firstSeq: 1}
	f.prefix = f.prefix[:0]
	f.prefix = appendText(f.prefix, `{"source":"`, f.source)
	f.prefix = appendText(f.prefix, `,"session":"`, f.session)
	f.prefix = append(f.prefix, `,"epoch":`...)
	f.prefix = strconv.AppendInt(f.prefix, f.epoch, 10)
	f.prefix = append(f.prefix, `,"seq":`...)
}

// number gives the event its place in the feed and counts it.
func (f *feed) number(e *event) {
	f.seq++
	e.feed, e.epoch, e.seq = f, f.epoch, f.seq
	a := &f.account
	a.lastSeq = f.seq
	a.count++
	if !e.hasQuantity {
		return
	}
	sum := a.quantity + e.quantity
	if sum < a.quantity {
		f.overflow = true
		return
	}
	a.quantity = sum
	if !e.hasPrice {
		return
	}
	high, low := bits.Mul64(uint64(e.quantity), uint64(e.price))
	if high != 0 || low > notionalMax-uint64(a.notional) {
		f.overflow = true
		return
	}
	a.notional += int64(low)
}

// outbox holds the events that wait to be taken, and encodes them.
type outbox struct {
	queue         []event
	head          int
	last          event // what next returned last
	enc           encoder
	hash          RowHash
	tradeDate     calendar.TradeDate
	markersQueued bool
}

// push numbers the event on the feed and queues it. The pointer is valid until
// the next push.
func (o *outbox) push(f *feed, e event) *event {
	if e.tradeDate == 0 {
		e.tradeDate = int32(o.tradeDate)
	}
	f.number(&e)
	if o.head == len(o.queue) {
		o.queue, o.head = o.queue[:0], 0
	}
	o.queue = append(o.queue, e)
	return &o.queue[len(o.queue)-1]
}

// empty reports whether every event was taken. Only then may a feed restart.
func (o *outbox) empty() bool { return o.head == len(o.queue) }

// take moves the next event to o.last.
func (o *outbox) take() bool {
	if o.empty() {
		return false
	}
	o.last = o.queue[o.head]
	o.head++
	return true
}

// encode appends the document of o.last.
func (o *outbox) encode(dst []byte) ([]byte, Record) {
	e := &o.last
	if e.marker != nil {
		return o.enc.appendMarker(dst, e), Record{Stream: StreamMarkers, Key: Key{e.feed.source, e.feed.session, e.epoch, 0}, Marker: true}
	}
	return o.enc.append(dst, e), Record{
		Stream:    streamNames[e.feed.stream],
		Key:       Key{e.feed.source, e.feed.session, e.epoch, e.seq},
		Malformed: e.malformed,
	}
}

// Hash is the content hash of the record that Next returned last.
func (o *outbox) Hash() uint64 {
	o.last.hashRow(&o.hash)
	return o.hash.Sum()
}

// pushMarkers queues one marker for each epoch of each feed.
func (o *outbox) pushMarkers(feeds []*feed, at int64) error {
	o.markersQueued = true
	for _, f := range feeds {
		if f.overflow {
			return fmt.Errorf("%w: source %s", ErrTotals, f.source)
		}
		for i, m := range append(f.former, f.account) {
			o.queue = append(o.queue, event{feed: f, epoch: int64(i + 1), at: at, tradeDate: int32(o.tradeDate), marker: &m})
		}
	}
	return nil
}

// sessionID is a source's session of a trade date: "ME1-20261120-1".
func sessionID(source string, d calendar.TradeDate, n int) string {
	y, m, day := d.Civil()
	return fmt.Sprintf("%s-%04d%02d%02d-%d", source, y, int(m), day, n)
}

// WriteNDJSON writes every record of p to w, one document a line, and returns
// how many it wrote. each, if not nil, sees each record after it was written.
// REQUIRES: w is buffered, or writes cost little.
func WriteNDJSON(w io.Writer, p Player, each func(Record, []byte)) (records int64, err error) {
	buf := make([]byte, 0, 1024)
	for {
		doc, rec, err := p.Next(buf[:0])
		if errors.Is(err, io.EOF) {
			return records, nil
		}
		if err != nil {
			return records, err
		}
		doc = append(doc, '\n')
		if _, err := w.Write(doc); err != nil {
			return records, fmt.Errorf("write record %d: %w", records, err)
		}
		records++
		if each != nil {
			each(rec, doc[:len(doc)-1])
		}
		buf = doc
	}
}

// closeOf is the instant at which the last session of the day closes.
func closeOf(day calendar.Day) time.Time { return day.Sessions[len(day.Sessions)-1].CloseAt }
