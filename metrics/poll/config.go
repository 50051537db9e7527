package poll

import (
	"maps"
	"time"

	"lbd/balancer"
)

// Config is what an operator can set.
type Config struct {
	// Interval is the period of the tick, Timeout how long one answer may take.
	Interval, Timeout time.Duration
	// ModelsInterval is the time between two readings of /v1/models.
	ModelsInterval time.Duration
	// APIKey is what replicas were started with (--api-key); it is sent to
	// /v1/models only, since vLLM does not ask for it on /metrics.
	APIKey string
	// APIKeys are those of single replicas, by Listed; they beat APIKey, also where they
	// are empty.
	APIKeys map[string]string
	// KeyOnMetrics sends the key to /metrics as well: something other than vLLM may
	// stand in front of it.
	KeyOnMetrics bool
}

// key is what a replica is shown.
func (c Config) key(id string) string {
	if k, own := c.APIKeys[id]; own {
		return k
	}
	return c.APIKey
}

// sameKeys says whether every replica is shown the same as with o.
func (c Config) sameKeys(o Config) bool {
	return c.APIKey == o.APIKey && maps.Equal(c.APIKeys, o.APIKeys)
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{Interval: time.Second, Timeout: time.Second, ModelsInterval: 30 * time.Second}
}

// filled replaces what is not set. The timeout is at least a second: a busy front
// end answers late (llm-d-benchmark #1734), and the next tick does not wait.
func (c Config) filled() Config {
	d := DefaultConfig()
	if c.Interval <= 0 {
		c.Interval = d.Interval
	}
	if c.Timeout <= 0 {
		c.Timeout = max(d.Timeout, c.Interval)
	}
	if c.ModelsInterval <= 0 {
		c.ModelsInterval = d.ModelsInterval
	}
	return c
}

// staleAfter is how long the last answer is believed: three polls, so that two
// lost ones do no harm, but no less than three seconds of a fast poll's.
func (c Config) staleAfter() time.Duration { return max(3*c.Interval, 3*time.Second) }

const (
	// stuckAfter is V0's refresh when idle, POLLING_TIMEOUT_MS; see the package
	// comment.
	stuckAfter = 10 * time.Second
	// guardedKV is the KV use from which strategies avoid a replica. One that
	// reports it while idle and unmoved would never be used again (vLLM #29928).
	guardedKV = 0.9
	// cheapRetry is how often a replica that ignored name[] is offered it again:
	// it may have been upgraded in place.
	cheapRetry = 5 * time.Minute
	// relearnGap bounds the readings of /v1/models that requests for unknown
	// models cause.
	relearnGap = time.Second
	// idleTimeout ends unused connections before uvicorn does, after 5 s.
	idleTimeout = 4 * time.Second
	// maxPage is far above any real page (8 engines: 288 KB).
	maxPage = 8 << 20
	// maxHead is what the relay takes of a response head, too; net/http's is 10 MiB.
	maxHead = 32 << 10
	// maxUnderWay bounds the requests under way at once. It is above any fleet of
	// today, so that replicas that hang do not hold up the others of a tick.
	maxUnderWay = 256
)

// Fleet is what the poller reads and tells.
type Fleet interface {
	Snapshot() *balancer.Snapshot
	SetModels(id string, models []balancer.ModelInfo)
	// Unlearned returns the replicas whose models are wanted now; Wake says that
	// there is a new one.
	Unlearned() []*balancer.Replica
	Wake() <-chan struct{}
}

// Kind says what an [Event] tells.
type Kind uint8

// The kinds of events.
const (
	// Failed and Recovered: the first failed poll after a good one, and the
	// reverse. Every failure is counted, see [Poller.Failures].
	Failed Kind = iota
	Recovered
	// Stale: what the replica reports counts no longer, for Reason. Fresh: it
	// counts again.
	Stale
	Fresh
	// FullPage: the replica does not filter by name[]; its whole page is read.
	FullPage
	// NoMetrics: it has none of the gauges (--disable-log-stats): its load is
	// unknown, only own load counts.
	NoMetrics
	// Restarted: it is another process than before.
	Restarted
	// ModelsFailed and ModelsRecovered are the same for /v1/models.
	ModelsFailed
	ModelsRecovered
)

var kindNames = [...]string{
	Failed: "poll failed", Recovered: "poll recovered", Stale: "load stale", Fresh: "load fresh",
	FullPage: "full page", NoMetrics: "no metrics", Restarted: "replica restarted",
	ModelsFailed: "models failed", ModelsRecovered: "models recovered",
}

// String returns the kind as a log message.
func (k Kind) String() string { return kindNames[k] }

// Event is a change worth a log line.
type Event struct {
	Kind    Kind
	Replica string
	Reason  string
	// Refused, of Failed and ModelsFailed: the replica answers, but not what is
	// asked for; waiting will not mend it. It is told once more when a replica that
	// did not answer at all comes to that.
	Refused bool
}
