package fleet

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"lbd/balancer"
)

// Options are the seams of a Fleet.
type Options struct {
	// NewPicker makes a strategy for one model. Required.
	NewPicker func(strategy string) (balancer.Picker, error)
	// OnEvent is told every change, in order. It is called under the fleet's
	// lock: it must not block or call anything of the fleet but Snapshot.
	OnEvent func(Event)
	// Now is the clock, time.Now when nil.
	Now func() time.Time
	// DiscoveryGrace is how long a replica that was never up holds back
	// readiness, counted from when it joined the configuration. See
	// [Fleet.Ready].
	DiscoveryGrace time.Duration
}

// Fleet writes the snapshot. Its methods may be called by any number of
// goroutines.
type Fleet struct {
	opts   Options
	holder balancer.Holder
	wake   chan struct{}

	mu      sync.Mutex // guards everything below and orders publications
	plan    *plan
	members []*member // in the order of the configuration
	pickers map[string]picker
	// retired are replicas that left the configuration. One that comes back, as the
	// address of a name may, takes up its load where it was.
	retired    map[string]retiree
	generation uint64
}

// retiree is a replica that has left.
type retiree struct {
	replica  *balancer.Replica
	draining bool
	left     time.Time
}

// keepRetired is how long a replica without a request is kept after it has left. A pick
// may hold an older snapshot for a moment and reserve there, and a name that gives an
// address, does not and gives it again must not put a replica into service that an
// operator has taken out, nor have it forgotten which process it was.
const keepRetired = 10 * time.Minute

// member is what the fleet knows of one replica.
type member struct {
	replica  *balancer.Replica
	joined   time.Time
	health   balancer.Health
	draining bool
	pinned   []string
	// learned is the last list of the replica, nil before the first one; void
	// says that it may not be acted on.
	learned  []balancer.ModelInfo
	says     []uint64       // of each entry of it, see saying
	listing  map[string]int // where a name is first in learned
	void     bool
	mismatch string // the last one told
}

type picker struct {
	strategy string
	balancer.Picker
}

// New returns a fleet without replicas.
func New(opts Options) *Fleet {
	if opts.NewPicker == nil {
		panic("BUG: fleet.New without NewPicker")
	}
	if opts.OnEvent == nil {
		opts.OnEvent = func(Event) {}
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	return &Fleet{
		opts: opts, wake: make(chan struct{}, 1), plan: &plan{},
		pickers: make(map[string]picker), retired: make(map[string]retiree),
	}
}

// Snapshot returns the current picture: one atomic load.
func (f *Fleet) Snapshot() *balancer.Snapshot { return f.holder.Load() }

// Configure makes the fleet what c says, at start and on every reload. Replicas
// that stay keep their load, health, models and drain; strategies that stay keep
// their memory. On an error nothing has changed.
func (f *Fleet) Configure(c Config) error {
	p, err := newPlan(c)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	made, err := f.newPickers(p)
	if err != nil {
		return err
	}
	f.plan = p
	for name, pk := range made {
		f.pickers[name] = pk
	}
	f.setMembers(p)
	f.publish()
	return nil
}

// newPickers makes what p needs and f does not have. The default strategy is
// always tried, since the models that will use it may not be known yet.
func (f *Fleet) newPickers(p *plan) (map[string]picker, error) {
	made := make(map[string]picker)
	if _, err := f.opts.NewPicker(p.strategy); err != nil {
		return nil, err
	}
	for _, m := range p.models {
		s := p.strategyOf(m.Name)
		if old, ok := f.pickers[m.Name]; ok && old.strategy == s {
			continue
		}
		pk, err := f.opts.NewPicker(s)
		if err != nil {
			return nil, fmt.Errorf("model %q: %w", m.Name, err)
		}
		made[m.Name] = picker{s, pk}
	}
	return made, nil
}

func (f *Fleet) setMembers(p *plan) {
	var next []*member
	for _, n := range p.replicas {
		m := f.member(n.id)
		if m == nil {
			m = f.join(n)
		}
		f.change(m, n)
		next = append(next, m)
	}
	now := f.opts.Now()
	for _, m := range f.members {
		if !slices.Contains(next, m) {
			f.retired[m.replica.ID] = retiree{m.replica, m.draining, now}
			f.opts.OnEvent(Event{Kind: ReplicaRemoved, Replica: m.replica.ID, Of: m.replica.Endpoint.Of()})
		}
	}
	for id, r := range f.retired {
		if r.replica.InFlight() == 0 && now.Sub(r.left) >= keepRetired {
			delete(f.retired, id)
		}
	}
	f.members = next
}

func (f *Fleet) join(n planned) *member {
	back, known := f.retired[n.id]
	delete(f.retired, n.id)
	r := back.replica
	if !known {
		r = balancer.NewReplica(n.endpoint, n.device, n.weight)
		r.CacheTokens = n.cache
		// What a strategy remembers by ID of one that has left for good is another's, as
		// when the address of a pod goes to the next one.
		r.BeginAt(f.generation << 32)
	}
	if r.Endpoint != n.endpoint {
		r = r.At(n.endpoint)
	}
	now := f.opts.Now()
	f.opts.OnEvent(Event{Kind: ReplicaAdded, Replica: n.id, Of: n.endpoint.Of()})
	m := &member{replica: r, joined: now, health: balancer.Health{Since: now, Reason: "not probed yet"}}
	if back.draining {
		m.draining = true
		f.opts.OnEvent(Event{Kind: Drained, Replica: n.id, Reason: "drained when it left"})
	}
	return m
}

func (f *Fleet) change(m *member, n planned) {
	if r := m.replica; r.Device != n.device || r.Weight != int64(n.weight) {
		m.replica = r.With(n.device, n.weight)
		f.opts.OnEvent(Event{
			Kind: ReplicaChanged, Replica: n.id,
			Old: fmt.Sprintf("device %q, weight %d", r.Device, r.Weight),
			New: fmt.Sprintf("device %q, weight %d", n.device, n.weight),
		})
	}
	if r := m.replica; r.CacheTokens != n.cache {
		m.replica = r.With(n.device, n.weight)
		m.replica.CacheTokens = n.cache
		f.opts.OnEvent(Event{
			Kind: ReplicaChanged, Replica: n.id,
			Old: fmt.Sprintf("cache_tokens %d", r.CacheTokens), New: fmt.Sprintf("cache_tokens %d", n.cache),
		})
	}
	if r := m.replica; r.Endpoint != n.endpoint {
		m.replica = r.At(n.endpoint)
		f.opts.OnEvent(Event{Kind: ReplicaChanged, Replica: n.id, Old: described(r.Endpoint), New: described(n.endpoint)})
	}
	m.pinned = n.pinned
	f.compare(m)
}

func described(e balancer.Endpoint) string {
	if of := e.Of(); of != "" {
		return e.String() + " of " + of
	}
	return e.String()
}

// SetModels is told what a replica lists in /v1/models. An unknown ID is
// ignored: a reload may have just removed it.
func (f *Fleet) SetModels(id string, models []balancer.ModelInfo) {
	says := saying(models) // without the lock: of thousands it takes milliseconds
	f.mu.Lock()
	defer f.mu.Unlock()
	m := f.member(id)
	if m == nil {
		return
	}
	if models == nil {
		models = []balancer.ModelInfo{} // learned that there is none
	}
	if m.learned != nil && !m.void && slices.Equal(m.says, says) {
		return
	}
	before, after, first := listed(m.learned), listed(models), m.learned == nil
	m.learn(models, says)
	if first || before != after {
		f.opts.OnEvent(Event{Kind: ModelsChanged, Replica: id, Old: before, New: after})
	}
	f.compare(m)
	f.publish()
}

// SetHealth is told the state of a replica. Becoming healthy after it was
// unreachable makes void what it listed before.
func (f *Fleet) SetHealth(id string, h balancer.Health) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m := f.member(id)
	if m == nil || m.health == h {
		return
	}
	back := h.State == balancer.Healthy && h.Restarted && (m.health.State != balancer.Healthy || !m.health.Since.Equal(h.Since))
	m.health = h
	if back && m.learned != nil && !m.void {
		m.void = true
		if len(m.pinned) == 0 {
			f.opts.OnEvent(Event{Kind: ModelsVoid, Replica: id, Old: listed(m.learned)})
		}
	}
	f.publish()
	f.wakeIfUnlearned(m)
}

// Drain takes a replica out of service; its running requests go on.
func (f *Fleet) Drain(id string) error { return f.setDraining(id, true, Drained) }

// Undrain puts a drained replica back.
func (f *Fleet) Undrain(id string) error { return f.setDraining(id, false, Undrained) }

func (f *Fleet) setDraining(id string, draining bool, k Kind) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	m := f.member(id)
	if m == nil {
		return fmt.Errorf("no replica %q; want one of %s", id, strings.Join(f.ids(), ", "))
	}
	if m.draining != draining {
		m.draining = draining
		f.opts.OnEvent(Event{Kind: k, Replica: id})
		f.publish()
	}
	return nil
}

// Unlearned returns the healthy replicas whose models must be learned, for the
// first time or again.
func (f *Fleet) Unlearned() []*balancer.Replica {
	f.mu.Lock()
	defer f.mu.Unlock()
	var rs []*balancer.Replica
	for _, m := range f.members {
		if m.unlearned() {
			rs = append(rs, m.replica)
		}
	}
	return rs
}

// Wake receives a value after Unlearned has grown. It has one reader, the
// poller.
func (f *Fleet) Wake() <-chan struct{} { return f.wake }

func (f *Fleet) wakeIfUnlearned(m *member) {
	if !m.unlearned() {
		return
	}
	select {
	case f.wake <- struct{}{}:
	default: // the reader has a wake-up to come
	}
}

// compare tells once when a pinned replica does not list what it is pinned to.
func (f *Fleet) compare(m *member) {
	if len(m.pinned) == 0 || m.learned == nil || m.void {
		m.mismatch = ""
		return
	}
	missing := slices.ContainsFunc(m.pinned, func(name string) bool { return m.info(name) == nil })
	diff := ""
	if missing {
		diff = fmt.Sprintf("pinned to %q, lists %q", joined(m.pinned), listed(m.learned))
	}
	if diff != "" && diff != m.mismatch {
		f.opts.OnEvent(Event{Kind: ModelsMismatch, Replica: m.replica.ID, Old: joined(m.pinned), New: listed(m.learned)})
	}
	m.mismatch = diff
}

func (f *Fleet) member(id string) *member {
	i := slices.IndexFunc(f.members, func(m *member) bool { return m.replica.ID == id })
	if i < 0 {
		return nil
	}
	return f.members[i]
}

func (f *Fleet) ids() []string {
	ids := make([]string, len(f.members))
	for i, m := range f.members {
		ids[i] = m.replica.ID
	}
	return ids
}

func (m *member) unlearned() bool {
	return m.health.State == balancer.Healthy && (m.learned == nil || m.void)
}

// learn takes over a list. Servers of LoRA adapters list thousands, and every snapshot
// asks for each of them: with a search through the list one took half a second for 3,000.
func (m *member) learn(models []balancer.ModelInfo, says []uint64) {
	m.learned, m.says, m.void = slices.Clone(models), says, false
	m.listing = make(map[string]int, len(models))
	for i, mi := range models {
		if _, twice := m.listing[mi.ID]; !twice {
			m.listing[mi.ID] = i
		}
	}
}

// info returns the replica's own entry of that name, nil if it lists none.
func (m *member) info(name string) *balancer.ModelInfo {
	i, ok := m.listing[name]
	if !ok {
		return nil
	}
	return &m.learned[i]
}

// listed returns the names sorted, since the order of a list means nothing.
func listed(models []balancer.ModelInfo) string {
	names := make([]string, len(models))
	for i, mi := range models {
		names[i] = mi.ID
	}
	return joined(names)
}

func joined(names []string) string {
	return strings.Join(slices.Sorted(slices.Values(names)), ",")
}
