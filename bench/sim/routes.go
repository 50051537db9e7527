package sim

import (
	"net/http"
	"strings"
	"time"
)

// route is one path of vLLM's router.
type route struct {
	methods string // space separated, as the allow header lists them
	api     bool   // carries a model: an inference call
	form    bool   // multipart, exempt from v0.19's content-type check
	serve   func(*run, *exchange)
}

// routesV064 are vllm/entrypoints/openai/api_server.py@v0.6.4.post1. The
// routes behind environment switches are there, because a balancer has to keep
// clients away from them.
var routesV064 = map[string]route{
	"/health":                 {methods: "GET", serve: (*run).health},
	"/version":                {methods: "GET", serve: (*run).version},
	"/v1/models":              {methods: "GET", serve: (*run).models},
	"/tokenize":               {methods: "POST", api: true, serve: (*run).tokenize},
	"/detokenize":             {methods: "POST", api: true, serve: (*run).detokenize},
	"/v1/chat/completions":    {methods: "POST", api: true, serve: (*run).chat},
	"/v1/completions":         {methods: "POST", api: true, serve: (*run).completion},
	"/v1/embeddings":          {methods: "POST", api: true, serve: (*run).embeddings},
	"/start_profile":          {methods: "POST", serve: (*run).accepted},
	"/stop_profile":           {methods: "POST", serve: (*run).accepted},
	"/v1/load_lora_adapter":   {methods: "POST", serve: (*run).lora},
	"/v1/unload_lora_adapter": {methods: "POST", serve: (*run).lora},
}

// routesV019 adds what v0.19 registers for a model with every task.
var routesV019 = merged(routesV064, map[string]route{
	"/ping":                     {methods: "GET, POST", serve: (*run).health},
	"/load":                     {methods: "GET", serve: (*run).load},
	"/score":                    {methods: "POST", api: true, serve: (*run).score},
	"/v1/score":                 {methods: "POST", api: true, serve: (*run).score},
	"/rerank":                   {methods: "POST", api: true, serve: (*run).rerank},
	"/v1/rerank":                {methods: "POST", api: true, serve: (*run).rerank},
	"/v2/rerank":                {methods: "POST", api: true, serve: (*run).rerank},
	"/pooling":                  {methods: "POST", api: true, serve: (*run).pooling},
	"/classify":                 {methods: "POST", api: true, serve: (*run).classify},
	"/invocations":              {methods: "POST", api: true, serve: (*run).invocations},
	"/v1/responses":             {methods: "POST", api: true, serve: (*run).responses},
	"/v1/messages":              {methods: "POST", api: true, serve: (*run).messages},
	"/v1/messages/count_tokens": {methods: "POST", api: true, serve: (*run).countTokens},
	"/v1/audio/transcriptions":  {methods: "POST", api: true, form: true, serve: (*run).transcriptions},
	"/v1/audio/translations":    {methods: "POST", api: true, form: true, serve: (*run).transcriptions},
	"/sleep":                    {methods: "POST", serve: (*run).sleepNow},
	"/wake_up":                  {methods: "POST", serve: (*run).wakeUp},
	"/is_sleeping":              {methods: "GET", serve: (*run).isSleeping},
	"/reset_prefix_cache":       {methods: "POST", serve: (*run).accepted},
	"/reset_mm_cache":           {methods: "POST", serve: (*run).accepted},
	"/reset_encoder_cache":      {methods: "POST", serve: (*run).accepted},
	"/pause":                    {methods: "POST", serve: (*run).accepted},
	"/resume":                   {methods: "POST", serve: (*run).accepted},
	"/server_info":              {methods: "GET", serve: (*run).accepted},
	"/scale_elastic_ep":         {methods: "POST", serve: (*run).accepted},
})

func merged(a, b map[string]route) map[string]route {
	m := make(map[string]route, len(a)+len(b))
	for k, v := range a {
		m[k] = v
	}
	for k, v := range b {
		m[k] = v
	}
	return m
}

// route finds a path's route and its template.
func (r *run) route(path string) (route, string, bool) {
	table := routesV064
	if r.cfg.Profile == ProfileV019 {
		table = routesV019
		if rest, ok := strings.CutPrefix(path, "/v1/responses/"); ok && rest != "" {
			return responseRoute(rest)
		}
	}
	rt, ok := table[path]
	return rt, path, ok
}

// handle runs one exchange to its end.
func (r *run) handle(x *exchange) {
	if rest, ok := strings.CutPrefix(x.path, "/sim/"); ok {
		r.control(x, rest)
		return
	}
	rt, handler, known := r.route(x.path)
	metrics := strings.HasPrefix(x.path, "/metrics")
	r.s.ledger.record(x, !metrics && x.path != "/health")
	if rt.api {
		r.s.ledger.received.Add(1)
	}
	x.api = rt.api
	r.middleware(x)
	began := time.Now()
	if !r.struck(x) {
		switch {
		case metrics:
			handler = "/metrics"
			r.metrics(x)
		case !known:
			handler = r.unknown(x)
		default:
			r.dispatch(x, rt)
		}
	}
	if x.status != 0 {
		r.meters.answered(handler, x.req.Method, x.status, max(x.req.ContentLength, 0), x.declared, time.Since(began))
	}
}

// middleware prepares the headers the profile adds to every answer.
func (r *run) middleware(x *exchange) {
	if r.cfg.Profile != ProfileV064 && !r.cfg.RequestIDHeaders {
		return
	}
	id := x.req.Header.Get("X-Request-Id")
	if id == "" {
		id = r.s.ids.uuid()
	}
	x.extra = "x-request-id: " + id + "\r\n"
}

// unknown answers a path without a route: a redirect if only a slash at the
// end is too much (starlette's redirect_slashes), else 404.
func (r *run) unknown(x *exchange) (handler string) {
	if bare := strings.TrimSuffix(x.path, "/"); bare != x.path {
		if _, _, ok := r.route(bare); ok {
			to := *x.req.URL
			to.Scheme, to.Host, to.Path = "http", x.req.Host, bare
			x.location(to.String())
			return x.path
		}
	}
	x.json(http.StatusNotFound, detail("Not Found"))
	return "none"
}

type detailBody struct {
	Detail string `json:"detail"`
}

func detail(s string) detailBody { return detailBody{s} }

func (r *run) dispatch(x *exchange, rt route) {
	if !strings.Contains(rt.methods, x.req.Method) {
		if r.authorized(x) {
			x.respond(http.StatusMethodNotAllowed, jsonType, encodeJSON(detail("Method Not Allowed")), "allow: "+rt.methods)
		}
		return
	}
	if !r.authorized(x) {
		return
	}
	if rt.api && !rt.form && r.cfg.Profile == ProfileV019 && !x.isJSON() {
		r.invalid(x, "", `Unsupported Media Type: Only 'application/json' is allowed`)
		return
	}
	rt.serve(r, x)
}

// authorized checks --api-key: paths below /v1 only, OPTIONS exempt.
func (r *run) authorized(x *exchange) bool {
	if r.cfg.APIKey == "" || !strings.HasPrefix(x.path, "/v1") || x.req.Method == http.MethodOptions {
		return true
	}
	auth := x.req.Header.Get("Authorization")
	if r.cfg.Profile == ProfileV019 { // the scheme is compared without case there
		if scheme, token, ok := strings.Cut(auth, " "); ok && strings.EqualFold(scheme, "bearer") && token == r.cfg.APIKey {
			return true
		}
	} else if auth == "Bearer "+r.cfg.APIKey {
		return true
	}
	x.json(http.StatusUnauthorized, map[string]string{"error": "Unauthorized"})
	return false
}

// isJSON is v0.19's validate_json_request.
func (x *exchange) isJSON() bool {
	media, _, _ := strings.Cut(strings.ToLower(x.req.Header.Get("Content-Type")), ";")
	return media == jsonType
}

// struck lets the faults that come before any handler strike, and reports
// whether one did.
func (r *run) struck(x *exchange) bool {
	f := r.s.faults
	if hit := f.strike(x.path, func(f *Faults) **Fault { return &f.Hang }); hit != nil {
		r.s.ledger.faulted.Add(1)
		<-x.ctx.Done()
		x.broken = true
		return true
	}
	loading := f.on(func(f *Faults) **Fault { return &f.Loading })
	if loading && (x.api || x.path == "/health" || x.path == "/v1/models") {
		x.json(http.StatusServiceUnavailable, detail("Service Unavailable"))
		return true
	}
	if !x.api {
		return false
	}
	hit := f.strike(x.path, func(f *Faults) **Fault { return &f.ResetBefore }, func(f *Faults) **Fault { return &f.Status },
		func(f *Faults) **Fault { return &f.BadHead })
	if hit == nil {
		return false
	}
	r.s.ledger.faulted.Add(1)
	switch hit.name {
	case "status":
		r.failStatus(x, hit.code())
	case "bad_head":
		x.c.nc.Write([]byte("HTTP/9.9 xyz nonsense\r\n\r\n"))
		x.broken = true
	default:
		x.c.reset()
		x.broken = true
	}
	return true
}
