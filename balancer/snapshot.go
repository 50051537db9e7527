package balancer

import (
	"slices"
	"sync/atomic"
	"time"
)

// State is where a replica stands in its life.
type State uint8

// The states of a replica. Only Healthy ones get requests.
const (
	// Unknown: not probed yet, or up but its models are not learned yet.
	Unknown State = iota
	// Healthy: probed and in service.
	Healthy
	// Ejected: taken out after failures, waiting for a probe to re-admit it.
	Ejected
)

// String returns the state as it is shown to operators.
func (s State) String() string {
	switch s {
	case Healthy:
		return "healthy"
	case Ejected:
		return "ejected"
	default:
		return "unknown"
	}
}

// Health is a replica's state and why.
type Health struct {
	State State
	// Reason is a short cause for operators, e.g. "connection refused".
	Reason string
	Since  time.Time
	// Ejections counts how often the replica was taken out since lbd started.
	Ejections int
	// Restarted says that the replica was unreachable before it became healthy:
	// it may be another process now, and what was learned from it is void.
	Restarted bool
}

// ModelInfo is one entry of a replica's /v1/models.
type ModelInfo struct {
	ID string
	// Raw is the entry as the replica sent it, a JSON object.
	Raw []byte
}

// ReplicaState is one replica in a snapshot.
type ReplicaState struct {
	*Replica
	Health   Health
	Draining bool
	// Models are those the replica serves, pinned or learned; nil when unknown.
	Models []ModelInfo
	// Mismatch says, for operators, that the replica is pinned to models it does not
	// list; empty when it lists them.
	Mismatch string
}

// Available says whether the replica gets new requests.
func (s *ReplicaState) Available() bool {
	return s.Health.State == Healthy && !s.Draining && len(s.Models) > 0
}

// Model is one served model in a snapshot.
type Model struct {
	// Name is what replicas call the model.
	Name string
	// Strategy is the name of the strategy behind Picker.
	Strategy string
	Picker   Picker
	// Aliases are further names clients may use; replicas do not know them.
	Aliases []string
	// Replicas are all that serve the model; Available those that get requests.
	Replicas, Available []*Replica
	// Info is the entry for /v1/models.
	Info ModelInfo
}

// Snapshot is an immutable picture of the fleet.
type Snapshot struct {
	// Generation grows by one with every snapshot.
	Generation uint64
	Replicas   []ReplicaState
	// Models are sorted by name.
	Models []*Model
	// Unresolved are names of which every address is a replica, and none is known.
	Unresolved []string

	byName map[string]*Model
}

// NewSnapshot indexes models by name and alias, and tells replicas who shares
// their device. The arguments must not be changed afterwards.
func NewSnapshot(generation uint64, replicas []ReplicaState, models []*Model) *Snapshot {
	shareDevices(replicas)
	s := &Snapshot{Generation: generation, Replicas: replicas, Models: models, byName: make(map[string]*Model, len(models))}
	for _, m := range models {
		for _, a := range m.Aliases {
			s.byName[a] = m
		}
	}
	// A served name beats an alias of the same spelling.
	for _, m := range models {
		s.byName[m.Name] = m
	}
	return s
}

// Model returns the model of that name or alias, nil if nobody serves it. It
// does not allocate.
func (s *Snapshot) Model(name []byte) *Model { return s.byName[string(name)] }

// OnlyModel returns the model when the fleet serves exactly one, else nil.
func (s *Snapshot) OnlyModel() *Model {
	if len(s.Models) == 1 {
		return s.Models[0]
	}
	return nil
}

// Replica returns the state of the replica with that ID, nil if there is none.
func (s *Snapshot) Replica(id string) *ReplicaState {
	i := slices.IndexFunc(s.Replicas, func(r ReplicaState) bool { return r.ID == id })
	if i < 0 {
		return nil
	}
	return &s.Replicas[i]
}

// Holder publishes snapshots: one writer stores, any number of readers load.
type Holder struct{ p atomic.Pointer[Snapshot] }

// Load returns the current snapshot, an empty one before the first Store.
func (h *Holder) Load() *Snapshot {
	if s := h.p.Load(); s != nil {
		return s
	}
	return emptySnapshot
}

// Store publishes s.
func (h *Holder) Store(s *Snapshot) { h.p.Store(s) }

var emptySnapshot = NewSnapshot(0, nil, nil)
