package daemon

// Forget is one round of housekeeping as of a snapshot.
var Forget = (*Daemon).forget

// OwnFDs is how many descriptors lbd keeps for itself.
var OwnFDs = ownFDs
