package metrics

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"weak"
)

// handles is a map that is read without a lock and copied to be written: it
// changes a few times in the life of a fleet and is read for every request.
//
// Series may end only when nobody can count in them any more. A request holds its
// handle as it holds any pointer, so the garbage collector knows who does: what is
// not kept stays behind a weak pointer until that is nil, which is at the next
// collection, at most two minutes away (forcegcperiod in runtime/proc.go). Counting
// holders instead would put two atomic operations and a way to forget one into every
// request.
//
// Invariant: at most one handle of a key is reachable, and no series of it is dropped
// while it is.
type handles[K comparable, V any] struct {
	m atomic.Pointer[map[K]*V] // the maps are immutable

	mu   sync.Mutex // held by those who replace m or use left
	left map[K]weak.Pointer[V]
}

// get returns the handle of a key. create makes it with its series.
func (h *handles[K, V]) get(k K, create func() *V) *V {
	if v := h.current()[k]; v != nil {
		return v
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if v := h.current()[k]; v != nil {
		return v
	}
	next := h.copied()
	next[k] = h.made(k, create)
	h.m.Store(&next)
	return next[k]
}

// made is the handle of a key that has none in m, for who holds mu.
func (h *handles[K, V]) made(k K, create func() *V) *V {
	v := h.left[k].Value() // those who hold it and who asks now count in one
	if v == nil {
		v = create()
	}
	delete(h.left, k)
	return v
}

// joinAtOnce is how many handles are made in one copy of m, and while requests that want
// a new one wait.
const joinAtOnce = 256

// join is get for whoever is not there yet. Servers of LoRA adapters list thousands of
// models: a copy for each of 3,000 took most of half a second of a core.
func (h *handles[K, V]) join(keys map[K]bool, create func(K) *V) {
	var missing []K
	for k := range keys {
		if h.current()[k] == nil {
			missing = append(missing, k)
		}
	}
	for some := range slices.Chunk(missing, joinAtOnce) {
		h.joinSome(some, create)
	}
}

func (h *handles[K, V]) joinSome(keys []K, create func(K) *V) {
	h.mu.Lock()
	defer h.mu.Unlock()
	next := h.copied()
	for _, k := range keys {
		if next[k] == nil {
			next[k] = h.made(k, func() *V { return create(k) })
		}
	}
	h.m.Store(&next)
}

// copied is m to be written to.
func (h *handles[K, V]) copied() map[K]*V {
	if next := maps.Clone(h.current()); next != nil {
		return next
	}
	return map[K]*V{}
}

// retain lets go of what keep does not name. drop ends the series of what an
// earlier call has let go of, nobody holds and keep still does not name.
func (h *handles[K, V]) retain(keep func(K) bool, drop func(K)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for k, v := range h.left {
		if v.Value() == nil && !keep(k) {
			drop(k)
			delete(h.left, k)
		}
	}
	next := map[K]*V{}
	for k, v := range h.current() {
		if keep(k) {
			next[k] = v
			continue
		}
		if h.left == nil {
			h.left = map[K]weak.Pointer[V]{}
		}
		h.left[k] = weak.Make(v)
	}
	if len(next) < len(h.current()) {
		h.m.Store(&next)
	}
}

// current is not to be written to.
func (h *handles[K, V]) current() map[K]*V {
	if m := h.m.Load(); m != nil {
		return *m
	}
	return nil
}

// stillHeld are handles that were let go of and are in use.
func (h *handles[K, V]) stillHeld() map[K]*V {
	h.mu.Lock()
	defer h.mu.Unlock()
	held := map[K]*V{}
	for k, w := range h.left {
		if v := w.Value(); v != nil {
			held[k] = v
		}
	}
	return held
}
