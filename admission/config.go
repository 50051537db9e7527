package admission

import (
	"fmt"
	"math"
	"time"

	"lbd/balancer"
)

// Config says when requests wait and how long. It may change while they do.
type Config struct {
	// On has requests wait at all. Without it all pass, those that wait included.
	On bool
	// MaxWaiting is how many requests may wait at a replica itself, by its gauge
	// and what was sent since; a quarter of those it runs if that is more.
	MaxWaiting int
	// MaxInFlight is how many requests, own and foreign, a replica of weight 1 gets
	// at a time. 0 leaves it to MaxWaiting, which needs a replica that tells.
	MaxInFlight int

	// MaxLength and MaxBytes bound the queue of one model.
	MaxLength int
	MaxBytes  int64
	// MaxWait is the longest wait; 0 is none.
	MaxWait time.Duration
	// Limits refuse requests that are predicted to miss them. What nobody could serve in
	// time is refused as well, however idle the fleet, unless TTFTPerToken allows it more.
	Limits balancer.Limits
}

// DefaultConfig returns what applies where nothing is configured.
//
// 16 requests are what a replica is sure to have at hand from one event to the next:
// the first bytes and ends that free places come as they happen, so its own queue
// has only to cover a round trip and steps that admit several at once.
func DefaultConfig() Config {
	return Config{On: true, MaxWaiting: 16, MaxLength: 4096, MaxBytes: 512 << 20, MaxWait: 5 * time.Minute}
}

// Validate says what is wrong with a configuration.
func (c *Config) Validate() error {
	for _, v := range []struct {
		name  string
		value int64
		least int64
	}{
		{"MaxWaiting", int64(c.MaxWaiting), 1}, {"MaxInFlight", int64(c.MaxInFlight), 0}, {"MaxLength", int64(c.MaxLength), 1},
		{"MaxBytes", c.MaxBytes, 1}, {"MaxWait", int64(c.MaxWait), 0}, {"Limits.TTFT", int64(c.Limits.TTFT), 0},
		{"Limits.TTFTPerToken", int64(c.Limits.TTFTPerToken), 0}, {"Limits.TPOT", int64(c.Limits.TPOT), 0},
	} {
		if v.value < v.least {
			return fmt.Errorf("%s is %d; want at least %d", v.name, v.value, v.least)
		}
	}
	return nil
}

// unbounded is the room of a replica of which no bound is known.
const unbounded = math.MaxInt64

// feed is the part of its running requests that a replica may have waiting: when
// many end at once, as many others must be there.
const feed = 4

// room is how many more requests the replica takes before it is saturated.
//
// vLLM's waiting gauge is above 0 exactly when the KV cache, max_num_seqs or the
// token budget of a step is used up (v1/core/sched/scheduler.py), so it stands for
// all of these windows without their sizes. It is missing from replicas that do not
// tell, which are never saturated then, and stuck on some that do (vLLM #22995):
// a replica without own requests always has room for one.
//
// flowing says that nobody waits here: a replica whose gauge was 0 then takes
// whatever comes. With a queue it takes MaxWaiting, and more as they begin, or one
// quiet poll would pour all of it out.
func (c *Config) room(r *balancer.Replica, flowing bool) int64 {
	left := int64(unbounded)
	if !c.On {
		return left
	}
	if c.MaxInFlight > 0 {
		left = int64(c.MaxInFlight)*r.Weight - r.Requests()
	} else if queued, ok := r.Queued(); ok {
		p := r.Polled()
		if p.Waiting.Value > 0 || !flowing {
			left = c.window(p) - queued
		}
	}
	if left < 1 && r.InFlight() == 0 {
		return 1
	}
	return left
}

// window is how many requests may wait at the replica.
func (c *Config) window(p *balancer.Polled) int64 {
	w := int64(c.MaxWaiting)
	if p.Running.Known {
		w = max(w, int64(p.Running.Value)/feed)
	}
	return w
}

// anyRoom says whether some replica has room.
func (c *Config) anyRoom(rs []*balancer.Replica, flowing bool) bool {
	for _, r := range rs {
		if c.room(r, flowing) > 0 {
			return true
		}
	}
	return false
}
