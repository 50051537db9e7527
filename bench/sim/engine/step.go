package engine

import (
	"container/heap"
	"slices"
	"time"
)

// Step runs one scheduler step and appends to evs what it did. On return the engine is in the state of the step's end;
// the events take effect then too. Without requests it does nothing and returns 0.
func (e *Engine) Step(evs []Event) (time.Duration, []Event) {
	if e.running.n == 0 && e.waiting.n == 0 {
		return 0, evs
	}
	e.chunks, e.bumped, e.round, e.decoded, e.events = e.chunks[:0], e.bumped[:0], false, 0, evs
	e.schedule()
	work := e.shape()
	if work.Tokens == 0 {
		panic("BUG: a step without a token")
	}
	d := milliseconds(e.preset.stepMS(e.cfg.Profile, work) * e.jitter())
	e.count.Busy += d
	e.count.Steps++
	if e.round {
		e.endRound()
	}
	for _, c := range e.chunks {
		e.endChunk(c)
	}
	evs, e.events = e.events, nil
	return d, evs
}

// shape adds up the work that was scheduled.
func (e *Engine) shape() Shape {
	w := Shape{Sequences: len(e.chunks)}
	if e.round {
		w.Sequences += e.decodes
		w.Tokens, w.Decodes, w.KVTokens = e.decodes, e.decodes, e.kvTokens
	}
	for _, c := range e.chunks {
		x := float64(c.tokens)
		w.Tokens += c.tokens
		w.Pairs += x * (float64(c.s.computed) + x/2)
	}
	return w
}

// endRound gives every decoding sequence its token. Only those at a block's end or at their own are touched, unless
// every token is to be told.
func (e *Engine) endRound() {
	e.rounds++
	e.decoded = e.decodes
	e.kvTokens += e.decodes
	e.count.GenerationTokens += uint64(e.decodes)
	if e.caching {
		e.publishFull()
	}
	if !e.cfg.Quiet {
		e.tellRound()
	} else if e.cfg.Progress {
		e.tellProgress()
	}
	for len(e.due) > 0 && e.due[0].due == e.rounds {
		s := e.due[0]
		e.leave(s)
		if e.cfg.Quiet {
			e.tell(s, Event{Finished: true})
		}
		e.finish(s)
	}
}

// publishFull makes the blocks known that this round has filled.
func (e *Engine) publishFull() {
	for s := e.growth[e.rounds%uint64(e.cfg.BlockSize)].head; s != nil; s = s.links[inGrowth].next {
		e.publish(s, s.computed+int(e.rounds-s.joined))
	}
}

func (e *Engine) tellRound() {
	for s := e.running.head; s != nil; s = s.links[inOrder].next {
		if s.state == decoding {
			e.events = append(e.events, Event{ID: s.id, Tokens: 1, Finished: s.due == e.rounds})
		}
	}
}

// tellProgress reports those that have filled a block in this round.
func (e *Engine) tellProgress() {
	for s := e.growth[e.rounds%uint64(e.cfg.BlockSize)].head; s != nil; s = s.links[inGrowth].next {
		if n := s.emitted + int(e.rounds-s.joined); n > s.told {
			e.events = append(e.events, Event{ID: s.id, Tokens: n - s.told})
			s.told = n
		}
	}
}

// endChunk counts a computed part of a prompt; the last part yields a token.
func (e *Engine) endChunk(c chunk) {
	s := c.s
	s.computed += c.tokens
	e.count.PrefillTokens += uint64(c.tokens)
	if e.caching {
		e.publish(s, s.computed)
	}
	if s.computed < s.total() {
		return
	}
	first := s.emitted == 0
	s.emitted++
	e.count.GenerationTokens++
	ev := Event{Tokens: 1, First: first, Finished: s.emitted == s.output}
	if first {
		e.count.PromptTokens += uint64(s.prompt)
		ev.CachedTokens, ev.Queued = s.cached, s.admitted-s.submitted
	}
	if first || ev.Finished || !e.cfg.Quiet {
		e.tell(s, ev)
	}
	if ev.Finished {
		e.leave(s)
		e.finish(s)
		return
	}
	e.decode(s)
}

// decode moves a sequence whose prompt is computed to the decoding ones.
func (e *Engine) decode(s *sequence) {
	e.endPrefill(s)
	s.state = decoding
	s.joined = e.rounds
	s.due = e.rounds + uint64(s.output-s.emitted)
	e.decodes++
	e.kvTokens += s.computed
	size := uint64(e.cfg.BlockSize)
	s.slot = int((e.rounds + size - uint64(s.computed)%size) % size)
	e.growth[s.slot].pushBack(s)
	heap.Push(&e.due, s)
}

func (e *Engine) endPrefill(s *sequence) {
	i := slices.Index(e.prefills, s)
	e.prefills = slices.Delete(e.prefills, i, i+1)
}

// publish makes the first computed/BlockSize blocks of a sequence known to the prefix cache.
func (e *Engine) publish(s *sequence, computed int) {
	for full := computed / e.cfg.BlockSize; len(s.published) < full; {
		n := e.pool.publish(s.block(len(s.published)))
		s.published = append(s.published, n)
		if n != none {
			s.pins++
		}
	}
}

func (e *Engine) finish(s *sequence) {
	e.count.Finished++
	e.forget(s)
}

// tell appends an event of s. When quiet it carries all tokens since the last one.
func (e *Engine) tell(s *sequence, ev Event) {
	ev.ID = s.id
	if e.cfg.Quiet {
		ev.Tokens = s.emitted - s.told
		s.told = s.emitted
	}
	e.events = append(e.events, ev)
}
