package proxy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/valyala/fasthttp"

	"lbd/balancer"
)

type healthBody struct {
	Status          string                 `json:"status"`
	Replicas        int                    `json:"replicas"`
	HealthyReplicas int                    `json:"healthy_replicas"`
	Models          map[string]modelHealth `json:"models"`
}

type modelHealth struct {
	Replicas int `json:"replicas"`
	Healthy  int `json:"healthy"`
}

// healthPage is 200 as long as any replica can answer: restarting lbd would not
// mend its replicas.
func (s *Server) healthPage(ctx *fasthttp.RequestCtx) {
	snap := s.opt.Fleet.Snapshot()
	b := healthBody{Status: "healthy", Replicas: len(snap.Replicas), Models: map[string]modelHealth{}}
	healthy := map[*balancer.Replica]bool{}
	for i := range snap.Replicas {
		if r := &snap.Replicas[i]; r.Health.State == balancer.Healthy {
			healthy[r.Replica] = true
		}
	}
	b.HealthyReplicas = len(healthy)
	for _, m := range snap.Models {
		h := modelHealth{Replicas: len(m.Replicas)}
		for _, r := range m.Replicas {
			if healthy[r] {
				h.Healthy++
			}
		}
		b.Models[m.Name] = h
	}
	status := 200
	switch {
	case b.HealthyReplicas == 0:
		b.Status, status = "unhealthy", 503
	case b.HealthyReplicas < b.Replicas:
		b.Status = "degraded"
	}
	s.page(ctx, status, b)
}

type readyBody struct {
	Status string   `json:"status"`
	Reason string   `json:"reason,omitempty"`
	Models []string `json:"missing,omitempty"`
}

func (s *Server) readyPage(ctx *fasthttp.RequestCtx) {
	if s.draining.Load() {
		s.page(ctx, 503, readyBody{Status: "not ready", Reason: "draining"})
		return
	}
	if ok, missing := s.opt.Fleet.Ready(); !ok {
		s.page(ctx, 503, readyBody{Status: "not ready", Reason: "no healthy replica for every model", Models: missing})
		return
	}
	s.page(ctx, 200, readyBody{Status: "ready"})
}

func (s *Server) versionPage(ctx *fasthttp.RequestCtx) {
	s.page(ctx, 200, map[string]string{"version": s.opt.Version})
}

func (s *Server) page(ctx *fasthttp.RequestCtx, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		panic("BUG: page: " + err.Error())
	}
	writeJSON(ctx, status, body)
}

func (s *Server) metricsPage(ctx *fasthttp.RequestCtx) {
	families, err := s.opt.Gatherer.Gather()
	if err != nil {
		ctx.Error("cannot gather metrics: "+err.Error(), 500)
		return
	}
	format := expfmt.NegotiateAccept(http.Header{"Accept": {string(ctx.Request.Header.Peek("Accept"))}}, expfmt.DefaultAcceptedFormats()...)
	var buf bytes.Buffer
	enc := expfmt.NewEncoder(&buf, format)
	for _, f := range families {
		if err := enc.Encode(f); err != nil {
			ctx.Error("cannot encode metrics: "+err.Error(), 500)
			return
		}
	}
	ctx.SetContentType(string(format))
	ctx.SetBody(buf.Bytes())
}

// modelsPage is the answer to /v1/models for one snapshot.
type modelsPage struct {
	generation uint64
	all        []byte
	byID       map[string]json.RawMessage
}

func (s *Server) models() *modelsPage {
	snap := s.opt.Fleet.Snapshot()
	if p := s.modelsPage.Load(); p != nil && p.generation == snap.Generation {
		return p
	}
	p := newModelsPage(snap)
	s.modelsPage.Store(p)
	return p
}

func newModelsPage(snap *balancer.Snapshot) *modelsPage {
	p := &modelsPage{generation: snap.Generation, byID: map[string]json.RawMessage{}}
	data := []json.RawMessage{}
	add := func(id string, entry json.RawMessage) {
		if p.byID[id] == nil {
			p.byID[id] = entry
			data = append(data, entry)
		}
	}
	for _, m := range snap.Models {
		add(m.Name, entryOf(m.Info, m.Name))
	}
	for _, m := range snap.Models {
		for _, alias := range m.Aliases {
			add(alias, aliasEntry(m, alias))
		}
	}
	all, err := json.Marshal(struct {
		Object string            `json:"object"`
		Data   []json.RawMessage `json:"data"`
	}{"list", data})
	if err != nil {
		panic("BUG: models page: " + err.Error())
	}
	p.all = all
	return p
}

// entryOf is the replica's own entry; a pinned model that no replica has shown
// yet gets a plain one.
func entryOf(info balancer.ModelInfo, name string) json.RawMessage {
	if json.Valid(info.Raw) {
		return info.Raw
	}
	return mustJSON(map[string]any{"id": name, "object": "model", "created": time.Now().Unix(), "owned_by": "vllm", "root": name, "parent": nil})
}

// aliasEntry is the model's entry under the alias; root says what is behind it.
func aliasEntry(m *balancer.Model, alias string) json.RawMessage {
	var entry map[string]any
	if err := json.Unmarshal(entryOf(m.Info, m.Name), &entry); err != nil {
		return entryOf(balancer.ModelInfo{}, alias)
	}
	entry["id"], entry["root"] = alias, m.Name
	return mustJSON(entry)
}

func mustJSON(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return b
}

func (s *Server) modelsPageAll(ctx *fasthttp.RequestCtx) { writeJSON(ctx, 200, s.models().all) }

func (s *Server) modelPage(ctx *fasthttp.RequestCtx) {
	path, _ := cleanPath(ctx.Request.Header.RequestURI())
	id := strings.TrimPrefix(path, modelPagePrefix)
	if entry := s.models().byID[id]; entry != nil {
		writeJSON(ctx, 200, entry)
		return
	}
	modelNotFound(s.opt.Fleet.Snapshot(), fmt.Append(nil, id)).write(ctx)
}
