package replay

// Truth looks into the replicas of a run, for policies that stand for a limit and not for something one could build, and
// for those that are told exactly (KV events).
type Truth struct{ r *run }

// Cached is how many tokens of the prompt a replica would find in its prefix cache if it computed the request now.
func (t *Truth) Cached(replica int, q *Query) int {
	s := t.r.servers[replica]
	q.chain = t.r.chain(q, s.Engine.BlockSize)
	n := s.e.Cached(q.chain) * s.Engine.BlockSize
	return max(0, min(n, (q.PromptTokens-1)/s.Engine.BlockSize*s.Engine.BlockSize))
}

// Load is what a replica has to do now: requests running and waiting, and tokens of KV blocks that are not free.
func (t *Truth) Load(replica int) (running, waiting, kvTokens int) {
	s := t.r.servers[replica]
	running, waiting, used := s.e.Gauges()
	return running, waiting + len(s.inbox), used * s.Engine.BlockSize
}

// Info is a replica as it is simulated now: its constants with every error of Config in them, its speed with faults.
func (t *Truth) Info(replica int) ReplicaInfo {
	s := t.r.servers[replica]
	info := s.ReplicaInfo
	info.Preset, info.Speed = s.e.Preset(), 1/s.slow
	return info
}

// Waiting shows the requests that were sent to a replica, by any lbd, and have no first token; submitted ones are in its
// engine.
func (t *Truth) Waiting(replica int, show func(q *Query, submitted bool)) {
	for _, q := range t.r.live {
		if q.sent && q.Replica == replica && !q.Begun() {
			show(q, q.submitted)
		}
	}
}

// Down says whether a replica is dead.
func (t *Truth) Down(replica int) bool { return t.r.servers[replica].down }
