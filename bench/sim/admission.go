package sim

import (
	"net/http"
	"sync"
)

// vLLM's refusals (vllm/exceptions.py@v0.32).
var (
	errQueueFull = &apiError{
		message: "The engine is currently busy and cannot accept new requests. Please try again later or on a different instance.",
		kind:    "Service Unavailable", code: http.StatusServiceUnavailable,
	}
	errBacklog = &apiError{
		message: "The engine has reached its prefill token backlog limit. Please try again later or on a different instance.",
		kind:    "Service Unavailable", code: http.StatusServiceUnavailable,
	}
)

// admission is AsyncLLM.check_admission (#49445) and what it goes by: the API server's own
// book of requests, which the gauges do not show.
type admission struct {
	maxReqs, maxTokens int // 0 = no limit

	mu      sync.Mutex
	prompts map[uint64]int // of each request that has not ended; 0 once it has a token
	tokens  int            // their sum
}

func newAdmission(cfg Config) *admission {
	return &admission{maxReqs: cfg.MaxNumQueuedReqs, maxTokens: cfg.MaxNumQueuedTokens, prompts: make(map[uint64]int)}
}

// check says why there is no room for n more, nil if there is.
func (a *admission) check(n int) *apiError {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.refusal(n)
}

func (a *admission) refusal(n int) *apiError {
	switch {
	case a.maxReqs > 0 && len(a.prompts)+n > a.maxReqs:
		return errQueueFull
	case a.maxTokens > 0 && a.tokens >= a.maxTokens:
		return errBacklog
	}
	return nil
}

// take books all choices of a prompt, or none. Nothing comes between look and booking,
// as in vLLM, so no two requests get the last place.
func (a *admission) take(choices []*choice) *apiError {
	a.mu.Lock()
	defer a.mu.Unlock()
	if e := a.refusal(len(choices)); e != nil {
		return e
	}
	for _, c := range choices {
		a.prompts[c.id] = c.prompt.tokens()
		a.tokens += c.prompt.tokens()
	}
	return nil
}

// computed notes a first token.
func (a *admission) computed(id uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if n, ok := a.prompts[id]; ok {
		a.tokens -= n
		a.prompts[id] = 0
	}
}

// ended strikes a request out; what is not booked is no matter.
func (a *admission) ended(id uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tokens -= a.prompts[id]
	delete(a.prompts, id)
}

// book looks once more whether there is room, now that prompts are rendered. Each is
// looked at for itself; the first that is refused takes the others along.
func (r *run) book(choices []*choice, n int) *apiError {
	for _, c := range choices {
		c.id = r.s.nextID.Add(1)
	}
	for i := 0; i < len(choices); i += n {
		if e := r.driver.admission.take(choices[i : i+n]); e != nil {
			for _, c := range choices[:i] {
				r.driver.admission.ended(c.id)
			}
			return e
		}
	}
	return nil
}

// room looks before a prompt is rendered (GenerateBaseServing._preflight), and answers
// if there is none.
func (r *run) room(x *exchange, n int) bool {
	e := r.driver.admission.check(n)
	if e != nil {
		r.refuse(x, e)
	}
	return e == nil
}

// refuse answers a request that there is no room for. The Messages API's router takes
// every exception for an error of its own.
func (r *run) refuse(x *exchange, e *apiError) {
	r.s.ledger.refuse(x)
	if x.anthropic {
		e = &apiError{message: e.message, kind: "internal_error", code: http.StatusInternalServerError}
	}
	r.reject(x, e)
}

// refuseLate refuses when the prompt is rendered. By then a stream's head is out. The
// Messages API's converter takes the event for a chunk, and complains of what that lacks.
func (r *run) refuseLate(x *exchange, g *genRequest, e *apiError, out sink) {
	if !g.stream {
		r.refuse(x, e)
		return
	}
	r.s.ledger.refuse(x)
	if x.anthropic {
		e = &apiError{message: "2 validation errors for ChatCompletionStreamResponse"}
	}
	if out.open() == nil {
		x.errorEvent(e)
	}
}
