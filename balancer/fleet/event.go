package fleet

// Kind says what an [Event] tells.
type Kind uint8

// The kinds of events.
const (
	// ReplicaAdded, ReplicaRemoved and ReplicaChanged (device or weight) come
	// from a new configuration.
	ReplicaAdded Kind = iota
	ReplicaRemoved
	ReplicaChanged
	// ModelsChanged: a replica listed other models than before. Old and New hold
	// them, sorted, separated by commas.
	ModelsChanged
	// ModelsVoid: a replica was unreachable; what it listed before (Old) counts
	// no longer.
	ModelsVoid
	// ModelsMismatch: a pinned replica does not list what it is pinned to. Old
	// holds the pinned models, New the listed ones. Told once per difference.
	ModelsMismatch
	// Drained and Undrained: an operator took a replica out or put it back.
	Drained
	Undrained
	// PickerFailed: a discovered model got no strategy and is not served; Model
	// and Reason say which and why.
	PickerFailed
)

var kindNames = [...]string{
	ReplicaAdded: "replica added", ReplicaRemoved: "replica removed", ReplicaChanged: "replica changed",
	ModelsChanged: "models changed", ModelsVoid: "models void", ModelsMismatch: "models mismatch",
	Drained: "drained", Undrained: "undrained", PickerFailed: "picker failed",
}

// String returns the kind as a log message.
func (k Kind) String() string { return kindNames[k] }

// Event is one change of the fleet, for the log and for counters.
type Event struct {
	Kind Kind
	// Replica is the ID of the replica, Model the name of the model, where the
	// kind is about one.
	Replica, Model string
	// Of is the endpoint of which a replica that is added or removed is an address,
	// empty for one that the configuration lists itself.
	Of string
	// Old and New describe what changed.
	Old, New string
	Reason   string
}
