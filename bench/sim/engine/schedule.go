package engine

// schedule decides what the step computes: e.round for the decoding sequences, e.chunks for prompts. Preempted
// sequences go to the head of waiting, the earliest admitted first.
func (e *Engine) schedule() {
	switch {
	case !e.v0:
		e.scheduleV1()
	case e.chunked:
		e.scheduleV0Chunked()
	default:
		e.scheduleV0()
	}
	for _, s := range e.bumped {
		e.waiting.pushFront(s)
	}
}

// scheduleV1 is Scheduler.schedule of vllm/v1/core/sched/scheduler.py. Decodes precede partial prefills here; in vLLM
// they do so by admission order, because a prompt that is cut uses the budget up and nobody is admitted behind it.
func (e *Engine) scheduleV1() {
	budget := e.scheduleRunning()
	if len(e.bumped) == 0 {
		e.admit(budget)
	}
}

// scheduleV0Chunked is Scheduler._schedule_chunked_prefill of vllm/core/scheduler.py: it admits after a preemption too,
// but not the preempted, which join waiting at the end of the step.
func (e *Engine) scheduleV0Chunked() {
	e.admit(e.scheduleRunning())
}

// scheduleV0 is Scheduler._schedule_default of vllm/core/scheduler.py: prompts, and decodes only if there is none.
func (e *Engine) scheduleV0() {
	e.admit(e.cfg.MaxNumBatchedTokens)
	if len(e.chunks) == 0 {
		e.startRound()
	}
}

// scheduleRunning takes the decoding sequences and the prompts under way into the step; it returns the budget left.
func (e *Engine) scheduleRunning() int {
	e.startRound()
	budget := e.cfg.MaxNumBatchedTokens - e.decodes
	for i := 0; i < len(e.prefills) && budget > 0; i++ {
		s := e.prefills[i]
		x := min(s.total()-s.computed, budget)
		need := max(0, e.blocksFor(s.computed+x)-s.blocks)
		if !e.reserve(s, need) {
			break
		}
		e.chunks = append(e.chunks, chunk{s, x})
		if e.sharing {
			e.publish(s, s.computed+x)
		}
		budget -= x
	}
	return budget
}

// startRound gives a block to every decoding sequence whose next token starts one. Growth lists are in order of
// admission, so whoever is preempted is the current sequence or one still to come.
func (e *Engine) startRound() {
	l := &e.growth[e.rounds%uint64(e.cfg.BlockSize)]
	for s := l.head; s != nil; s = s.links[inGrowth].next {
		if !e.reserve(s, 1) {
			break
		}
	}
	e.round = e.decodes > 0
}

// reserve gives a running sequence n more blocks, preempting the latest admitted ones for it; false if it was itself
// the latest.
func (e *Engine) reserve(s *sequence, n int) bool {
	for e.pool.available() < n {
		last := e.running.tail
		e.preempt(last)
		if last == s {
			return false
		}
	}
	e.pool.take(n)
	s.blocks += n
	return true
}

func (e *Engine) preempt(s *sequence) {
	e.leave(s)
	s.preemptions++
	e.count.Preemptions++
	e.bumped = append(e.bumped, s)
	e.tell(s, Event{Preempted: true})
}

// admit takes sequences from the head of waiting until one does not fit.
func (e *Engine) admit(budget int) {
	for e.waiting.n > 0 && budget > 0 && e.running.n < e.cfg.MaxNumSeqs {
		x, ok := e.place(e.waiting.head, budget)
		if !ok {
			return
		}
		budget -= x
	}
}

// place admits s if its first chunk fits the budget and the pool; it returns the chunk's tokens.
func (e *Engine) place(s *sequence, budget int) (int, bool) {
	total := s.total()
	used := e.match(s, total)
	hit := len(e.hits) * e.cfg.BlockSize
	if s.external > hit {
		hit = min(s.external, total-1) / e.cfg.BlockSize * e.cfg.BlockSize
	}
	x := total - hit
	if x > budget {
		if !e.chunked {
			return 0, false
		}
		x = budget
	}
	reach := hit + x
	if e.v0 {
		reach = total
	}
	blocks := e.blocksFor(reach)
	if blocks-used+e.watermark > e.pool.available() {
		e.watchHits(s, used)
		return 0, false
	}
	e.unwatch()
	e.enter(s, blocks, hit)
	e.chunks = append(e.chunks, chunk{s, x})
	if e.sharing {
		e.publish(s, hit+x)
	}
	return x, true
}

// enter moves s from waiting to running with its hits pinned and the rest of its blocks private.
func (e *Engine) enter(s *sequence, blocks, hit int) {
	e.waiting.remove(s)
	e.running.pushBack(s)
	e.admitted++
	s.order, s.state, s.computed = e.admitted, prefilling, hit
	s.expect((s.prompt + s.output) / e.cfg.BlockSize)
	for _, n := range e.hits {
		e.pool.pin(n)
		s.published = append(s.published, n)
	}
	s.pins, s.blocks = len(e.hits), blocks
	e.pool.take(blocks - len(e.hits))
	e.prefills = append(e.prefills, s)
	if s.preemptions == 0 {
		s.cached, s.admitted = hit, e.count.Busy
		if e.caching {
			e.count.PrefixQueries += uint64(s.total())
			e.count.PrefixHits += uint64(hit)
		}
	}
}

// match finds the longest known prefix of s, leaving at least one of total tokens to compute, in e.hits. It returns how
// many of those blocks others reference, which therefore cost the pool nothing.
func (e *Engine) match(s *sequence, total int) (used int) {
	if w := &e.pool.watch; w.s == s && w.valid {
		return w.used
	}
	e.unwatch()
	e.hits = e.hits[:0]
	if !e.caching {
		return 0
	}
	for i := range (total - 1) / e.cfg.BlockSize {
		n, ok := e.pool.lookup(s.block(i))
		if !ok {
			break
		}
		e.hits = append(e.hits, n)
		if e.pool.nodes[n].refs > 0 {
			used++
		}
	}
	return used
}

func (e *Engine) blocksFor(tokens int) int {
	return (tokens + e.cfg.BlockSize - 1) / e.cfg.BlockSize
}
