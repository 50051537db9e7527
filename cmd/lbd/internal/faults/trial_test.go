package faults

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"lbd/bench/sim"
	"lbd/internal/loopback"
	"lbd/internal/zone"
)

// row is one fault of the matrix.
type row struct {
	name string
	// promise is what lbd says of it in README.md.
	promise string
	// homes are the models of the simulated replicas; nil = three of one model.
	homes []string
	// config changes the i-th replica before it starts.
	config func(i int, c *sim.Config)
	// servers are replicas that the simulated ones cannot be, behind those.
	servers func(t *trial) []server
	// endpoints, if not nil, stand for the replicas instead of their addresses.
	endpoints func(t *trial) []string
	each      bool // every server is a replica, whatever the endpoints
	settings  []string
	think     time.Duration // of clients; 0 = 10 ms
	refresh   string        // of names; "" = 200 ms
	streams   bool          // clients ask for nothing else
	strategy  string        // "" = one of strategies
	// observant: under each of the strategies that look at replicas, always.
	observant bool
	// everywhere: under each of strategies, always.
	everywhere bool
	// disturb does the harm while clients ask.
	disturb func(t *trial)
	// failed is how many requests may fail in a round: those that nobody could have
	// saved. unread is how many of them no replica may have read, which lbd cannot
	// know: it saw a reset. causes are what they may fail with.
	failed, unread int
	causes         []string
	bound          string // what README.md says in place of many
	// slow: replicas are back only after the ejection of the row, so the end does not
	// wait for them.
	slow bool
	// ill: it goes wrong from the beginning.
	ill bool
	// check looks at more.
	check func(t *trial, all []outcome)
}

// server is a replica, as far as the judge is concerned.
type server interface {
	Addr() string
	URL() string
	Requests() []sim.RecordedRequest
}

// clients ask at once.
const clients = 8

// trial is one row under one strategy with one seed.
type trial struct {
	*testing.T
	row      *row
	strategy string
	seed     uint64
	rng      *rand.Rand // of disturb
	rounds   int        // done
	scale    int

	sims    []*sim.Server
	servers []server
	lbd     *process
	load    *load
	journal journal
	windows []window
	homes   map[server][]home // of sims, as they followed each other

	picksBefore []float64
	zone        *zone.Zone // of rows with names
}

// home is the model of a replica until the next one.
type home struct {
	model string
	from  time.Time // zero: from the beginning
}

// window is a time in which nobody serves a model, or lbd is not there.
type window struct {
	model    string // "" = all
	from, to time.Time
}

// quick is a configuration whose times fit a test. Timeouts leave a machine that is
// busy with other things a few seconds.
var quick = []string{
	"admin-listen", "127.0.0.1:0", "metrics-poll-interval", "100ms", "models-poll-interval", "300ms",
	"health-interval", "100ms", "health-timeout", "2s", "ejection-time", "200ms", "max-ejection-time", "400ms",
	"first-byte-timeout", "30s", "stream-idle-timeout", "30s", "connect-timeout", "5s", "upstream-idle-timeout", "500ms", "drain-timeout", "5s",
}

func (r *row) run(tt *testing.T, strategy string, seed uint64) {
	t := &trial{T: tt, row: r, strategy: strategy, seed: seed, rng: rand.New(rand.NewPCG(seed, 0)), scale: int(number(tt, "FAULTS_ROUNDS", 1))}
	tt.Logf("strategy %s, FAULTS_SEED=%d", strategy, seed)
	t.startReplicas()
	t.startLBD()
	t.available()
	t.warmUp()
	before := t.rest()
	t.picksBefore = t.picks()
	t.load.begin(clients, seed)
	t.pause(100, 200)
	r.disturb(t)
	t.heal()
	if !r.slow {
		t.available()
	}
	healed := time.Now()
	t.pause(150, 200)
	t.load.end()
	t.settled()
	t.returned(before)
	t.journal.end()
	t.judge(t.load.outcomes(), healed)
	t.lbd.stop()
}

func (t *trial) startReplicas() {
	models := t.row.homes
	if models == nil && t.row.servers == nil {
		models = []string{llama, llama, llama}
	}
	t.homes = map[server][]home{}
	for i, model := range models {
		c := sim.Config{
			Model: model, Profile: sim.Profiles()[i%2], Speed: 20, APITime: -1, AbortPoll: 20 * time.Millisecond, Seed: t.seed + uint64(i),
		}
		if t.row.config != nil {
			t.row.config(i, &c)
		}
		s, err := sim.New(c)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Start("127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Stop)
		t.sims, t.servers = append(t.sims, s), append(t.servers, s)
		t.homes[s] = []home{{model: model}}
	}
	if t.row.servers != nil {
		t.servers = append(t.servers, t.row.servers(t)...)
	}
	t.journal.begin(t.T, t.servers)
}

func (t *trial) startLBD() {
	var urls []string
	if t.row.endpoints != nil {
		urls = t.row.endpoints(t)
	} else {
		for _, s := range t.servers {
			urls = append(urls, s.URL())
		}
	}
	// For a while no lbd listens, in some rows.
	flags := slices.Concat(quick, []string{"listen", loopback.Address(), "endpoints", strings.Join(urls, ","), "strategy", t.strategy}, t.row.settings)
	var env []string
	if t.zone != nil {
		env = []string{resolverVar + "=" + t.zone.Addr()}
		flags = append(flags, "dns-refresh-interval", cmp.Or(t.row.refresh, "200ms"))
	}
	t.lbd = started(t.T, env, flags...)
	t.load = &load{addr: func() string { return t.lbd.addr() }, models: t.models(), think: t.row.think, tokens: 24, stream: t.row.streams}
	if t.load.think == 0 {
		t.load.think = 10 * time.Millisecond
	}
}

// models are those that clients ask for.
func (t *trial) models() []string {
	if t.row.homes == nil {
		return []string{llama}
	}
	return slices.Compact(slices.Sorted(slices.Values(t.row.homes)))
}

// available waits until all replicas are in service.
func (t *trial) available() {
	t.Helper()
	n := len(t.servers)
	if t.row.endpoints != nil && !t.row.each {
		n = len(t.row.endpoints(t))
	}
	t.lbd.available(n)
}

// warmUp fills pools and caches, so that growth after it is not theirs.
func (t *trial) warmUp() {
	l := &load{addr: t.load.addr, models: t.load.models, think: t.load.think, tokens: t.load.tokens}
	l.begin(clients, t.seed^1)
	until(t.T, "answers before anything goes wrong", func() bool { return l.answers() >= 5*clients })
	l.end()
	if t.row.ill {
		t.load.all = l.all
		return
	}
	for _, o := range l.all {
		if o.cause != "" {
			t.Errorf("before anything went wrong: %s: %s %s", o.id, o.cause, o.message)
		}
	}
}

// rest waits until lbd has nothing to do and returns its footing then.
func (t *trial) rest() footing {
	t.settled()
	time.Sleep(time.Second) // idle connections go after 500 ms
	return t.lbd.footing()
}

// pause waits a drawn number of milliseconds, and on a machine that is slow until
// there has been load meanwhile; for a while only, since a fault may keep all clients.
func (t *trial) pause(least, most int) {
	before := t.load.answers()
	time.Sleep(time.Duration(least+t.rng.IntN(most-least+1)) * time.Millisecond)
	for end := time.Now().Add(2 * time.Second); t.load.answers() < before+2*clients && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
}

// each does so many rounds, more if the run is to be long.
func (t *trial) each(n int, round func()) {
	for range n * t.scale {
		round()
		t.rounds++
	}
}

// one draws a replica.
func (t *trial) one() *sim.Server { return t.sims[t.rng.IntN(len(t.sims))] }

func (t *trial) fault(s *sim.Server, f sim.Faults) {
	t.Helper()
	if err := s.SetFaults(f); err != nil {
		t.Fatal(err)
	}
}

func (t *trial) revive(s *sim.Server) {
	t.Helper()
	if err := s.Start(""); err != nil {
		t.Fatal(err)
	}
}

// becomes restarts a replica with another model. What it has read when it is dead it has
// read as the one, all else it reads as the other.
func (t *trial) becomes(s *sim.Server, model string) {
	t.Helper()
	s.Kill()
	t.homes[s] = append(t.homes[s], home{model: model, from: time.Now()})
	if err := s.SetModel(model); err != nil {
		t.Fatal(err)
	}
	t.revive(s)
}

// executed counts the times that replicas have read a request, had room for it and served
// its model. One that does not serve it says so with a 404, one that is full with a 503,
// which is no execution, and lbd may go on to another: these are the things that excuse a
// repeat, so they are looked up here and not counted. Of replicas that the row has not restarted the model never changes.
func (t *trial) executed(id string) (n int) {
	for _, r := range t.journal.reads[id] {
		if r.model == t.modelOf(r) && !t.journal.refused[refusal{r.by, r.time}] {
			n++
		}
	}
	return n
}

// modelOf is what the replica served when it read that.
func (t *trial) modelOf(r read) string {
	model := r.model // of servers that are no sims
	for _, h := range t.homes[r.by] {
		if !r.time.Before(h.from) {
			model = h.model
		}
	}
	return model
}

// heal undoes all.
func (t *trial) heal() {
	for _, s := range t.sims {
		t.fault(s, sim.Faults{})
	}
}

// settled waits until own load is zero: in the gauges, on the fleet page, in the
// strategy's terms, and as the replicas see it.
func (t *trial) settled() {
	t.Helper()
	left := ""
	defer func() {
		if left != "" {
			t.Logf("left over: %s", left)
		}
	}()
	until(t.T, "own load is zero", func() bool {
		left = t.leftOver()
		return left == ""
	})
}

func (t *trial) leftOver() string {
	for _, r := range t.lbd.fleet().Replicas {
		if r.Own.InFlight != 0 || r.Own.Pending != 0 {
			return fmt.Sprintf("fleet page: %s: %+v", r.ID, r.Own)
		}
	}
	for labels, v := range t.lbd.series("lbd_inflight_requests") {
		if v != 0 {
			return fmt.Sprintf("gauge: %s %v", labels, v)
		}
	}
	for _, s := range t.sims {
		if n := s.Stats().InFlight; n != 0 {
			return fmt.Sprintf("replica %s: %d running", s.Addr(), n)
		}
	}
	return t.lbd.terms(t.models())
}

// Tolerances of a footing: each replica may have one connection more that polls or
// probes it at this moment, with the goroutines of net/http for it.
const (
	goroutinesPerReplica  = 5
	descriptorsPerReplica = 2
	heapTolerance         = 4 << 20 // bytes
)

// returned waits until lbd is where it was.
func (t *trial) returned(before footing) {
	t.Helper()
	var now footing
	n := len(t.servers)
	ok := func() bool {
		now = t.lbd.footing()
		return now.goroutines <= before.goroutines+goroutinesPerReplica*n &&
			now.descriptors <= before.descriptors+descriptorsPerReplica*n && now.heap <= before.heap+heapTolerance
	}
	defer func() { t.Logf("goroutines, descriptors, heap: %v before, %v after", before, now) }()
	until(t.T, "goroutines, descriptors and heap are where they were", ok)
}

// read is one time that a replica has read a request whole.
type read struct {
	by    server
	model string // that it asks for
	time  time.Time
}

// refusal is a request that a replica has read and had no room for.
type refusal struct {
	by   server
	time time.Time
}

// journal notes, per request id, which replicas have read it.
type journal struct {
	t       *testing.T
	servers []server
	stop    chan struct{}
	done    sync.WaitGroup
	seen    map[server]time.Time // the newest that was counted
	reads   map[string][]read
	refused map[refusal]bool // known a moment after the read
}

func (j *journal) begin(t *testing.T, servers []server) {
	j.t, j.servers, j.stop = t, servers, make(chan struct{})
	j.seen, j.reads, j.refused = map[server]time.Time{}, map[string][]read{}, map[refusal]bool{}
	t.Cleanup(j.end)
	j.done.Go(func() {
		for {
			j.collect()
			select {
			case <-j.stop:
				return
			case <-time.After(50 * time.Millisecond): // a replica remembers 1,024
			}
		}
	})
}

func (j *journal) collect() {
	for _, s := range j.servers {
		for _, q := range s.Requests() {
			if q.Refused {
				j.refused[refusal{s, q.Time}] = true
			}
			if q.Time.After(j.seen[s]) && q.RequestID != "" && q.Method == "POST" {
				j.seen[s] = q.Time
				var body struct{ Model string }
				json.Unmarshal(q.Body, &body) // the other servers note none, and have one model
				j.reads[q.RequestID] = append(j.reads[q.RequestID], read{s, body.Model, q.Time})
			}
		}
	}
}

// end collects for the last time; the maps are the caller's then. Further calls do
// nothing.
func (j *journal) end() {
	select {
	case <-j.stop:
		return
	default:
	}
	close(j.stop)
	j.done.Wait()
	j.collect()
}

// judge holds the row's bounds.
func (t *trial) judge(all []outcome, healed time.Time) {
	t.Helper()
	tally, failed, unread, covered := map[string]int{}, 0, 0, 0
	for _, o := range all {
		n := t.executed(o.id)
		tally[fmt.Sprintf("%s, executed %d", orWell(o.cause), n)]++
		if n > 1 {
			t.Errorf("executed more than once: %s", t.tell(o))
		}
		switch {
		case o.cause == "":
		case o.cause == wrong:
			t.Errorf("a whole answer that is wrong: %s", t.tell(o))
		case t.excused(o):
			covered++
		case o.start.After(healed) && !t.row.ill:
			t.Errorf("failed although all had healed: %s", t.tell(o))
		case !slices.Contains(t.row.causes, o.cause):
			t.Errorf("failed with what no replica's fault can explain: %s", t.tell(o))
		case len(t.journal.reads[o.id]) == 0:
			unread++
			fallthrough
		default:
			if failed++; failed <= 3 {
				t.Logf("failed: %s", t.tell(o))
			}
		}
	}
	for _, k := range slices.Sorted(maps.Keys(tally)) {
		t.Logf("%6d %s", tally[k], k)
	}
	t.Logf("%6d sent in all; %d rounds; %d failed, %d of them read by nobody, %d excused", len(all), t.rounds, failed, unread, covered)
	if most := t.row.failed * t.rounds; failed > most {
		t.Errorf("%d requests failed in %d rounds; want %d at most", failed, t.rounds, most)
	}
	if most := t.row.unread * t.rounds; unread > most {
		t.Errorf("%d requests failed that no replica had read, in %d rounds; want %d at most", unread, t.rounds, most)
	}
	if well := len(all) - failed - covered; well < 5*clients {
		t.Errorf("%d requests answered well; that is no load", well)
	}
	if t.row.check != nil {
		t.row.check(t, all)
	}
}

func orWell(cause string) string {
	if cause == "" {
		return "well"
	}
	return cause
}

// excused says that a request overlapped a time in which nobody could have served
// it.
func (t *trial) excused(o outcome) bool {
	return slices.ContainsFunc(t.windows, func(w window) bool {
		return (w.model == "" || w.model == o.model) && o.end.After(w.from) && o.start.Before(w.to)
	})
}

func (t *trial) tell(o outcome) string {
	var at []string
	for _, r := range t.journal.reads[o.id] {
		at = append(at, r.by.Addr())
	}
	return fmt.Sprintf("%s: %s %q, stream %t, %s, answered by %q, executed %d, read at %q, %d ms at %s", o.id, o.cause, o.message, o.stream, o.model,
		o.replica, t.executed(o.id), at, o.end.Sub(o.start).Milliseconds(), o.start.UTC().Format("15:04:05.000"))
}

// picks are those of each replica, in the order of servers.
func (t *trial) picks() []float64 {
	by := make([]float64, len(t.servers))
	for labels, v := range t.lbd.series("lbd_picks_total") {
		for i, s := range t.servers {
			if strings.Contains(labels, `replica="`+s.Addr()+`"`) {
				by[i] += v
			}
		}
	}
	return by
}

// shares is what part of the picks under load each replica got.
func (t *trial) shares() []float64 {
	by, total := t.picks(), 0.0
	for i := range by {
		by[i] -= t.picksBefore[i]
		total += by[i]
	}
	for i := range by {
		by[i] /= max(total, 1)
	}
	return by
}

// strategies are those of the matrix: one that looks at nothing, the default one,
// and the one that knows most.
var strategies = []string{"cycle", "least-waiting", "least-cost"}

// observant are those of them that look at replicas.
var observant = strategies[1:]

// defaultSeed is the seed of CI.
const defaultSeed = 20261122

func TestMatrix(t *testing.T) {
	seed := number(t, "FAULTS_SEED", defaultSeed)
	for i := range matrix {
		r := &matrix[i]
		under := []string{strategies[(uint64(i)+seed)%uint64(len(strategies))]}
		switch {
		case r.strategy != "":
			under = []string{r.strategy}
		case r.observant:
			under = observant
		case r.everywhere || os.Getenv("FAULTS_ALL") != "":
			under = strategies
		}
		for _, strategy := range under {
			t.Run(r.name+"/"+strategy, func(t *testing.T) {
				t.Parallel()
				r.run(t, strategy, seed)
			})
		}
	}
}
