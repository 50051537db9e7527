package names

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Options are the seams of Names; the zero value is for production.
type Options struct {
	// Lookup is net.Resolver's LookupNetIP, of the networks ip, ip4 and ip6; nil = the
	// system's resolver's.
	Lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)
	// OnEvent is told what changes. It may be called by several goroutines at once,
	// and by those that dial: it must not block.
	OnEvent func(Event)
	// Refresh is the time between two look-ups of a name; 0 = 5 s, Envoy's
	// dns_refresh_rate.
	Refresh time.Duration
}

// Kind says what an [Event] tells.
type Kind uint8

// The kinds of events.
const (
	// Moved: the addresses of a name are others than before. Members: those of a name
	// that is followed are.
	Moved Kind = iota
	Members
	// Failed and Recovered: the first look-up that failed after a good one, and the
	// reverse.
	Failed
	Recovered
)

var kindNames = [...]string{Moved: "name moved", Members: "addresses changed", Failed: "name look-up failed", Recovered: "name look-up recovered"}

// String returns the kind as a log message.
func (k Kind) String() string { return kindNames[k] }

// Event is a change worth a log line.
type Event struct {
	Kind     Kind
	Host     string
	Old, New []netip.Addr // of Moved and Members
	Err      error        // of Failed
}

// errStopped is of a look-up after Stop.
var errStopped = net.ErrClosed

const (
	defaultRefresh = 5 * time.Second
	// lookupTimeout is how long an answer is waited for, that of a stub resolver's
	// one try (resolv.conf(5), timeout).
	lookupTimeout = 5 * time.Second
	// minGap bounds the look-ups that failed connections ask for.
	minGap = 250 * time.Millisecond
	// forgetAfter look-ups in a row that say that there is no such name, it has no
	// addresses: one such answer may come from a server that is about to restart.
	forgetAfter = 2
)

// Names holds what is known of each name. Its methods may be called by any number
// of goroutines.
type Names struct {
	opt           Options
	moved, doubts chan struct{}

	mu       sync.Mutex
	hosts    map[string]*host
	followed map[string]*followed
	stopped  bool

	start  sync.Once
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// New returns Names that are not refreshed before Start.
func New(o Options) *Names {
	if o.Lookup == nil {
		o.Lookup = net.DefaultResolver.LookupNetIP
	}
	if o.OnEvent == nil {
		o.OnEvent = func(Event) {}
	}
	if o.Refresh <= 0 {
		o.Refresh = defaultRefresh
	}
	n := &Names{opt: o, moved: make(chan struct{}, 1), doubts: make(chan struct{}, 1), hosts: make(map[string]*host), followed: make(map[string]*followed)}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	return n
}

// Start begins to refresh.
func (n *Names) Start() { n.start.Do(func() { n.wg.Go(n.run) }) }

// Stop ends look-ups that are under way and waits for them. Names can be dialled
// after it, by what is known.
func (n *Names) Stop() {
	n.start.Do(func() {}) // too late to start
	n.mu.Lock()
	n.stopped = true
	n.mu.Unlock()
	n.cancel()
	n.wg.Wait()
}

// spawn runs f beside, unless it is too late. It may be called under a host's mu.
func (n *Names) spawn(f func()) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.stopped {
		n.wg.Go(f)
	}
	return !n.stopped
}

func (n *Names) run() {
	t := time.NewTicker(n.opt.Refresh)
	defer t.Stop()
	gap := time.NewTimer(0) // between a doubt and the look-up, which is then not too soon after the last one
	defer gap.Stop()
	waits := true
	n.refresh() // those that are followed
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-t.C:
			n.refresh()
		case <-n.doubts:
			if !waits {
				gap.Reset(minGap)
			}
			waits = true
		case <-gap.C:
			n.askDoubted()
			waits = false
		}
	}
}

func (n *Names) refresh() {
	for _, h := range n.all() {
		h.refresh()
	}
}

func (n *Names) all() (all []interface{ refresh() }) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, h := range n.hosts {
		all = append(all, h)
	}
	for _, f := range n.followed {
		all = append(all, f)
	}
	return all
}

func (n *Names) host(name string) *host {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.hosts[name]
	if h == nil {
		h = &host{inquiry: inquiry{name: name, names: n}, conns: make(map[*conn]struct{})}
		n.hosts[name] = h
	}
	return h
}

// Retain forgets the names that are not known any more, so that nobody asks for
// them for ever.
func (n *Names) Retain(known func(host string) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for name := range n.hosts {
		if !known(name) {
			delete(n.hosts, name)
		}
	}
}

// Current says whether a connection to ip is still one to addr, host:port. It is
// where the name is not known: nothing speaks against it.
func (n *Names) Current(addr string, ip netip.Addr) bool {
	name, _, named := split(addr)
	if !named {
		return true
	}
	n.mu.Lock()
	h := n.hosts[name]
	n.mu.Unlock()
	return h == nil || h.has(ip)
}

// split takes host:port apart and says whether the host is a name that has to be
// looked up.
func split(addr string) (name, port string, named bool) {
	name, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", "", false
	}
	_, err = netip.ParseAddr(name)
	return name, port, err != nil
}

// Try calls dial with each address of addr, host:port, until one takes the
// connection. When none does and others have come up since, those are tried as well.
// A deadline is shared out over what is left to try.
func (n *Names) Try(ctx context.Context, addr string, dial func(ctx context.Context, addr string) error) error {
	name, port, named := split(addr)
	if !named {
		return dial(ctx, addr)
	}
	return n.host(name).reach(ctx, port, dial)
}

// DialContext is net.Dialer's, for probes and polls. The connection is closed when
// the name leaves its address.
func (n *Names) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	var d net.Dialer
	name, port, named := split(addr)
	if !named {
		return d.DialContext(ctx, network, addr)
	}
	h := n.host(name)
	var nc net.Conn
	err := h.reach(ctx, port, func(ctx context.Context, addr string) (err error) {
		nc, err = d.DialContext(ctx, network, addr)
		return err
	})
	if err != nil {
		return nil, err
	}
	return h.keep(nc), nil
}

// notFound says that the name does not exist, as opposed to that nobody could say.
func notFound(err error) bool {
	var d *net.DNSError
	return errors.As(err, &d) && d.IsNotFound
}
