package affinity

import "time"

// Kind is what has a home.
type Kind uint8

// The kinds.
const (
	Session Kind = iota
	Response
	kinds
)

// String returns the kind as it appears in metric labels.
func (k Kind) String() string { return [...]string{"session", "response"}[k] }

// Result is what became of one request's affinity.
type Result uint8

// The results.
const (
	// Hit: the request went home.
	Hit Result = iota
	// Miss: no home was known, so the strategy chose one. Of a response: nobody knows where it is, so replicas are asked in turn.
	Miss
	// Saturated: the home had too much to do.
	Saturated
	// Draining: the home drains. Requests about responses go there all the same.
	Draining
	// Down: the home is ejected or not ready.
	Down
	// Gone: the home has left the fleet.
	Gone
	// Failed: the home was tried and the request could not be sent there; or it serves the model no more.
	Failed
	results
)

var resultNames = [...]string{"hit", "miss", "saturated", "draining", "down", "gone", "failed"}

// String returns the result as it appears in metric labels.
func (r Result) String() string { return resultNames[r] }

func (h *Homes) count(k Kind, r Result) { h.counts[k][r].Add(1) }

// Stats is what has happened to one kind since the start.
type Stats struct {
	Kind    Kind
	Results map[Result]uint64 // all of them
	// Live are the entries of the table that have not expired, Displaced those that had to make room while they had not.
	Live      int
	Displaced uint64
}

// Stats returns one entry for each kind. It walks the tables.
func (h *Homes) Stats(now time.Time) []Stats {
	all := make([]Stats, kinds)
	for k, t := range [kinds]*table{Session: h.sessions, Response: h.responses} {
		s := Stats{Kind: Kind(k), Results: map[Result]uint64{}, Live: t.live(now), Displaced: t.evicted.Load()}
		for r := range results {
			s.Results[r] = h.counts[k][r].Load()
		}
		all[k] = s
	}
	return all
}
