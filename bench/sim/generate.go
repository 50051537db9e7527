package sim

import (
	"context"
	"errors"
	"strings"
	"time"

	"lbd/bench/sim/engine"
)

// choice is one of the n texts of one prompt, decided before it is generated:
// text and length depend on prompt, seed and limits only.
type choice struct {
	index  int
	prompt *prompt
	story  story
	want   int // tokens, end-of-text included
	text   int // bytes of text in them
	reason string
	stop   string // the stop string that ended it
	id     uint64

	tokens int // delivered
	done   bool
	cached int
	lead   string // echoed text, before the first token
}

// decide plans choice i of a prompt.
func (r *run) decide(g *genRequest, prompt, i int) *choice {
	p := &g.prompts[prompt]
	seed := hashBytes(fnvOffset^r.cfg.Seed, p.data)
	c := &choice{
		index: prompt*g.n + i, prompt: p,
		story: story(seed + uint64(g.seed)*fnvPrime + uint64(i)*fnvOffset), reason: "length",
	}
	limit := r.eng.MaxModelLen - p.tokens()
	if g.limit != nil {
		limit = min(limit, *g.limit)
	}
	limit = max(limit, 1)
	c.want, c.text = limit, limit*tokenBytes
	if natural := max(c.story.natural(), g.minTokens+1); !g.ignoreEOS && natural <= limit {
		c.want, c.reason = natural, "stop"
		c.text = (natural - 1) * tokenBytes // end-of-text has no text
	}
	c.cut(g)
	if g.echo && g.echoed != nil {
		c.lead = g.echoed[min(prompt, len(g.echoed)-1)]
	}
	return c
}

// cut ends the choice at the first stop string in its text.
func (c *choice) cut(g *genRequest) {
	if len(g.stop) == 0 {
		return
	}
	text := string(c.story.appendWords(nil, 0, c.text/tokenBytes))
	at := len(text)
	for _, s := range g.stop {
		if i := strings.Index(text, s); s != "" && i >= 0 && i < at {
			at, c.stop = i, s
		}
	}
	if c.stop == "" {
		return
	}
	end := at + len(c.stop)
	c.want, c.reason, c.text = (end+tokenBytes-1)/tokenBytes, "stop", at
	if g.keepStop {
		c.text = end
	}
}

// piece is the text of tokens [from, to).
func (c *choice) piece(from, to int) string {
	b := c.story.appendWords(nil, from, to)
	if most := max(c.text-from*tokenBytes, 0); len(b) > most {
		b = b[:most]
	}
	return string(b)
}

// sink writes one kind of answer.
type sink interface {
	open() error                                 // after validation, before the first token
	deliver(c *choice, from, to int) error       // tokens [from, to) of c; c.done with the last
	finish(choices []*choice, prompts int) error // all are done
}

// generation runs one request through the engine into a sink.
func (r *run) generate(x *exchange, g *genRequest, out sink) {
	if !r.room(x, g.n) || !r.pause(x.ctx, r.cfg.apiTime(promptBytes(g.prompts), r.s.ids.uniform())) {
		return
	}
	job := newJob(r.cfg.Profile == ProfileV019 && !r.cfg.Unmerged)
	var choices []*choice
	tokens := 0
	for p := range g.prompts {
		tokens += g.prompts[p].tokens()
		for i := range g.n {
			choices = append(choices, r.decide(g, p, i))
		}
	}
	began := time.Now()
	if !r.submit(x, g, job, choices, out) {
		return
	}
	r.s.ledger.started.Add(1)
	err := out.open()
	if err == nil {
		err = r.pump(x, job, choices, out)
	}
	if err == nil {
		// Counted before the last byte: who has the answer finds it counted.
		r.s.ledger.finished.Add(1)
		if err = out.finish(choices, tokens); err != nil || x.broken {
			r.s.ledger.finished.Add(-1)
		}
	}
	switch {
	case errors.Is(err, errEnded):
		r.drop(choices)
		r.s.ledger.finished.Add(1)
	case err != nil || x.broken:
		r.leave(x, choices, began)
	}
}

func promptBytes(ps []prompt) int {
	n := 0
	for i := range ps {
		n += ps[i].text
	}
	return n
}

// submit hands every choice to the engine, or answers why one was refused.
func (r *run) submit(x *exchange, g *genRequest, job *job, choices []*choice, out sink) bool {
	if e := r.book(choices, g.n); e != nil {
		r.refuseLate(x, g, e, out)
		return false
	}
	for i, c := range choices {
		limit := c.want
		if g.limit != nil {
			limit = *g.limit
		}
		err := r.driver.generate(
			engine.Request{
				ID: c.id, PromptTokens: max(c.prompt.tokens(), 1), OutputTokens: c.want,
				Blocks: c.prompt.blocks(r.eng.BlockSize, g.salt),
			},
			&generation{
				id: c.id, choice: i, job: job, want: c.want, prompt: c.prompt.tokens(),
				maxTokens: limit, n: g.n, reason: c.reason,
			})
		if err == nil {
			continue
		}
		r.drop(choices)
		if !errors.Is(err, errBroken) {
			r.reject(x, r.badRequest(err.Error(), "", nil))
		}
		return false
	}
	return true
}

// pump carries deliveries to the sink until every choice is done.
func (r *run) pump(x *exchange, job *job, choices []*choice, out sink) error {
	var batch []delivery
	for open := len(choices); open > 0; {
		select {
		case <-x.ctx.Done():
			return errBroken
		case <-job.notify:
		}
		batch = job.take(batch)
		for _, d := range batch {
			c := choices[d.choice]
			from := c.tokens
			c.tokens += d.tokens
			c.cached = max(c.cached, d.cached)
			if d.finished {
				c.done = true
				open--
			}
			if err := out.deliver(c, from, c.tokens); err != nil {
				return err
			}
		}
	}
	return nil
}

// leave aborts what the engine still works on. v0.6.4 notices a lost client
// only when it next looks (iterate_with_cancellation).
func (r *run) leave(x *exchange, choices []*choice, began time.Time) {
	x.c.nc.Close()
	x.broken = true
	left := !x.cut && r.ctx.Err() == nil
	if poll := r.cfg.AbortPoll; poll > 0 && left {
		r.pause(r.ctx, poll-time.Since(began)%poll)
	}
	r.drop(choices)
	if left {
		r.s.ledger.aborted.Add(1)
	} else {
		r.s.ledger.lost.Add(1)
	}
}

// drop aborts the choices that are not done.
func (r *run) drop(choices []*choice) {
	for _, c := range choices {
		if !c.done {
			r.driver.cancel(c.id)
		}
	}
}

// pause sleeps; false means ctx ended first.
func (r *run) pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// usageInfo is UsageInfo.
type usageInfo struct {
	PromptTokens     int           `json:"prompt_tokens"`
	TotalTokens      int           `json:"total_tokens"`
	CompletionTokens int           `json:"completion_tokens"`
	Details          *cachedTokens `json:"prompt_tokens_details"`
}

type cachedTokens struct {
	Cached int `json:"cached_tokens"`
}

// usageOf adds the choices up. Both releases leave the details out when
// nothing was cached.
func (r *run) usageOf(prompts int, choices []*choice) usageInfo {
	u := usageInfo{PromptTokens: prompts, TotalTokens: prompts}
	if n := choices[0].cached; r.cfg.PromptTokensDetails && n > 0 {
		u.Details = &cachedTokens{n}
	}
	for _, c := range choices {
		u.CompletionTokens += c.tokens
		u.TotalTokens += c.tokens
	}
	return u
}
