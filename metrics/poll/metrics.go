package poll

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"lbd/balancer"
)

// startPoll begins a poll unless the last one is under way.
func (p *Poller) startPoll(t *target, cfg *Config) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.metrics.underWay {
		return
	}
	t.metrics.underWay = true
	r, cheap := t.replica, t.metrics.cheap(p.opts.Now())
	p.wg.Go(func() {
		defer func() {
			t.mu.Lock()
			t.metrics.underWay = false
			t.mu.Unlock()
		}()
		p.slot(cfg.Timeout, func(ctx context.Context) { p.poll(ctx, t, r, cheap) })
	})
}

func (p *Poller) poll(ctx context.Context, t *target, r *balancer.Replica, cheap bool) {
	mark, full, err := p.read(ctx, t, r, cheap)
	switch {
	case p.ctx.Err() != nil:
	case err != nil:
		p.pollFailed(t, err)
	default:
		if t.page.unreadable > 0 {
			t.failures.Add(1) // what could be read counts nevertheless
		}
		p.pollAnswered(t, r, mark, t.page.sample(), cheap, full)
	}
	if cap(t.buf) > 1<<20 {
		t.buf = nil // one huge page is no reason to keep its room
	}
}

// read fills the target's page, by the cheap form if that gives anything. The
// mark is that of the request that was answered.
func (p *Poller) read(ctx context.Context, t *target, r *balancer.Replica, cheap bool) (mark balancer.PollMark, full bool, err error) {
	if cheap {
		mark = r.BeginPoll()
		status, err := p.fetchPage(ctx, t, r, cheapPath)
		if err != nil || status == http.StatusOK && t.page.scan(t.buf) > 0 {
			return mark, false, err
		}
	}
	mark = r.BeginPoll()
	status, err := p.fetchPage(ctx, t, r, fullPath)
	switch {
	case err != nil || status == http.StatusOK:
	case status >= 500:
		err = fmt.Errorf("%s: status %d", fullPath, status)
	default:
		err = refusal{fmt.Errorf("%s: status %d", fullPath, status)}
	}
	if n := t.page.scan(t.buf); err == nil && n == 0 && (t.page.unreadable > 0 || !isExposition(t.buf)) {
		err = refusal{errNoExposition}
	}
	return mark, true, err
}

func (p *Poller) fetchPage(ctx context.Context, t *target, r *balancer.Replica, path string) (status int, err error) {
	key := ""
	if cfg := p.config.Load(); cfg.KeyOnMetrics {
		key = cfg.key(r.Listed)
	}
	status, t.buf, err = p.opts.Fetcher.Fetch(ctx, r, path, key, t.buf[:0])
	return status, err
}

func (p *Poller) pollFailed(t *target, err error) {
	t.failures.Add(1)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.metrics.failing.news(err) {
		p.tellFailed(Failed, t, err)
	}
}

func (p *Poller) pollAnswered(t *target, r *balancer.Replica, mark balancer.PollMark, s balancer.Sample, cheap, full bool) {
	now := p.opts.Now()
	t.answeredAt.Store(&now)
	t.mu.Lock()
	defer t.mu.Unlock()
	m := &t.metrics
	restarted, stuck := m.take(s, r.InFlight(), now)
	p.notePage(t, s, cheap, full, now)
	if m.failing != answering {
		m.failing, m.full = answering, false // whoever answers now may be another version
		p.tell(Recovered, t, "")
	}
	if restarted {
		m.full, t.models.wanted = false, true
		p.tell(Restarted, t, "")
		p.poke()
	}
	if stuck {
		// Not published: it is what is published, and would look trustworthy until
		// marked.
		if r.MarkStale(); !m.stale {
			m.stale = true
			p.tell(Stale, t, "gauges stand still without a request of ours")
		}
		return
	}
	r.EndPoll(mark, s, now)
	if m.stale {
		m.stale = false
		p.tell(Fresh, t, "")
	}
}

// notePage notes how the page was read (cheap: that form was tried, full: the
// other one was needed) and whether it says anything of load.
func (p *Poller) notePage(t *target, s balancer.Sample, cheap, full bool, now time.Time) {
	m := &t.metrics
	if cheap && full {
		m.fullSince = now
	}
	m.full = full
	none := !s.Running.Known && !s.Waiting.Known
	if full && !m.toldFull && !none {
		m.toldFull = true
		p.tell(FullPage, t, "no answer to name[]")
	}
	if none && !m.noMetrics {
		p.tell(NoMetrics, t, "neither running nor waiting requests on the page; V0 shows them after its first step, --disable-log-stats never")
	}
	m.noMetrics = none
}

// expire drops the foreign part of a replica that has not answered for long. The
// last values stay for operators.
func (p *Poller) expire(t *target, cfg *Config, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	last, ever := t.lastAnswer()
	if !ever || now.Sub(last) < cfg.staleAfter() {
		return
	}
	if t.replica.MarkStale() && !t.metrics.stale {
		t.metrics.stale = true
		p.tell(Stale, t, fmt.Sprintf("no answer for %v", now.Sub(last).Round(time.Millisecond)))
	}
}

// lastAnswer is when what the replica shows was read. One that left the fleet with
// requests running and came back still shows what was read before, by another target;
// until that is stale each poll that fails would leave an epoch behind it as well.
func (t *target) lastAnswer() (at time.Time, ever bool) {
	if at := t.answeredAt.Load(); at != nil {
		return *at, true
	}
	if p := t.replica.Polled(); p != nil {
		return p.At, true
	}
	return time.Time{}, false
}
