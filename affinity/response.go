package affinity

import (
	"hash/maphash"
	"sync/atomic"
	"time"

	"lbd/balancer"
)

// Learn notes that a replica has made a response.
func (h *Homes) Learn(id []byte, r *balancer.Replica, model string, now time.Time) {
	h.responses.put(h.key(id), home{mark(r), uint32(stableString(prime1, model))}, now)
}

// Forget is for a response that was deleted.
func (h *Homes) Forget(id []byte) { h.responses.drop(h.key(id)) }

func (h *Homes) key(id []byte) uint64 { return maphash.Bytes(h.seed, id) }

// Found is where a request about a stored response is to go.
type Found struct {
	// Model is what to pick from: a copy of the response's model, or of the request's, with the candidates that come into
	// question. It has no candidates while the response's replica is out of service.
	Model *balancer.Model
	// Out is the response's replica while it is out of service.
	Out *balancer.Replica
	// Asked says that nobody knows where the response is: candidates are to be asked in turn, until one does not answer 404.
	Asked bool
	// Any says that Model stands for several, because nobody knows which one made the response.
	Any bool

	result Result
}

// Find looks a response up for a request that names model, nil if it names none. Without one, allowed restricts what may be
// looked through; nil allows everything. The model of what it finds is nil if nothing is allowed.
func (h *Homes) Find(id []byte, model *balancer.Model, allowed func(*balancer.Model) bool, now time.Time) Found {
	snap := h.snapshot()
	at, known := h.responses.get(h.key(id), now)
	found := Found{result: Miss}
	if known {
		found = h.at(snap, at, model)
	}
	if found.Model == nil {
		found.Asked = true
		found.Model, found.Any = around(snap, model, allowed)
	}
	return found
}

// Count counts what Find found. A dry run does not.
func (h *Homes) Count(f Found) { h.count(Response, f.result) }

// at narrows the model to the replica of a response. Without a model the request does not ask for work, and the replica is
// found whatever it serves now.
func (h *Homes) at(snap *balancer.Snapshot, at home, model *balancer.Model) Found {
	r := marked(snap, at.replica)
	if r == nil {
		return Found{result: Gone}
	}
	if model == nil {
		model = made(snap, at.model, r.Replica)
	}
	one := one(model, r.Replica)
	if one == nil {
		return Found{result: Failed}
	}
	narrow := *model
	narrow.Available = one
	f := Found{Model: &narrow, result: Hit}
	switch {
	case r.Health.State != balancer.Healthy:
		narrow.Available, f.Out, f.result = nil, one[0], Down
	case r.Draining:
		f.result = Draining
	}
	return f
}

func marked(snap *balancer.Snapshot, replica uint64) *balancer.ReplicaState {
	for i := range snap.Replicas {
		if mark(snap.Replicas[i].Replica) == replica {
			return &snap.Replicas[i]
		}
	}
	return nil
}

// made finds the model that made a response; if it is served there no more, or was never known, any that is.
func made(snap *balancer.Snapshot, name uint32, r *balancer.Replica) (model *balancer.Model) {
	for _, m := range snap.Models {
		if one(m, r) == nil {
			continue
		}
		if model = m; uint32(stableString(prime1, m.Name)) == name {
			return m
		}
	}
	return model
}

// one returns the replica as the only candidate, nil if it does not serve the model.
func one(m *balancer.Model, r *balancer.Replica) []*balancer.Replica {
	if m == nil {
		return nil
	}
	for i := range m.Replicas {
		if m.Replicas[i].ID == r.ID {
			return m.Replicas[i : i+1]
		}
	}
	return nil
}

// around is what to ask for a response that nobody knows of: the replicas of the model, by its own strategy, for the answer may
// be work. Without a model it is every replica that answers, in turn.
func around(snap *balancer.Snapshot, model *balancer.Model, allowed func(*balancer.Model) bool) (m *balancer.Model, any bool) {
	if model != nil {
		return model, false
	}
	var models []*balancer.Model
	for _, m := range snap.Models {
		if allowed == nil || allowed(m) {
			models = append(models, m)
		}
	}
	if len(models) == 0 {
		return nil, false
	}
	all := *models[0]
	all.Available = nil
	for i := range snap.Replicas {
		r := &snap.Replicas[i]
		if r.Health.State == balancer.Healthy && serves(models, r.Replica) {
			all.Available = append(all.Available, r.Replica)
		}
	}
	all.Picker, all.Strategy = inTurn{}, InTurn
	return &all, len(models) > 1
}

func serves(models []*balancer.Model, r *balancer.Replica) bool {
	for _, m := range models {
		if one(m, r) != nil {
			return true
		}
	}
	return false
}

// InTurn is what responses say of the strategy that has looked for one.
const InTurn = "in-turn"

// inTurn picks any candidate. Those that were asked are not among them any more.
type inTurn struct{}

var turns atomic.Uint64

func (inTurn) Pick(_ *balancer.Request, candidates []*balancer.Replica) *balancer.Replica {
	if len(candidates) == 0 {
		return nil
	}
	return candidates[turns.Add(1)%uint64(len(candidates))]
}
