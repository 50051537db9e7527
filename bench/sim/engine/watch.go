package engine

// watch keeps the blocks that were found for the head of the waiting queue, for as long as it does not fit: vLLM looks
// them up again in each step, and a prompt of 100,000 tokens has thousands. It stays valid until one of them is evicted or
// the first one that was missing becomes known; how many others reference is kept count of.
type watch struct {
	s     *sequence // whose blocks they are; nil = nobody's
	valid bool
	next  uint64 // hash of the first block that was not found
	used  int    // of the blocks, how many are referenced
}

// watchHits begins to watch the blocks just found for s, used of which others reference.
func (e *Engine) watchHits(s *sequence, used int) {
	if e.pool.watch.valid && e.pool.watch.s == s {
		return
	}
	e.pool.watch = watch{s: s, valid: true, next: s.block(len(e.hits)), used: used}
	for _, n := range e.hits {
		e.pool.nodes[n].watched = true
	}
}

// unwatch ends it; e.hits still has the blocks.
func (e *Engine) unwatch() {
	if e.pool.watch.s == nil {
		return
	}
	for _, n := range e.hits {
		e.pool.nodes[n].watched = false
	}
	e.pool.watch = watch{}
}
