package daemon_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"lbd/bench/sim"
)

// hammerSeed fixes the faults; a failure prints it.
const hammerSeed = 20261121

// hammerTime is how long faults come and go.
const hammerTime = 3 * time.Second

// outcome is what one client request of the hammer came to.
type outcome struct {
	id      string
	status  int // 0: the connection broke
	message string
}

// Under every fault at once no request runs twice, and one that no replica has
// read is lost only where that cannot be known.
func TestExecutedAtMostOnce(t *testing.T) {
	var rs []*sim.Server
	for i := range 3 {
		rs = append(rs, replica(t, sim.Config{Speed: 100, Seed: uint64(i), KeepAlive: 30 * time.Millisecond}))
	}
	p := lbd(t, urls(rs...), "strategy", "cycle", "ejection-time", "20ms", "max-ejection-time", "40ms", "max-attempts", "3")
	t.Logf("seed %d", hammerSeed)
	end := time.Now().Add(hammerTime)
	var spoiling sync.WaitGroup
	spoiling.Go(func() { spoil(t, rs, end) })
	outcomes := hammer(p, end)
	spoiling.Wait()
	for _, r := range rs {
		fault(t, r, sim.Faults{})
	}
	judge(t, outcomes, executions(rs...))
	p.until("all replicas back", func() bool {
		m := p.Snapshot().Model([]byte(llama))
		return m != nil && len(m.Available) == len(rs)
	})
	allOK(t, p.dial().inARow(9, "after"))
}

// spoil gives one replica at a time a fault, so that there is always somewhere to
// go.
func spoil(t *testing.T, rs []*sim.Server, end time.Time) {
	rng := rand.New(rand.NewPCG(hammerSeed, 1))
	for time.Now().Before(end) {
		r := rs[rng.IntN(len(rs))]
		rate := 0.3 + 0.4*rng.Float64()
		switch rng.IntN(8) {
		case 0:
			fault(t, r, sim.Faults{Refuse: &sim.Fault{}})
		case 1:
			fault(t, r, sim.Faults{ResetBefore: &sim.Fault{Rate: rate}})
		case 2:
			fault(t, r, sim.Faults{Status: &sim.Fault{Code: 500, Rate: rate}})
		case 3:
			fault(t, r, sim.Faults{BadHead: &sim.Fault{Rate: rate}})
		case 4:
			fault(t, r, sim.Faults{ResetStream: &sim.Fault{Rate: rate, Events: rng.IntN(3)}})
		case 5:
			fault(t, r, sim.Faults{CloseIdleNow: &sim.Fault{}})
		case 6:
			fault(t, r, sim.Faults{TruncateStream: &sim.Fault{Rate: rate}, BadLength: &sim.Fault{Rate: rate}})
		case 7:
			r.Kill()
			time.Sleep(time.Duration(rng.IntN(30)) * time.Millisecond)
			if err := r.Start(""); err != nil {
				t.Error(err)
			}
		}
		time.Sleep(time.Duration(5+rng.IntN(40)) * time.Millisecond)
		fault(t, r, sim.Faults{})
	}
}

// hammerClients send a few hundred requests a second, hammerRequests in all at
// most, so that the replicas remember every one (sim keeps 1024 each).
const (
	hammerClients  = 4
	hammerRequests = 1000
)

func hammer(p *proxied, end time.Time) (all []outcome) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	for c := range hammerClients {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(hammerSeed, uint64(c)+100))
			for i := 0; i < hammerRequests/hammerClients && time.Now().Before(end); i++ {
				o := p.one(fmt.Sprintf("hammer-%d-%d", c, i), rng.IntN(2) == 0)
				mu.Lock()
				all = append(all, o)
				mu.Unlock()
				time.Sleep(time.Duration(5+rng.IntN(15)) * time.Millisecond)
			}
		})
	}
	wg.Wait()
	return all
}

func (p *proxied) one(id string, stream bool) outcome {
	a := p.post("/v1/chat/completions", chat(llama, stream, 3), "X-Request-Id", id)
	var e struct{ Error struct{ Message string } }
	json.Unmarshal([]byte(a.body), &e)
	if a.err != nil && a.status == 0 {
		e.Error.Message = a.err.Error()
	}
	return outcome{id, a.status, e.Error.Message}
}

// judge compares what clients were told with what replicas have read.
func judge(t *testing.T, outcomes []outcome, executed map[string]int) {
	t.Helper()
	count := map[string]int{}
	for _, o := range outcomes {
		n := executed[o.id]
		count[fmt.Sprintf("status %d, executed %d", o.status, n)]++
		switch {
		case n > 1:
			t.Errorf("%s was executed %d times: %d %s", o.id, n, o.status, o.message)
		case o.status == 0:
			t.Errorf("%s: lbd broke the connection: %s", o.id, o.message)
		case n == 0 && !strings.Contains(o.message, "closed the connection without an answer"):
			t.Errorf("%s was lost although no replica read it: %d %s", o.id, o.status, o.message)
		}
	}
	t.Log(count)
	if len(outcomes) < 20 || count["status 200, executed 1"] < len(outcomes)/2 {
		t.Errorf("the hammer hit too little: %v", count)
	}
}
