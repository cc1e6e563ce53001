package catalog

import (
	"container/list"
	"sync"
)

// lru is a cache of values of unequal weight, bounded by their sum. A value
// heavier than the bound is not kept. It is safe for concurrent use.
type lru[K comparable, V any] struct {
	mu        sync.Mutex
	weightMax int
	weight    int
	weigh     func(V) int
	order     *list.List // front: used last
	items     map[K]*list.Element
}

type lruItem[K comparable, V any] struct {
	key    K
	value  V
	weight int
}

func newLRU[K comparable, V any](weightMax int, weigh func(V) int) *lru[K, V] {
	return &lru[K, V]{weightMax: weightMax, weigh: weigh, order: list.New(), items: make(map[K]*list.Element)}
}

func (c *lru[K, V]) get(k K) (v V, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.items[k]
	if !ok {
		return v, false
	}
	c.order.MoveToFront(e)
	return e.Value.(*lruItem[K, V]).value, true
}

func (c *lru[K, V]) put(k K, v V) {
	w := c.weigh(v)
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.items[k]; ok {
		c.drop(e)
	}
	if w > c.weightMax {
		return
	}
	c.items[k] = c.order.PushFront(&lruItem[K, V]{k, v, w})
	c.weight += w
	for c.weight > c.weightMax {
		c.drop(c.order.Back())
	}
}

func (c *lru[K, V]) remove(k K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.items[k]; ok {
		c.drop(e)
	}
}

func (c *lru[K, V]) drop(e *list.Element) {
	item := c.order.Remove(e).(*lruItem[K, V])
	delete(c.items, item.key)
	c.weight -= item.weight
}
