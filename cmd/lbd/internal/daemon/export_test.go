package daemon

// Forget is one round of housekeeping as of a snapshot.
var Forget = (*Daemon).forget

// OwnFDs is how many descriptors lbd keeps for itself.
var OwnFDs = ownFDs

// RosterOf lists the replicas of a configuration.
var RosterOf = rosterOf

// DrainLater are replicas that were drained in the lbd before.
func DrainLater(d *Daemon, ids ...string) { d.toDrain = ids }
