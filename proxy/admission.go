package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"net"
	"time"

	"lbd/access/keys"
	"lbd/admission"
	"lbd/affinity"
	"lbd/balancer"
	"lbd/proxy/internal/inbound"
)

// Admission is what decides about requests while their model is saturated. The zero
// value lets all pass.
type Admission struct {
	admission.Config
	// ClientHeader names the client where no API key does; "" = its address does.
	// Header names are in lower case.
	ClientHeader string
	// PriorityHeader holds the class of a request; "" = all are of the same.
	PriorityHeader string
	// TimeoutHeaders hold how long the client waits; the first one that is there counts.
	TimeoutHeaders []string
	// Priorities are the classes of clients by name. A header can lower them only.
	Priorities map[string]admission.Class
}

// passes says that the request has nothing to wait for. What is at home on one replica
// would wait for it alone, behind others that any replica can take; vLLM's own queue is
// as good a place.
func (x *exchange) passes() bool { return x.stored.id != nil || x.s.admission.Pass(x.want.model) }

// admitted waits, if the model is saturated, until the request has its turn. The
// reservation is empty when there was nothing to wait for.
func (x *exchange) admitted() (balancer.Reservation, *apiError) {
	if x.passes() {
		return balancer.Reservation{}, nil
	}
	ask := x.ask()
	res, ticket, err := x.hold(ask)
	x.ticket = ticket
	var refusal *admission.Refusal
	switch {
	case errors.As(err, &refusal):
		x.model.Rejected(string(refusal.Reason))
		if refusal.Waited > 0 {
			x.model.HeldFor.Observe(refusal.Waited.Seconds())
		}
		return res, overloaded(refusal, x.want.model.Name)
	case ticket.Waited > 0:
		x.model.HeldFor.Observe(ticket.Waited.Seconds())
	}
	return res, x.notAdmitted(err)
}

// hold counts as held also a request whose strategy panics, and no longer than that.
func (x *exchange) hold(ask admission.Ask) (balancer.Reservation, admission.Ticket, error) {
	x.model.Held.Inc()
	defer x.model.Held.Dec()
	return x.s.admission.Enter(x.want.model, asking{x}, ask)
}

// notAdmitted is the answer to a request that has waited for nothing.
func (x *exchange) notAdmitted(err error) *apiError {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, admission.ErrLeft):
		return &apiError{status: statusClientGone}
	case errors.Is(err, admission.ErrGone):
		snap := x.s.opt.Fleet.Snapshot()
		m := snap.Model([]byte(x.want.model.Name))
		if m == nil {
			return modelNotFound(snap, []byte(x.want.model.Name))
		}
		x.want.model = m // of which somebody out of service may answer
		return nil
	}
	return noHealthyReplica(x.want.model.Name)
}

// overloaded is the answer to a request that is refused.
func overloaded(r *admission.Refusal, model string) *apiError {
	e := &apiError{status: 429, kind: "overloaded", code: "overloaded", retryAfter: int(math.Ceil(r.RetryAfter.Seconds()))}
	why := ""
	switch r.Reason {
	case admission.QueueFull:
		why = "too many requests wait for it"
	case admission.TooOld:
		why = "the wait for it is longer than is allowed here"
	case admission.Deadline:
		why = "the wait for it is longer than the client's own timeout"
	case admission.PredictedTTFT:
		return tooLate(e, r, fmt.Sprintf("the first token of this request to %q is expected after", model))
	case admission.PredictedTPOT:
		return tooLate(e, r, fmt.Sprintf("each token after the first of this request to %q is expected to take", model))
	default:
		panic("BUG: refused for " + string(r.Reason))
	}
	e.message = fmt.Sprintf("every replica of %q is busy and %s; try again in %d s", model, why, e.retryAfter)
	if waited := r.Waited.Round(time.Millisecond); waited > 0 {
		e.message += fmt.Sprintf(" (this request has waited %s)", waited)
	}
	return e
}

// tooLate says by how much: a prompt that is long in itself is late at an idle replica.
func tooLate(e *apiError, r *admission.Refusal, expected string) *apiError {
	e.message = fmt.Sprintf("%s %s, which is longer than the %s allowed here; try again in %d s",
		expected, (r.Predicted + time.Millisecond - 1).Truncate(time.Millisecond), r.Allowed.Round(time.Millisecond), e.retryAfter)
	return e
}

// ask says what decides about the order.
func (x *exchange) ask() admission.Ask {
	cfg, req := &x.cfg.Admission, x.client.Request()
	client := x.clientName(req)
	return admission.Ask{
		Client: client, Class: cfg.class(req, client), Timeout: cfg.timeout(req),
		Prompt: keys.Estimate(len(x.req.Prompt)), MaxTokens: x.req.MaxTokens, Bytes: int64(x.bodySize()),
	}
}

// maxClientName bounds what a header may call a client, in bytes.
const maxClientName = 256

// clientName is the name of the API key, else what the configured header says, else
// the address. Behind a trusted proxy the address is the one it has put last into
// X-Forwarded-For.
func (x *exchange) clientName(req *inbound.Request) string {
	if k := x.owner.key; k != nil {
		return k.Name
	}
	if name := x.cfg.Admission.ClientHeader; name != "" {
		if v := field(req, name); len(v) > 0 {
			return string(v[:min(len(v), maxClientName)])
		}
	}
	if x.owner.peer.Trusted() {
		if last := lastForwarded(req); len(last) > 0 {
			return string(last[:min(len(last), maxClientName)])
		}
	}
	if tcp, ok := x.client.RemoteAddr().(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap().String()
	}
	return ""
}

func lastForwarded(req *inbound.Request) (last []byte) {
	for _, f := range req.Fields {
		if bytes.EqualFold(f.Name, []byte("X-Forwarded-For")) {
			last = f.Value[bytes.LastIndexByte(f.Value, ',')+1:]
		}
	}
	return bytes.TrimSpace(last)
}

// class is that of the client, which a header can lower; of a client that has none,
// what the header says. A header that says nothing sensible is not there.
func (c *Admission) class(req *inbound.Request, client string) admission.Class {
	class, configured := c.Priorities[client]
	if !configured {
		class = admission.Normal
	}
	if c.PriorityHeader == "" {
		return class
	}
	asked, err := admission.ParseClass(string(field(req, c.PriorityHeader)))
	switch {
	case err != nil:
		return class
	case configured:
		return max(class, asked)
	}
	return asked
}

func (c *Admission) timeout(req *inbound.Request) time.Duration {
	for _, name := range c.TimeoutHeaders {
		if d, ok := admission.ParseTimeout(string(field(req, name))); ok {
			return d
		}
	}
	return 0
}

// asking is an exchange as admission sees it: its methods are called while admitted
// waits.
type asking struct{ x *exchange }

// Place implements admission.Request. A reload may have changed the model meanwhile.
func (a asking) Place(m *balancer.Model, full []*balancer.Replica) (balancer.Reservation, error) {
	x := a.x
	x.now = time.Now()
	x.want.model, x.req.Now = m, x.now
	return m.Pick(&x.req, full)
}

// Prefers implements admission.Request. Only strategies that weigh the work of a
// request place it anywhere in particular; asking others would be a turn lost.
func (a asking) Prefers(m *balancer.Model) *balancer.Replica {
	switch p := m.Picker.(type) {
	case affinity.Preferrer:
		return p.Prefers(&a.x.req, m.Available)
	case balancer.Placer:
		return p.Pick(&a.x.req, m.Available)
	}
	return nil
}

// Predict implements admission.Request.
func (a asking) Predict(m *balancer.Model) (p balancer.Prediction, ok bool) {
	return m.Predict(&a.x.req)
}

// Gone implements admission.Request.
func (a asking) Gone() bool { return a.x.client.Gone() }

// Watch implements admission.Request. Where the system cannot tell, admission looks
// at Gone now and then.
func (a asking) Watch(left func()) { a.x.client.AwaitReadable(left) }

// AdmissionStats is the queue of a model.
func (s *Server) AdmissionStats(model string) admission.Stats { return s.admission.Stats(model) }
