// Package fleet is the single writer of the snapshot: which replicas there are,
// what each one serves, whether it is in service.
//
// Three parties tell it so: the configuration ([Fleet.Configure]), the poller
// ([Fleet.SetModels]) and the health checker ([Fleet.SetHealth]). Each change
// publishes a new immutable [balancer.Snapshot]; readers take it with one atomic
// load and never wait.
//
// Invariants: a replica that stays in the configuration stays the same
// *balancer.Replica, so its own load survives every change; a configuration that
// is refused changes nothing; the outcome depends on what was said, not on the
// order in which it was said.
//
// # Models
//
// A replica named by a model of the configuration is pinned: it serves those
// models, whatever it lists itself. Any other replica serves what its /v1/models
// listed. What a replica listed before it was unreachable is void until it is
// learned again ([Fleet.Unlearned]): until then the replica stays known as one of
// the model's, so that its clients are told "not now" and not "no such model",
// but it gets no requests.
//
//	f := fleet.New(fleet.Options{NewPicker: strategy.New})
//	err := f.Configure(fleet.Config{Strategy: "least-waiting", Replicas: replicas})
//	m := f.Snapshot().Model(name)
package fleet
