package daemon

// Forget is one round of housekeeping as of a snapshot.
var Forget = (*Daemon).forget
