package exchange

// none is the end of a list of orders.
const none = int32(-1)

// order is a resting order. A slot of ref 0 is free.
type order struct {
	ref        int64
	price      int64 // $0.0001
	quantity   int32
	instrument int32
	next, prev int32 // in the queue of its level; by time
	live       int32 // position in the list of live orders
	mpid       int16
	buy        bool
	stub       bool // a stub quote stands outside the levels and never trades
	capacity   byte
	sell       uint8 // how a sale is marked: index into sellSides
}

// level is the queue of orders at one price, the oldest first.
type level struct {
	price      int64
	head, tail int32
}

// instrument is a symbol and its book. The best level of a side is its last.
type instrument struct {
	symbol string
	tape   byte
	engine uint8
	tick   int64 // $0.0001
	low    int64 // the bounds of the price
	high   int64
	last   int64 // of the last execution
	bids   []level
	asks   []level
}

func (i *instrument) side(buy bool) *[]level {
	if buy {
		return &i.bids
	}
	return &i.asks
}

// best returns the best price of a side.
func (i *instrument) best(buy bool) (int64, bool) {
	s := *i.side(buy)
	if len(s) == 0 {
		return 0, false
	}
	return s[len(s)-1].price, true
}

// books holds all resting orders. Slots are reused, so that memory is bounded by
// the largest number of live orders.
type books struct {
	instruments []instrument
	orders      []order
	free        []int32
	live        []int32
}

// insert adds an order at the end of its price's queue and returns its slot.
func (b *books) insert(o order) int32 {
	var slot int32
	if n := len(b.free); n > 0 {
		slot, b.free = b.free[n-1], b.free[:n-1]
	} else {
		slot = int32(len(b.orders))
		b.orders = append(b.orders, order{})
	}
	o.next, o.prev, o.live = none, none, int32(len(b.live))
	b.orders[slot] = o
	b.live = append(b.live, slot)
	if !o.stub {
		b.enqueue(slot)
	}
	return slot
}

func (b *books) enqueue(slot int32) {
	o := &b.orders[slot]
	o.next, o.prev = none, none
	levels := b.instruments[o.instrument].side(o.buy)
	s := *levels
	// The side is searched from the best price, where most orders come.
	i := len(s)
	for i > 0 && better(o.buy, s[i-1].price, o.price) {
		i--
	}
	if i > 0 && s[i-1].price == o.price {
		l := &s[i-1]
		b.orders[l.tail].next, o.prev, l.tail = slot, l.tail, slot
		return
	}
	s = append(s, level{})
	copy(s[i+1:], s[i:])
	s[i] = level{o.price, slot, slot}
	*levels = s
}

// better reports whether price p has priority over q.
func better(buy bool, p, q int64) bool {
	if buy {
		return p > q
	}
	return p < q
}

func (b *books) dequeue(slot int32) {
	o := &b.orders[slot]
	levels := b.instruments[o.instrument].side(o.buy)
	s := *levels
	i := len(s) - 1
	for s[i].price != o.price {
		i--
	}
	l := &s[i]
	if o.prev == none {
		l.head = o.next
	} else {
		b.orders[o.prev].next = o.next
	}
	if o.next == none {
		l.tail = o.prev
	} else {
		b.orders[o.next].prev = o.prev
	}
	if l.head == none {
		copy(s[i:], s[i+1:])
		*levels = s[:len(s)-1]
	}
}

// remove takes an order off the book and frees its slot.
func (b *books) remove(slot int32) {
	o := &b.orders[slot]
	if !o.stub {
		b.dequeue(slot)
	}
	last := len(b.live) - 1
	moved := b.live[last]
	b.live[o.live] = moved
	b.orders[moved].live = o.live
	b.live = b.live[:last]
	o.ref = 0
	b.free = append(b.free, slot)
}

// replace gives an order a new reference, price and quantity, at the end of the
// queue: it loses its priority in time.
func (b *books) replace(slot int32, ref, price int64, quantity int32) {
	b.dequeue(slot)
	o := &b.orders[slot]
	o.ref, o.price, o.quantity = ref, price, quantity
	b.enqueue(slot)
}

// dueDelete is an order that its owner will delete soon.
type dueDelete struct {
	at   int64
	ref  int64
	slot int32
}

// dueHeap is a binary heap by (at, ref).
type dueHeap []dueDelete

func (h dueHeap) less(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].ref < h[j].ref
}

func (h *dueHeap) push(d dueDelete) {
	*h = append(*h, d)
	s := *h
	for i := len(s) - 1; i > 0; {
		up := (i - 1) / 2
		if !s.less(i, up) {
			return
		}
		s[i], s[up] = s[up], s[i]
		i = up
	}
}

func (h *dueHeap) pop() dueDelete {
	s := *h
	top, n := s[0], len(s)-1
	s[0] = s[n]
	s = s[:n]
	*h = s
	for i := 0; ; {
		c := 2*i + 1
		if c >= n {
			return top
		}
		if c+1 < n && s.less(c+1, c) {
			c++
		}
		if !s.less(c, i) {
			return top
		}
		s[i], s[c] = s[c], s[i]
		i = c
	}
}
