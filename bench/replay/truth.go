package replay

// Truth looks into the replicas of a run, for policies that stand for a limit and not for something one could build.
type Truth struct{ r *run }
