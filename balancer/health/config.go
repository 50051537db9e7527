package health

import (
	"time"

	"lbd/balancer"
)

// Config is what an operator can set.
type Config struct {
	// Interval is the time between two probes of a replica, Timeout how long one
	// may take.
	Interval, Timeout time.Duration
	// Path is asked for with GET, below the base path of the replica.
	Path string
	// UnhealthyThreshold is how many probes in a row must fail.
	UnhealthyThreshold int
	// EjectionTime is the first back-off, doubled with every further ejection up
	// to MaxEjectionTime.
	EjectionTime, MaxEjectionTime time.Duration
}

// DefaultConfig returns the defaults. The timeout leaves room for a front end
// that is busy for seconds with tokenizing or with a large /metrics page.
func DefaultConfig() Config {
	return Config{
		Interval: 5 * time.Second, Timeout: 3 * time.Second, Path: "/health", UnhealthyThreshold: 3,
		EjectionTime: 10 * time.Second, MaxEjectionTime: 2 * time.Minute,
	}
}

// filled replaces what is not set by its default.
func (c Config) filled() Config {
	d := DefaultConfig()
	set := func(v *time.Duration, d time.Duration) {
		if *v <= 0 {
			*v = d
		}
	}
	set(&c.Interval, d.Interval)
	set(&c.Timeout, d.Timeout)
	set(&c.EjectionTime, d.EjectionTime)
	set(&c.MaxEjectionTime, d.MaxEjectionTime)
	c.MaxEjectionTime = max(c.MaxEjectionTime, c.EjectionTime)
	if c.Path == "" {
		c.Path = d.Path
	}
	if c.UnhealthyThreshold < 1 {
		c.UnhealthyThreshold = d.UnhealthyThreshold
	}
	return c
}

// What the proxy's reports must show for an ejection (facts of the field: Envoy
// and the llm-d sheets both use five in a row or more than half).
const (
	// consecutiveFailures is a row without an answer between.
	consecutiveFailures = 5
	// minOutcomes is how many outcomes the window must hold for its ratio to
	// count; more than half of them failures is too many.
	minOutcomes = 10
	// windowSlots of one second each make the window.
	windowSlots = 10
	windowSlot  = time.Second
)

const (
	// forgiveAfter back-offs in service take one doubling back.
	forgiveAfter = 10
	// minProbeGap bounds the probes that requests ask for.
	minProbeGap = 100 * time.Millisecond
	// freshRefusal is how long a refused probe stands for what a request would meet.
	// Somebody asks again by then where requests want the replica, give or take a probe.
	freshRefusal = 2 * minProbeGap
	// unreachableAfter tells a host that is not there from one on which nobody listens:
	// Linux gives up looking for a neighbour after three seconds (mcast_solicit times
	// retrans_time_ms), and a refusal comes at once.
	unreachableAfter = time.Second
	// jitter is the part of a back-off that is random, so that replicas ejected
	// together do not return together.
	jitter = 0.2
)

// Kind says what an [Event] tells.
type Kind uint8

// The kinds of events.
const (
	// Up: a replica answered its first probe and joined.
	Up Kind = iota
	// Down: a replica that never was up is not there.
	Down
	// Ejected: a replica was taken out of service.
	Ejected
	// Readmitted: an ejected replica is back.
	Readmitted
	// Spared: a replica failed often enough to be ejected but is the last one
	// available of a model.
	Spared
)

var kindNames = [...]string{
	Up: "replica up", Down: "replica down", Ejected: "replica ejected", Readmitted: "replica readmitted", Spared: "replica spared",
}

// String returns the kind as a log message.
func (k Kind) String() string { return kindNames[k] }

// ErrorRate is the reason of an ejection for too many failures in the window.
// Every other reason is the name of an outcome.
const ErrorRate = "error_rate"

// Event is one change of a replica's state, for the log and for counters.
type Event struct {
	Kind    Kind
	Replica string
	// Old and New are the states; equal when spared.
	Old, New balancer.State
	// Reason is a bounded word, fit for a metric label.
	Reason string
	// Detail is the same for people.
	Detail string
	// Backoff is how long the replica stays out at least.
	Backoff time.Duration
	// Ejections counts those of this replica so far.
	Ejections int
	// Restarted says that a readmitted replica was unreachable.
	Restarted bool
}
