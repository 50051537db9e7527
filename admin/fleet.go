package admin

import (
	"math"
	"net/http"
	"strings"
	"time"

	"lbd/balancer"
)

// The types below are the answer of GET /fleet; doc.go explains the fields.
// Pointers are null for unknown.

type fleetView struct {
	Generation uint64        `json:"generation"`
	Replicas   []replicaView `json:"replicas"`
	Models     []modelView   `json:"models"`
	Unresolved []string      `json:"unresolved"`
}

type replicaView struct {
	ID        string     `json:"id"`
	URL       string     `json:"url"`
	Of        *string    `json:"of"`
	Device    string     `json:"device"`
	Weight    int64      `json:"weight"`
	State     string     `json:"state"`
	Reason    string     `json:"reason"`
	Since     *time.Time `json:"since"`
	Ejections int        `json:"ejections"`
	Draining  bool       `json:"draining"`
	Available bool       `json:"available"`
	Models    []string   `json:"models"`
	Own       ownView    `json:"own"`
	Polled    polledView `json:"polled"`
}

type ownView struct {
	InFlight int64 `json:"in_flight"`
	Pending  int64 `json:"pending"`
}

type polledView struct {
	Waiting      *float64 `json:"waiting"`
	Running      *float64 `json:"running"`
	KVCacheUsage *float64 `json:"kv_cache_usage"`
	Foreign      *int64   `json:"foreign"`
	AgeSeconds   *float64 `json:"age_seconds"`
	Stale        *bool    `json:"stale"`
}

type modelView struct {
	Name      string    `json:"name"`
	Aliases   []string  `json:"aliases"`
	Strategy  string    `json:"strategy"`
	Replicas  []string  `json:"replicas"`
	Available []string  `json:"available"`
	Held      *heldView `json:"held"`
}

// Held is the queue in front of a model.
type Held struct {
	Waiting, Clients int
	Bytes            int64
	Oldest           time.Duration
	// Tokens is the work of those that wait, TokensPerSecond the pace at which it is
	// taken up, 0 when unknown.
	Tokens, TokensPerSecond float64
}

type heldView struct {
	Waiting         int      `json:"waiting"`
	Clients         int      `json:"clients"`
	Bytes           int64    `json:"bytes"`
	OldestSeconds   float64  `json:"oldest_seconds"`
	Tokens          float64  `json:"tokens"`
	TokensPerSecond *float64 `json:"tokens_per_second"`
}

func viewHeld(h Held) *heldView {
	v := &heldView{
		Waiting: h.Waiting, Clients: h.Clients, Bytes: h.Bytes, OldestSeconds: math.Round(h.Oldest.Seconds()*1000) / 1000, Tokens: math.Round(h.Tokens),
	}
	if h.TokensPerSecond > 0 {
		v.TokensPerSecond = new(math.Round(h.TokensPerSecond))
	}
	return v
}

func (s *Server) fleetPage(w http.ResponseWriter, r *http.Request) {
	v := viewFleet(s.opt.Fleet.Snapshot(), time.Now())
	for i := range v.Models {
		if m := &v.Models[i]; s.opt.Held != nil {
			m.Held = viewHeld(s.opt.Held(m.Name))
		}
	}
	switch format := r.URL.Query().Get("format"); {
	case format == "table", format == "" && prefersText(r.Header.Get("Accept")):
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		v.writeTable(w)
	case format == "json", format == "":
		writeJSON(w, http.StatusOK, v)
	default:
		badRequest("unknown_format", "format %q is unknown; want json or table", clip(format)).write(w)
	}
}

// prefersText says whether text/plain comes before JSON in a list of media types.
// Weights are not looked at: who sets them asks for JSON or gets it.
func prefersText(accept string) bool {
	for part := range strings.SplitSeq(accept, ",") {
		media, _, _ := strings.Cut(part, ";")
		switch strings.ToLower(strings.TrimSpace(media)) {
		case "text/plain":
			return true
		case "application/json", "*/*":
			return false
		}
	}
	return false
}

func viewFleet(snap *balancer.Snapshot, now time.Time) fleetView {
	v := fleetView{
		Generation: snap.Generation, Replicas: []replicaView{}, Models: []modelView{}, Unresolved: append([]string{}, snap.Unresolved...),
	}
	for i := range snap.Replicas {
		v.Replicas = append(v.Replicas, viewReplica(&snap.Replicas[i], now))
	}
	for _, m := range snap.Models {
		v.Models = append(v.Models, modelView{
			Name: m.Name, Aliases: append([]string{}, m.Aliases...), Strategy: m.Strategy,
			Replicas: ids(m.Replicas), Available: ids(m.Available),
		})
	}
	return v
}

func ids(rs []*balancer.Replica) []string {
	names := make([]string, len(rs))
	for i, r := range rs {
		names[i] = r.ID
	}
	return names
}

// noModels is why a replica that is well serves nothing; what is wrong with its list is
// told once, by the poller.
const noModels = "its /v1/models has named no model yet; lbd's log says what is wrong with it"

func viewReplica(r *balancer.ReplicaState, now time.Time) replicaView {
	v := replicaView{
		ID: r.ID, URL: r.Endpoint.String(), Device: r.Device, Weight: r.Weight,
		State: r.Health.State.String(), Reason: r.Health.Reason, Ejections: r.Health.Ejections,
		Draining: r.Draining, Available: r.Available(),
		Own:    ownView{InFlight: r.InFlight(), Pending: r.Pending()},
		Polled: viewPolled(r.Polled(), now),
	}
	if v.Reason == "" {
		v.Reason = r.Mismatch // in service all the same: it may list names other than those it answers to
	}
	if v.Reason == "" && r.Health.State == balancer.Healthy && len(r.Models) == 0 {
		v.Reason = noModels
	}
	if of := r.Endpoint.Of(); of != "" {
		v.Of = &of
	}
	if !r.Health.Since.IsZero() {
		v.Since = &r.Health.Since
	}
	for _, m := range r.Models {
		v.Models = append(v.Models, m.ID)
	}
	return v
}

func viewPolled(p *balancer.Polled, now time.Time) polledView {
	if p == nil {
		return polledView{}
	}
	return polledView{
		Waiting: value(p.Waiting), Running: value(p.Running), KVCacheUsage: value(p.KVUsage), Foreign: foreign(p),
		AgeSeconds: new(math.Round(max(0, now.Sub(p.At).Seconds())*1000) / 1000), Stale: new(p.Stale),
	}
}

// value takes NaN and infinities, which the exposition format allows and JSON
// does not, for unknown.
func value(m balancer.Metric) *float64 {
	if !m.Known || math.IsNaN(m.Value) || math.IsInf(m.Value, 0) {
		return nil
	}
	return &m.Value
}

// foreign is unknown where neither gauge was read, and on a stale poll, whose
// foreign part is dropped.
func foreign(p *balancer.Polled) *int64 {
	if p == nil || p.Stale || !p.Running.Known && !p.Waiting.Known {
		return nil
	}
	return &p.Foreign
}
