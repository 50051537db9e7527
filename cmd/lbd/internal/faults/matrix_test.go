package faults

import (
	"net"
	"slices"
	"strings"
	"time"

	"lbd/bench/sim"
	"lbd/internal/zone"
)

// lost is what a request is answered with that a replica took along.
var lost = []string{cut, "status 502 replica_error"}

// late is what a request is answered with that a replica kept for too long.
var late = []string{cut, "status 504 timeout"}

// many is no bound: the row's check has one.
const many = 1 << 20

// matrix is all faults. README.md has the same rows.
var matrix = []row{
	{
		name:    "killed",
		promise: "what ran there fails, and a stream is seen to be cut; all else goes elsewhere",
		disturb: func(t *trial) {
			t.each(3, func() {
				s := t.one()
				s.Kill()
				t.pause(50, 200)
				t.revive(s)
				t.pause(100, 200)
			})
		},
		failed: clients, unread: clients / 2, causes: lost,
	},
	{
		name:    "the last one in service killed",
		promise: "what ran there fails; all else goes to one that is out of service for what its probes say, and answers",
		homes:   []string{llama, llama},
		disturb: func(t *trial) {
			t.each(2, func() {
				t.fault(t.sims[1], sim.Faults{Unhealthy: &sim.Fault{}})
				t.lbd.out(t.sims[1].Addr())
				t.sims[0].Kill()
				t.pause(300, 500)
				t.revive(t.sims[0])
				t.heal()
				t.available()
			})
		},
		failed: clients, unread: clients / 2, causes: lost,
	},
	{
		name:    "flapping",
		promise: "as killed; the longer it goes on, the longer the replica stays out",
		disturb: func(t *trial) {
			s := t.one()
			t.each(8, func() {
				s.Kill()
				t.pause(5, 40)
				t.revive(s)
				t.pause(20, 120)
			})
		},
		failed: clients, unread: clients / 2, causes: lost,
	},
	{
		name:     "refusing",
		promise:  "requests go to another replica; only those fail that wait in the accept queue of the listener that closes, which the kernel resets",
		settings: []string{"upstream-idle-timeout", "5ms"}, // so that most requests need a connection
		disturb: func(t *trial) {
			t.each(4, func() {
				t.fault(t.one(), sim.Faults{Refuse: &sim.Fault{}})
				t.pause(100, 300)
				t.heal()
				t.pause(50, 150)
			})
		},
		failed: 2, unread: 2, causes: lost,
	},
	{
		name:     "hung before the first byte",
		promise:  "what is there waits for first_byte_timeout and is answered 504; probes that hang as well take the replica out",
		settings: []string{"health-timeout", "300ms", "first-byte-timeout", "5s"},
		disturb: func(t *trial) {
			t.each(1, func() {
				s := t.one()
				t.fault(s, sim.Faults{Hang: &sim.Fault{}})
				t.lbd.out(s.Addr())
				t.pause(5000, 5200) // until the last one is answered
				t.heal()
			})
		},
		failed: clients, causes: late,
	},
	{
		name:     "hung in a stream",
		promise:  "streams are cut after stream_idle_timeout; five cut in a row, or more than finish, take the replica out, however well it probes",
		settings: []string{"stream-idle-timeout", "5s", "ejection-time", "10s", "max-ejection-time", "10s"},
		disturb: func(t *trial) {
			t.each(1, func() {
				s := t.one()
				t.fault(s, sim.Faults{HangStream: &sim.Fault{Events: 1}})
				t.lbd.out(s.Addr())
				t.pause(5000, 5200) // until the last one is cut
			})
		},
		// Those that are under way when the fifth is cut are lost as well.
		failed: 5 + clients, causes: late, slow: true, streams: true, strategy: "cycle",
	},
	{
		name:    "slow",
		promise: "no request fails, and strategies that look send less there",
		disturb: func(t *trial) {
			t.each(1, func() {
				t.fault(t.sims[0], sim.Faults{Slow: &sim.Fault{Factor: 200}})
				for range 6 { // each waits for answers, so that they are most of all
					t.pause(250, 300)
				}
			})
		},
		observant: true,
		check:     func(t *trial, _ []outcome) { t.share(0, 0, 0.3) },
	},
	{
		name:    "reads and resets",
		promise: "only requests that it read fail; never sent again, since they may have run",
		disturb: func(t *trial) {
			t.each(3, func() {
				t.fault(t.one(), sim.Faults{ResetBefore: &sim.Fault{Rate: 0.5, Count: 6}, ResetStream: &sim.Fault{Rate: 0.5, Count: 6, Events: 2}})
				t.pause(150, 300)
				t.heal()
			})
		},
		failed: 12, causes: lost,
	},
	{
		name:    "answers nonsense",
		promise: "what is no HTTP/1.1 is a 502, what breaks off is seen to be cut, and the connection carries nothing else",
		disturb: func(t *trial) {
			t.each(3, func() {
				t.fault(t.one(), sim.Faults{
					BadHead: &sim.Fault{Rate: 0.3, Count: 4}, BadLength: &sim.Fault{Rate: 0.3, Count: 4},
					BadChunks: &sim.Fault{Rate: 0.3, Count: 4, Events: 1}, TruncateStream: &sim.Fault{Rate: 0.3, Count: 4, Events: 1},
				})
				t.pause(150, 300)
				t.heal()
			})
		},
		failed: 16, causes: lost,
	},
	{
		name:    "closes idle ones at the moment of use",
		promise: "whoever closed without having read a byte gets the request on a fresh connection; how long a replica keeps idle ones is learned",
		config:  func(_ int, c *sim.Config) { c.KeepAlive = 15 * time.Millisecond },
		disturb: func(t *trial) { t.each(1, func() { t.pause(1500, 1600) }) },
		// Until it is learned: one for each client at most.
		failed: clients, unread: clients, causes: lost, ill: true,
	},
	{
		name:    "resets reused connections",
		promise: "the first requests to meet a reset fail, since they may have run; after that no connection to it is used twice for a while",
		homes:   []string{llama},
		servers: func(t *trial) []server {
			return []server{startRaw(t.T, "127.0.0.1:0", func(nth int) (reset, read bool) { return nth > 1, false })}
		},
		disturb: func(t *trial) { t.each(1, func() { t.pause(1500, 1600) }) },
		failed:  clients, unread: clients, causes: lost, ill: true,
	},
	{
		name:     "answers 5xx at once",
		promise:  "its errors are passed on, five in a row take it out, and it is not taken for the least busy",
		settings: []string{"ejection-time", "10s", "max-ejection-time", "10s"},
		disturb: func(t *trial) {
			t.each(1, func() {
				s := t.one()
				t.fault(s, sim.Faults{Status: &sim.Fault{Code: 500}})
				t.pause(1500, 1600)
			})
		},
		// Those that are under way when the fifth fails are lost as well.
		failed: 5 + clients, causes: []string{"status 500 500", "status 500 <nil>"}, slow: true,
	},
	{
		name:    "answers some 5xx at once",
		promise: "what it fails is passed on; below one half it stays, and however little it then has to do, it does not draw more than half of three replicas' requests",
		disturb: func(t *trial) {
			t.each(1, func() {
				t.fault(t.sims[0], sim.Faults{Status: &sim.Fault{Code: 503, Rate: 0.3}})
				t.pause(1000, 1100)
			})
		},
		strategy: "least-waiting",
		failed:   many, bound: "a quarter", causes: []string{"status 503 503", "status 503 <nil>"},
		check: func(t *trial, all []outcome) {
			t.share(0, 0, 0.5)
			failed := len(all) - t.load.answers()
			if failed > len(all)/4 {
				t.Errorf("%d of %d failed; want a quarter at most", failed, len(all))
			}
		},
	},
	{
		name:    "full",
		promise: "what a replica refuses for want of room (vLLM's --max-num-queued-reqs) did not run and goes to one with room; who is full stays in service",
		config:  limit(1, 2, 0),
		think:   time.Millisecond,
		disturb: func(t *trial) {
			t.each(2, func() {
				before := t.refusals()
				t.pause(400, 500)
				until(t.T, "refusals", func() bool { return t.refusals() > before })
			})
		},
		check: func(t *trial, _ []outcome) { t.refused(t.refusals()) },
	},
	{
		name:    "all full",
		promise: "the client gets the refusal of the last replica asked, in vLLM's words; who is full stays in service",
		config:  limit(1, 1, 1),
		think:   time.Millisecond,
		disturb: func(t *trial) {
			t.each(2, func() {
				before := t.load.failures()
				t.pause(400, 500)
				until(t.T, "refused clients", func() bool { return t.load.failures() > before })
			})
		},
		ill:    true,
		failed: many, bound: "all that no replica has room for", causes: []string{"status 503 503", "event 503"},
		check: func(t *trial, all []outcome) {
			told := 0
			for _, o := range all {
				if o.cause == "" {
					continue
				}
				told++
				if n := len(t.journal.reads[o.id]); n != len(t.sims) || t.executed(o.id) != 0 {
					t.Errorf("read %d times; want each replica asked once: %s", n, t.tell(o))
				}
				if !strings.Contains(o.message, "try again later or on a different instance") {
					t.Errorf("not what the replica said: %s", t.tell(o))
				}
			}
			t.refused(t.refusals() - told) // the last refusal is passed on
		},
	},
	{
		name:    "loading behind something that answers 503",
		promise: "no request fails but those that ran at the restart: 503 of a replica that has not served yet is not its word on the request",
		disturb: func(t *trial) {
			t.each(3, func() {
				s := t.one()
				s.Kill()
				t.lbd.out(s.Addr())
				t.fault(s, sim.Faults{Loading: &sim.Fault{}})
				t.revive(s)
				t.pause(150, 250)
				t.heal()
				t.pause(100, 200)
			})
		},
		failed: clients, unread: clients / 2, causes: lost,
	},
	{
		name:    "restarts with another model",
		promise: "its new model is learned, nobody gets the wrong one, and both models are served on by others",
		homes:   []string{llama, qwen, llama, qwen},
		disturb: func(t *trial) {
			t.each(3, func() {
				s := t.sims[2+t.rng.IntN(2)]
				other := llama
				if s.Config().Model == llama {
					other = qwen
				}
				t.becomes(s, other)
				t.pause(200, 400)
			})
		},
		failed: clients, unread: clients / 2, causes: lost,
	},
	{
		name:    "all replicas of a model gone and back",
		promise: "that model is 502 or 503 meanwhile, at once; other models do not notice; it is served as soon as one is back",
		homes:   []string{llama, llama, qwen},
		disturb: func(t *trial) {
			t.each(2, func() {
				from := time.Now()
				t.sims[0].Kill()
				t.sims[1].Kill()
				t.pause(200, 400)
				t.revive(t.sims[0])
				t.revive(t.sims[1])
				t.available()
				t.windows = append(t.windows, window{llama, from, time.Now()})
				t.pause(100, 200)
			})
		},
		check: func(t *trial, all []outcome) {
			t.onlyIn(all, "status 502 replica_error", "status 503 no_healthy_replica", cut)
		},
	},
	{
		name:      "stuck gauges",
		promise:   "no request fails, and no replica is left out or overrun for what its gauges say",
		disturb:   func(t *trial) { t.each(1, func() { t.lie(sim.Faults{StuckGauges: &sim.Fault{}}) }) },
		observant: true,
		check:     func(t *trial, _ []outcome) { t.fair() },
	},
	{
		name:    "missing gauges",
		promise: "no request fails; unknown is not zero: the replica is taken for a usual one",
		disturb: func(t *trial) {
			t.each(1, func() {
				t.lie(sim.Faults{NoMetrics: &sim.Fault{}})
				t.lie(sim.Faults{BrokenMetrics: &sim.Fault{}})
				t.lie(sim.Faults{NoLogStats: &sim.Fault{}})
			})
		},
		observant: true,
		check:     func(t *trial, _ []outcome) { t.fair() },
	},
	{
		name:    "a name that moves, old server up",
		promise: "within 5 s (200 ms here) requests, probes and polls go to the new address; nothing is cut",
		servers: twins, endpoints: byName, strategy: "cycle",
		disturb: func(t *trial) {
			a, b := t.servers[0].(*raw), t.servers[1].(*raw)
			t.each(1, func() {
				for _, to := range []struct {
					ip        string
					old, next *raw
				}{{twinB, a, b}, {twinA, b, a}} {
					t.zone.Set(replicaName, to.ip)
					until(t.T, "no connection to the old address", func() bool { return to.old.connections() == 0 })
					before := len(to.next.Requests())
					until(t.T, "requests at the new address", func() bool { return len(to.next.Requests()) > before })
				}
			})
		},
	},
	{
		name:    "a name that moves, old server gone",
		promise: "the name is looked up again when a connection is refused, and the request goes on to the new address",
		servers: twins, endpoints: byName, strategy: "cycle", refresh: "1h",
		disturb: func(t *trial) {
			t.each(1, func() {
				t.zone.Set(replicaName, twinB)
				t.servers[0].(*raw).stop()
				until(t.T, "requests at the new address", func() bool { return len(t.servers[1].Requests()) > 0 })
				t.pause(200, 300)
			})
		},
		failed: clients, unread: clients, causes: lost,
	},
	{
		name:    "a name with a dead address",
		promise: "all addresses are tried; no request fails",
		servers: twins, endpoints: byName, strategy: "cycle", settings: []string{"upstream-idle-timeout", "5ms"},
		disturb: func(t *trial) {
			t.each(2, func() {
				t.zone.Set(replicaName, "127.0.0.2", twinA, "127.0.0.3")
				t.pause(300, 400)
				t.zone.Set(replicaName, twinA)
				t.pause(300, 400)
			})
		},
	},
	{
		name:    "a DNS server that fails",
		promise: "what was known stays in use",
		servers: twins, endpoints: byName, strategy: "cycle", settings: []string{"upstream-idle-timeout", "5ms"},
		disturb: func(t *trial) {
			t.each(1, func() {
				t.zone.Fail(zone.ServFail)
				t.pause(500, 600)
				t.zone.Set(replicaName, twinA)
			})
		},
	},
	{
		name:    "addresses that come and go",
		promise: "each address of a dns+ name is a replica: one that joins gets requests once it was probed, one that leaves finishes what it has; failing and empty answers change nothing",
		servers: both, endpoints: byEachAddress, each: true,
		disturb: func(t *trial) {
			t.each(2, func() {
				for _, stays := range []int{0, 1} {
					leaver := t.servers[1-stays].(*raw)
					t.zone.Set(replicaName, []string{twinA, twinB}[stays])
					until(t.T, "no connection to who left", func() bool { return leaver.connections() == 0 })
					t.zone.Fail(zone.ServFail)
					t.pause(200, 300)
					t.zone.Fail(zone.NXDomain)
					t.pause(200, 300)
					before := len(leaver.Requests())
					t.zone.Set(replicaName, twinB, twinA)
					until(t.T, "requests at who came back", func() bool { return len(leaver.Requests()) > before })
				}
			})
		},
	},
	{
		name:    "lbd killed and restarted",
		promise: "what it carried is lost and nothing else; replicas hear of it; from the first connection that it takes it answers",
		disturb: func(t *trial) {
			t.each(2, func() {
				from := time.Now()
				t.lbd.kill()
				t.pause(50, 100)
				t.lbd.flags = append(t.lbd.flags, "listen", t.lbd.addr())
				t.lbd.start()
				t.windows = append(t.windows, window{"", from, time.Now()})
				t.pause(400, 500)
			})
		},
		check: func(t *trial, all []outcome) { t.onlyIn(all, noConnection, noAnswer, cut) },
	},
	{
		name:       "everything at once",
		promise:    "all of the above, mixed, under each strategy",
		everywhere: true, ill: true,
		config:  func(_ int, c *sim.Config) { c.KeepAlive = 40 * time.Millisecond },
		disturb: func(t *trial) { t.each(12, func() { t.anything() }) },
		failed:  clients, unread: clients / 2, causes: slices.Concat(lost, late, []string{"status 500 500", "status 500 <nil>"}),
	},
}

// limit has replicas refuse beyond so many requests at once, 0 = never, some of them only
// when a stream has begun.
func limit(reqs ...int) func(int, *sim.Config) {
	return func(i int, c *sim.Config) {
		c.Profile, c.MaxNumQueuedReqs = sim.ProfileV019, reqs[i]
		c.APITime = time.Duration(c.Speed) * 5 * time.Millisecond // between the two looks
	}
}

// refusals counts those of all replicas.
func (t *trial) refusals() (n int) {
	for _, s := range t.sims {
		n += int(s.Stats().Refused)
	}
	return n
}

// refused holds that so many refusals were taken elsewhere and were held against nobody.
func (t *trial) refused(again int) {
	t.Helper()
	t.Logf("%d refusals, %d of them taken elsewhere", t.refusals(), again)
	retried := 0
	for labels, v := range t.lbd.series("lbd_retries_total") {
		if strings.Contains(labels, `reason="replica_full"`) {
			retried += int(v)
		}
	}
	if again == 0 || retried != again {
		t.Errorf("%d requests were taken elsewhere; want %d, and more than none", retried, again)
	}
	for _, r := range t.lbd.fleet().Replicas {
		if r.Ejections != 0 || !r.Available {
			t.Errorf("%s is %s (%s) after %d ejections; want it in service", r.ID, r.State, r.Reason, r.Ejections)
		}
	}
	for labels, v := range t.lbd.series("lbd_upstream_errors_total") {
		if v != 0 {
			t.Errorf("lbd_upstream_errors_total%s is %v; a refusal is no failure", labels, v)
		}
	}
}

// lie has the first replica show something wrong for a while.
func (t *trial) lie(f sim.Faults) {
	t.fault(t.sims[0], f)
	t.pause(500, 700)
}

// anything does one thing at one replica.
func (t *trial) anything() {
	s, rate := t.one(), 0.3+0.4*t.rng.Float64()
	switch t.rng.IntN(9) {
	case 0:
		t.fault(s, sim.Faults{Refuse: &sim.Fault{}})
	case 1:
		t.fault(s, sim.Faults{ResetBefore: &sim.Fault{Rate: rate, Count: clients}})
	case 2:
		t.fault(s, sim.Faults{Status: &sim.Fault{Code: 500, Rate: rate, Count: clients}})
	case 3:
		t.fault(s, sim.Faults{BadHead: &sim.Fault{Rate: rate, Count: clients}})
	case 4:
		t.fault(s, sim.Faults{ResetStream: &sim.Fault{Rate: rate, Count: clients, Events: t.rng.IntN(3)}})
	case 5:
		t.fault(s, sim.Faults{CloseIdleNow: &sim.Fault{}})
	case 6:
		t.fault(s, sim.Faults{Slow: &sim.Fault{Factor: 20}})
	case 7:
		t.fault(s, sim.Faults{StuckGauges: &sim.Fault{}, NoMetrics: &sim.Fault{Rate: rate}})
	case 8:
		s.Kill()
		t.pause(5, 60)
		t.revive(s)
	}
	t.pause(20, 150)
	t.heal()
}

// share holds the part of the picks that a replica got.
func (t *trial) share(i int, least, most float64) {
	t.Helper()
	by := t.shares()
	t.Logf("shares of the picks: %.2f", by)
	if by[i] < least || by[i] > most {
		t.Errorf("replica %d got %.2f of the requests; want %.2f to %.2f", i, by[i], least, most)
	}
}

// fair holds that the first of three replicas, whose gauges lie, is taken for a usual
// one. What least-cost learns of speeds in a second on a machine that is starved is
// chance to some degree, and it goes by that: here nobody may get nearly all. In virtual
// time its shares are held to a third, see TestLightLoadIsShared of bench/replay.
func (t *trial) fair() {
	t.Helper()
	if t.strategy != "least-cost" {
		t.share(0, 0.15, 0.55)
		return
	}
	for i := range t.servers {
		t.share(i, 0, 0.8)
	}
}

// onlyIn holds the causes of what failed in a window.
func (t *trial) onlyIn(all []outcome, causes ...string) {
	t.Helper()
	for _, o := range all {
		if o.cause != "" && t.excused(o) && !slices.Contains(causes, o.cause) {
			t.Errorf("failed with what an absence cannot explain: %s", t.tell(o))
		}
	}
}

// replicaName is what the row's zone knows.
const replicaName = "replica.fault.test"

// Addresses of the servers behind byName. Every address of 127/8 is this machine's.
const (
	twinA = "127.0.0.11"
	twinB = "127.0.0.12"
)

// twins are two servers on one port of two addresses.
func twins(t *trial) []server {
	t.Helper()
	a := startRaw(t.T, twinA+":0", well)
	_, port, err := net.SplitHostPort(a.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.zone = zone.Start(t.T)
	t.zone.Set(replicaName, twinA)
	return []server{a, startRaw(t.T, twinB+":"+port, well)}
}

// both are twins, both in the zone.
func both(t *trial) []server {
	t.Helper()
	pair := twins(t)
	t.zone.Set(replicaName, twinA, twinB)
	return pair
}

// byEachAddress is a replica for each address of that name.
func byEachAddress(t *trial) []string { return []string{"dns+" + byName(t)[0]} }

// byName is one replica, known by a name that the row's zone has.
func byName(t *trial) []string {
	_, port, _ := net.SplitHostPort(t.servers[0].Addr())
	return []string{"http://" + replicaName + ":" + port}
}
