package proxy

import (
	"bytes"
	"net/http"

	"lbd/affinity"
	"lbd/balancer"
	"lbd/proxy/internal/inbound"
	"lbd/proxy/internal/openai"
	"lbd/proxy/internal/relay"
)

// responsesPath is where responses are made and, below it, kept. Only its plain
// spelling is looked at: another one is relayed without affinity.
const responsesPath = "/v1/responses"

// stored is what a request has to do with responses that replicas keep.
type stored struct {
	id      []byte            // of the response that the request is about or goes on from; nil = none
	about   bool              // the path names it, and nothing is generated
	home    *balancer.Replica // where it is, if that is out of service
	deletes bool
	makes   bool // the answer is a new response
	asked   bool // nobody knows where it is, so candidates are asked in turn
}

// responsePath reads the path of a request to the responses API. ok is false for any
// other path.
func responsePath(target []byte) (id []byte, ok bool) {
	rest, ok := bytes.CutPrefix(target, []byte(responsesPath))
	if !ok {
		return nil, false
	}
	rest = pathOnly(rest)
	switch {
	case len(rest) == 0:
		return nil, true
	case rest[0] != '/':
		return nil, false
	}
	id, _, _ = bytes.Cut(rest[1:], []byte("/"))
	return id, true
}

// maxAsked is how many replicas are asked for a response that nobody knows of: a bound
// on what a made-up id costs the fleet.
const maxAsked = 16

// findResponse is understand for the responses API: it finds where the response is that
// a request is about or goes on from, and so its model where the request names none.
func (x *exchange) findResponse(w *want, refused *apiError) *apiError {
	id, ok := responsePath(x.head.target)
	if !ok || x.s.opt.Affinity == nil {
		return refused
	}
	post := string(x.head.method) == "POST"
	if about := len(id) > 0; about {
		if refused != nil && refused.code != "model_required" {
			return refused
		}
		x.stored = stored{id: id, about: true, deletes: string(x.head.method) == "DELETE"}
	} else {
		if refused != nil || !post {
			return refused
		}
		x.stored = stored{id: w.peek.Text(x.body, openai.PreviousResponse), makes: true}
	}
	if x.stored.id == nil {
		return nil
	}
	f := x.s.opt.Affinity.Find(x.stored.id, w.named(), x.allowed(), x.start)
	if f.Model == nil {
		return modelRequired(x.s.opt.Fleet.Snapshot())
	}
	x.s.opt.Affinity.Count(f)
	if w.model = f.Model; f.Asked {
		x.askAround()
	}
	x.stored.home, w.any = f.Out, f.Any
	return nil
}

// named is the model that the request itself names, nil if it leaves it open.
func (w *want) named() *balancer.Model {
	if !w.peek.HasModel {
		return nil
	}
	return w.model
}

// allowed is which models the client may use; nil = all.
func (x *exchange) allowed() func(*balancer.Model) bool {
	k := x.owner.key
	if k == nil || !k.Restricted() {
		return nil
	}
	return func(m *balancer.Model) bool { return k.Allows(m.Name, m.Aliases) }
}

// looksAround says that the request is for a response that may be any model's of those
// that the client may use.
func (x *exchange) looksAround() bool { return x.stored.id != nil && x.want.any }

// askAround lets a request go to more replicas than one that may have run.
func (x *exchange) askAround() {
	x.stored.asked = true
	wide := *x.cfg
	wide.MaxAttempts = max(wide.MaxAttempts, maxAsked)
	x.cfg = &wide
}

// notThere handles the 404 of a replica that was asked for a response it does not have.
// Nothing ran: vLLM looks for the response before all else (v0.11 to v0.19,
// create_responses in vllm/entrypoints/openai/serving_responses.py).
func (x *exchange) notThere(body []byte) verdict {
	if !x.stored.asked || x.status != 404 || !x.stored.about && !unknownResponse(body) || !x.othersLeft() {
		return verdict{}
	}
	x.dropFirst()
	return verdict{retry: "response_not_found", err: clientError(404, "response_not_found", "no replica has that response")}
}

// unknownResponse recognises vLLM's "Response with id 'X' not found."
func unknownResponse(body []byte) bool {
	return bytes.Contains(body, []byte("Response with id ")) && bytes.Contains(body, []byte("not found"))
}

// noteStored learns from an answer where a response is. An id that is new is read from
// the answer in passing.
func (x *exchange) noteStored() {
	s := &x.stored
	if x.status >= 300 {
		return
	}
	switch {
	case s.id != nil && s.deletes:
		x.s.opt.Affinity.Forget(s.id)
	case s.id != nil && s.asked:
		x.Made(s.id)
	}
	if s.makes && (x.answer.SSE || x.answer.JSON) {
		x.sniff.Made, x.sniff.MadeOnly = x, x.stream.Sniff == nil
		x.stream.Sniff = &x.sniff
	}
}

// Made implements relay.Made.
func (x *exchange) Made(id []byte) {
	x.s.opt.Affinity.Learn(id, x.replica, x.want.model.Name, x.now)
}

var _ relay.Made = (*exchange)(nil)

// session is what the client calls the session of a request, 0 if nothing that counts.
// header returns the first field of a name in lower case.
func session(h *affinity.Homes, model, client string, header func(name string) []byte, p *openai.Peek, body []byte) uint64 {
	if h == nil {
		return 0
	}
	headers, fields := h.Names()
	for _, name := range headers {
		if v := header(name); len(v) > 0 {
			return h.Session(model, client, v)
		}
	}
	for _, name := range fields {
		if v := p.Text(body, sessionFields[name]); v != nil {
			return h.Session(model, client, v)
		}
	}
	return 0
}

// sessionFields are the fields of a body that can name a session; config knows their names.
var sessionFields = map[string]openai.Field{"prompt_cache_key": openai.PromptCacheKey, "user": openai.User}

func (x *exchange) session(req *inbound.Request) uint64 {
	return session(x.s.opt.Affinity, x.want.model.Name, x.keyName, func(name string) []byte { return field(req, name) }, &x.want.peek, req.Body)
}

// explained is what a dry run knows of state: the session, and where the response is that
// a body goes on from.
func (s *Server) explained(w *want, req *balancer.Request, head http.Header, body []byte) (found affinity.Found) {
	if s.opt.Affinity == nil {
		return found
	}
	req.Session = session(s.opt.Affinity, w.model.Name, "", func(name string) []byte { return []byte(head.Get(name)) }, &w.peek, body)
	if id := w.peek.Text(body, openai.PreviousResponse); id != nil {
		return s.opt.Affinity.Find(id, w.model, nil, req.Now)
	}
	return found
}
