package fleet

import (
	"maps"
	"slices"

	"lbd/balancer"
)

// publish makes the snapshot from scratch: at 64 replicas that is microseconds,
// a few times a minute, and nothing can be forgotten.
func (f *Fleet) publish() {
	states := make([]balancer.ReplicaState, len(f.members))
	for i, m := range f.members {
		states[i] = balancer.ReplicaState{
			Replica: m.replica, Health: m.health, Draining: m.draining, Models: m.serves(), Mismatch: m.mismatch,
		}
	}
	f.generation++
	s := balancer.NewSnapshot(f.generation, states, f.models(states))
	s.Unresolved = f.plan.unresolved
	f.holder.Store(s)
}

// serves returns what may be routed to the replica; nil when unknown.
func (m *member) serves() []balancer.ModelInfo {
	switch {
	case len(m.pinned) > 0:
		infos := make([]balancer.ModelInfo, len(m.pinned))
		for i, name := range m.pinned {
			infos[i].ID = name
			if mi := m.info(name); mi != nil {
				infos[i] = *mi
			}
		}
		return infos
	case m.void:
		return nil
	default:
		return m.learned
	}
}

// names returns the models the replica is known for, void or not.
func (m *member) names() []string {
	if len(m.pinned) > 0 {
		return m.pinned
	}
	names := make([]string, 0, len(m.learned))
	for i, mi := range m.learned {
		if m.listing[mi.ID] == i { // not listed before
			names = append(names, mi.ID)
		}
	}
	return names
}

// models builds the index by model. A configured model is in it even while no
// replica serves it.
func (f *Fleet) models(states []balancer.ReplicaState) []*balancer.Model {
	byName := make(map[string]*balancer.Model)
	for _, mc := range f.plan.models {
		byName[mc.Name] = &balancer.Model{
			Name: mc.Name, Aliases: slices.Clone(mc.Aliases), Info: balancer.ModelInfo{ID: mc.Name},
		}
	}
	for i, m := range f.members {
		for _, name := range m.names() {
			model := byName[name]
			if model == nil {
				model = &balancer.Model{Name: name, Info: balancer.ModelInfo{ID: name}}
				byName[name] = model
			}
			model.Replicas = append(model.Replicas, m.replica)
			if states[i].Available() {
				model.Available = append(model.Available, m.replica)
			}
			if mi := m.info(name); mi != nil && model.Info.Raw == nil {
				model.Info = *mi
			}
		}
	}
	f.forgetPickers(byName)
	var models []*balancer.Model
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		if m := byName[name]; f.setPicker(m) {
			models = append(models, m)
		}
	}
	return models
}

// setPicker keeps the model's picker while its strategy stays the same.
func (f *Fleet) setPicker(m *balancer.Model) bool {
	m.Strategy = f.plan.strategyOf(m.Name)
	pk, ok := f.pickers[m.Name]
	if !ok || pk.strategy != m.Strategy {
		p, err := f.opts.NewPicker(m.Strategy)
		if err != nil {
			f.opts.OnEvent(Event{Kind: PickerFailed, Model: m.Name, Reason: err.Error()})
			return false
		}
		pk = picker{m.Strategy, p}
		f.pickers[m.Name] = pk
	}
	m.Picker = pk.Picker
	return true
}

// forgetPickers drops those of models that nobody is known for any more, or
// replicas that come and go with new names would pile them up.
func (f *Fleet) forgetPickers(known map[string]*balancer.Model) {
	maps.DeleteFunc(f.pickers, func(name string, _ picker) bool { return known[name] == nil })
}

// Ready says whether clients can be sent here, and if not, what is missing.
//
// Every model of the configuration, and every model a replica is known for, must
// have an available replica, and there must be at least one model. A replica
// whose models are discovered also holds readiness back while it is not known
// what it serves: until it was probed and, if it is up, has listed its models. One
// that is down and has never been up could be the only one of its model, or dead
// for good; it holds readiness back for Options.DiscoveryGrace only, so that one
// dead replica does not keep a restarted lbd from serving the others. Who wants
// it exact pins the models.
func (f *Fleet) Ready() (ready bool, missing []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.holder.Load()
	for _, m := range s.Models {
		if len(m.Available) == 0 {
			missing = append(missing, m.Name)
		}
	}
	for _, m := range f.members {
		if f.undiscovered(m) {
			missing = append(missing, "models of "+m.replica.ID)
		}
	}
	awaited := f.plan.awaited
	if len(s.Models) == 0 {
		awaited = f.plan.unresolved
	}
	for _, name := range awaited {
		missing = append(missing, "addresses of "+name)
	}
	if len(s.Models) == 0 && len(missing) == 0 {
		missing = []string{"any model"}
	}
	return len(missing) == 0, missing
}

// Settled says whether every name was looked up, every replica probed and every one that is well has said
// what it serves: what is not served then is not about to be.
func (f *Fleet) Settled() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.plan.awaited) == 0 && !slices.ContainsFunc(f.members, func(m *member) bool {
		return m.health.State == balancer.Unknown || len(m.pinned) == 0 && m.unlearned()
	})
}

// Awaits says whether there are names that were not looked up yet.
func (f *Fleet) Awaits() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.plan.awaited) > 0
}

func (f *Fleet) undiscovered(m *member) bool {
	if len(m.pinned) > 0 || m.learned != nil {
		return false
	}
	return m.health.State != balancer.Ejected || f.opts.Now().Sub(m.joined) < f.opts.DiscoveryGrace
}
