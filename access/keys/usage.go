package keys

import (
	"sync/atomic"
	"time"
)

// usage is what one client has used. It outlives reloads.
type usage struct {
	inFlight         atomic.Int64
	requests, tokens bucket

	admitted atomic.Uint64
	spent    atomic.Uint64 // tokens
	refused  [reasons]atomic.Uint64
}

// bytesPerToken turns text into tokens where no replica said how many it was:
// OpenAI's rule of thumb for English
// (https://help.openai.com/en/articles/4936856).
const bytesPerToken = 4

// Estimate returns about how many tokens so many bytes of text are.
func Estimate(bytes int) int64 { return (int64(bytes) + bytesPerToken - 1) / bytesPerToken }

// Grant is the leave for one request. The zero value is that of a request that
// needs none: ending it does nothing.
type Grant struct {
	client   *Client
	reserved int64 // tokens taken from the bucket beforehand
}

// inFlightRetry is told to a client that is over its requests in flight: when one
// of them ends, nobody knows.
const inFlightRetry = time.Second

// Begin lets a request in, or says which limit it is over. It belongs behind the
// look at the body, when the model is known and allowed, and in front of the first
// pick. prompt is an estimate, in tokens.
func (c *Client) Begin(now time.Time, prompt int64) (Grant, Refusal) {
	u, t := c.usage, c.keys.clock(now)
	if n := u.inFlight.Add(1); c.MaxInFlight > 0 && n > c.MaxInFlight {
		u.inFlight.Add(-1)
		return Grant{}, c.refuse(InFlight, inFlightRetry)
	}
	if l := c.RequestsPerMinute; l > 0 {
		if wait := u.requests.take(t, 1, l); wait > 0 {
			u.inFlight.Add(-1)
			return Grant{}, c.refuse(Requests, wait)
		}
	}
	g := Grant{client: c}
	if l := c.TokensPerMinute; l > 0 {
		g.reserved = min(max(prompt, 1), l, maxCharge)
		if wait := u.tokens.take(t, g.reserved, l); wait > 0 {
			if r := c.RequestsPerMinute; r > 0 {
				u.requests.charge(t, -1, r)
			}
			u.inFlight.Add(-1)
			return Grant{}, c.refuse(Tokens, wait)
		}
	}
	u.admitted.Add(1)
	return g, Refusal{}
}

// End gives the leave back and charges the tokens that were used: prompt and
// completion of usage, or an estimate of both; 0 for a request that reached no
// replica. A further End does nothing.
func (g *Grant) End(now time.Time, tokens int64) {
	c := g.client
	if c == nil {
		return
	}
	g.client = nil
	tokens = min(max(tokens, 0), maxCharge)
	c.usage.inFlight.Add(-1)
	c.usage.spent.Add(uint64(tokens))
	if l := c.TokensPerMinute; l > 0 {
		c.usage.tokens.charge(c.keys.clock(now), tokens-g.reserved, l)
	}
}

// Client returns the name to log, "" for a request that needs no leave.
func (g *Grant) Client() string {
	if g.client == nil {
		return ""
	}
	return g.client.Name
}

// Usage is what one client has used since lbd started, for metrics and operators.
type Usage struct {
	Name     string
	InFlight int64
	Admitted uint64 // requests
	Tokens   uint64
	Refused  map[Reason]uint64
}

// Usage returns what the clients in force have used, in the order of the entries,
// and what was refused to those without a valid key, under the name "none".
func (k *Keys) Usage() []Usage {
	r := k.ring.Load()
	if !r.on {
		return nil
	}
	all := make([]Usage, 0, len(r.clients)+1)
	for _, c := range r.clients {
		u := Usage{
			Name: c.Name, InFlight: c.usage.inFlight.Load(), Admitted: c.usage.admitted.Load(), Tokens: c.usage.spent.Load(),
			Refused: map[Reason]uint64{},
		}
		for _, reason := range []Reason{Model, InFlight, Requests, Tokens} {
			u.Refused[reason] = c.usage.refused[reason].Load()
		}
		all = append(all, u)
	}
	nobody := Usage{Name: reserved[0], Refused: map[Reason]uint64{}}
	for _, reason := range []Reason{Missing, Unknown, Ambiguous} {
		nobody.Refused[reason] = k.refused[reason].Load()
	}
	return append(all, nobody)
}
