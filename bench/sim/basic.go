package sim

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// health of a dead engine is 500 up to v0.10 and 503 since v0.11 (#24897).
func (r *run) health(x *exchange) {
	status := http.StatusOK
	if r.s.faults.on(func(f *Faults) **Fault { return &f.Unhealthy }) {
		status = http.StatusServiceUnavailable
		if r.cfg.Profile == ProfileV064 {
			status = http.StatusInternalServerError
		}
	}
	x.empty(status)
}

func (r *run) version(x *exchange) {
	x.json(http.StatusOK, map[string]string{"version": r.cfg.Profile.version()})
}

// load is always 0 without --enable-server-load-tracking.
func (r *run) load(x *exchange) { x.json(http.StatusOK, map[string]int{"server_load": 0}) }

// accepted answers a control route that has nothing to say.
func (r *run) accepted(x *exchange) { x.empty(http.StatusOK) }

type modelCard struct {
	ID          string            `json:"id"`
	Object      string            `json:"object"`
	Created     int64             `json:"created"`
	OwnedBy     string            `json:"owned_by"`
	Root        string            `json:"root"`
	Parent      *string           `json:"parent"`
	MaxModelLen int               `json:"max_model_len"`
	Permission  []modelPermission `json:"permission"`
}

type modelPermission struct {
	ID                 string  `json:"id"`
	Object             string  `json:"object"`
	Created            int64   `json:"created"`
	AllowCreateEngine  bool    `json:"allow_create_engine"`
	AllowSampling      bool    `json:"allow_sampling"`
	AllowLogprobs      bool    `json:"allow_logprobs"`
	AllowSearchIndices bool    `json:"allow_search_indices"`
	AllowView          bool    `json:"allow_view"`
	AllowFineTuning    bool    `json:"allow_fine_tuning"`
	Organization       string  `json:"organization"`
	Group              *string `json:"group"`
	IsBlocking         bool    `json:"is_blocking"`
}

type modelList struct {
	Object string      `json:"object"`
	Data   []modelCard `json:"data"`
}

func (r *run) models(x *exchange) {
	list := modelList{Object: "list"}
	now := time.Now().Unix()
	for _, name := range slices.Concat([]string{r.cfg.Model}, r.cfg.Aliases) {
		list.Data = append(list.Data, modelCard{
			ID: name, Object: "model", Created: now, OwnedBy: "vllm", Root: r.cfg.Model, MaxModelLen: r.eng.MaxModelLen,
			Permission: []modelPermission{{
				ID: "modelperm-" + r.s.ids.uuid(), Object: "model_permission", Created: now,
				AllowSampling: true, AllowLogprobs: true, AllowView: true, Organization: "*",
			}},
		})
	}
	x.json(http.StatusOK, list)
}

type tokenizeResponse struct {
	Count       int      `json:"count"`
	MaxModelLen int      `json:"max_model_len"`
	Tokens      []uint32 `json:"tokens"`
}

type tokenizeResponseV019 struct {
	tokenizeResponse
	TokenStrs []string `json:"token_strs"`
}

// inspect reads the body of a route that only looks at tokens or text.
func (r *run) inspect(x *exchange, parse func(v *validator)) bool {
	o, ok := r.body(x)
	if !ok {
		return false
	}
	v := &validator{o: o}
	model := ""
	if r.cfg.Profile == ProfileV019 || v.required("model") {
		model = v.text("model")
	}
	parse(v)
	if len(v.details) > 0 {
		r.invalid(x, "", v.details...)
		return false
	}
	if err := r.resolve(o, model); err != nil {
		r.reject(x, err)
		return false
	}
	return true
}

func (r *run) tokenize(x *exchange) {
	var p prompt
	strs := false
	ok := r.inspect(x, func(v *validator) {
		if v.o.has("messages") {
			generation := v.o.null("add_generation_prompt") || v.flag("add_generation_prompt")
			p = chatPrompt(v.messages("messages"), generation)
			r.strict(v, tokenizeChatFieldsV064)
		} else if v.required("prompt") {
			p = textPrompt(v.text("prompt"))
			r.strict(v, tokenizeFieldsV064)
		}
		strs = r.cfg.Profile == ProfileV019 && v.flag("return_token_strs")
	})
	if !ok {
		return
	}
	res := tokenizeResponse{Count: p.tokens(), MaxModelLen: r.eng.MaxModelLen, Tokens: p.ids()}
	if r.cfg.Profile == ProfileV064 {
		x.json(http.StatusOK, res)
		return
	}
	full := tokenizeResponseV019{tokenizeResponse: res}
	for i := 0; strs && i < len(p.data); i += tokenBytes {
		full.TokenStrs = append(full.TokenStrs, strings.TrimRight(string(p.data[i:i+tokenBytes]), "\x00"))
	}
	x.json(http.StatusOK, full)
}

func (r *run) detokenize(x *exchange) {
	var ids []uint32
	ok := r.inspect(x, func(v *validator) {
		if v.required("tokens") && json.Unmarshal(v.o.vals["tokens"], &ids) != nil {
			v.complain("list_type", "tokens", "Input should be a valid list", v.o.vals["tokens"])
		}
		r.strict(v, detokenizeFieldsV064)
	})
	if ok {
		x.json(http.StatusOK, map[string]string{"prompt": detokenize(ids)})
	}
}

// lora answers --enable-lora's control routes; adapters are not simulated.
func (r *run) lora(x *exchange) {
	var req struct {
		Name string `json:"lora_name"`
	}
	_ = json.Unmarshal(x.body, &req) // an unreadable name is an empty one
	verb := "added"
	if strings.Contains(x.path, "unload") {
		verb = "removed"
	}
	x.respond(http.StatusOK, "", []byte(fmt.Sprintf("Success: LoRA adapter '%s' %s successfully.", req.Name, verb)))
}

func (r *run) sleepNow(x *exchange) {
	level := 1
	if x.req.URL.Query().Get("level") == "2" {
		level = 2
	}
	r.sleep.Store(int32(level))
	r.meters.asleep(level)
	x.empty(http.StatusOK)
}

func (r *run) wakeUp(x *exchange) {
	r.sleep.Store(0)
	r.meters.asleep(0)
	x.empty(http.StatusOK)
}

func (r *run) isSleeping(x *exchange) {
	x.json(http.StatusOK, map[string]bool{"is_sleeping": r.sleep.Load() != 0})
}

const metricsType = "text/plain; version=0.0.4; charset=utf-8"

// metrics answers /metrics and everything below it. v0.6.4 mounts
// prometheus_client's multiprocess app there, whose filtered registry is
// empty. v0.19 answers /metrics itself, without a filter, and mounts the app,
// with one, behind it.
func (r *run) metrics(x *exchange) {
	f := r.s.faults
	if hit := f.strike(x.path, func(f *Faults) **Fault { return &f.NoMetrics }, func(f *Faults) **Fault { return &f.BrokenMetrics }); hit != nil {
		r.s.ledger.faulted.Add(1)
		if hit.name == "no_metrics" {
			x.json(http.StatusNotFound, detail("Not Found"))
			return
		}
		x.respond(http.StatusOK, metricsType, []byte("# HELP vllm:num_requests_running\nvllm:num_requests_running{model_name=\"x} NaNsense\n<html>\n"))
		return
	}
	var only map[string]bool
	if names := x.req.URL.Query()["name[]"]; len(names) > 0 && (r.meters.multi || x.path != "/metrics") {
		only = make(map[string]bool)
		for _, n := range names {
			only[n] = true
		}
	}
	if only != nil && r.meters.multi {
		x.respond(http.StatusOK, metricsType, nil)
		return
	}
	silent := f.on(func(f *Faults) **Fault { return &f.NoLogStats })
	x.respond(http.StatusOK, metricsType, r.meters.page(only, !silent))
}

// control is the harness's own surface; no vLLM has it and no fault strikes it.
func (r *run) control(x *exchange, what string) {
	switch what + " " + x.req.Method {
	case "stats GET":
		x.json(http.StatusOK, r.s.statsDuring(r))
	case "faults GET":
		x.json(http.StatusOK, r.s.Faults())
	case "faults DELETE":
		r.s.faults.set(Faults{})
		r.applyFaults(Faults{})
		x.json(http.StatusOK, Faults{})
	case "faults POST", "faults PUT":
		f, err := ParseFaults(x.body)
		if err != nil {
			x.json(http.StatusBadRequest, map[string]string{"error": err.Error()})
			return
		}
		r.s.faults.set(f)
		r.applyFaults(f)
		x.json(http.StatusOK, f)
	default:
		x.json(http.StatusNotFound, detail("Not Found"))
	}
}
