package names

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// followed is one name of which every address is a server of its own.
type followed struct {
	inquiry // its lock guards what follows

	doubted atomic.Bool // it is to be looked up again

	known bool         // a look-up has ended
	ips   []netip.Addr // of the last ones that gave any; sorted, replaced as a whole
}

// Follow makes these the names whose addresses are followed. What is known of those that
// are followed already stays.
func (n *Names) Follow(hosts []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	next := make(map[string]*followed, len(hosts))
	for _, name := range hosts {
		next[name] = n.followed[name]
		if next[name] == nil {
			next[name] = &followed{inquiry: inquiry{name: name, names: n}}
		}
	}
	n.followed = next
}

// Learn looks those names up that are followed and were never looked up, and returns
// when that is done, or ctx is.
func (n *Names) Learn(ctx context.Context) {
	n.mu.Lock()
	var wait []*followed
	for _, f := range n.followed {
		wait = append(wait, f)
	}
	n.mu.Unlock()
	began := time.Now()
	for _, f := range wait {
		f.lookup(gone, began) // all at once
	}
	for _, f := range wait {
		if _, known := f.addresses(); !known {
			f.lookup(ctx, began)
		}
	}
}

// Addresses are those of a name that is followed, sorted. known is false until a first
// look-up has ended, well or not.
func (n *Names) Addresses(host string) (ips []netip.Addr, known bool) {
	if f := n.follows(host); f != nil {
		return f.addresses()
	}
	return nil, false
}

// Moves receives a value after Addresses has changed. It is for one reader.
func (n *Names) Moves() <-chan struct{} { return n.moved }

// Doubt has a name that is followed looked up again, soon: one of its addresses does not
// answer.
func (n *Names) Doubt(host string) {
	f := n.follows(host)
	if f == nil {
		return
	}
	f.doubted.Store(true)
	select {
	case n.doubts <- struct{}{}:
	default: // others are to be looked up, and this one then as well
	}
}

// askDoubted looks up what is in doubt.
func (n *Names) askDoubted() {
	n.mu.Lock()
	var doubted []*followed
	for _, f := range n.followed {
		if f.doubted.Swap(false) {
			doubted = append(doubted, f)
		}
	}
	n.mu.Unlock()
	for _, f := range doubted {
		f.refresh()
	}
}

func (n *Names) follows(host string) *followed {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.followed[host]
}

func (f *followed) addresses() ([]netip.Addr, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ips, f.known
}

func (f *followed) refresh() { f.lookup(gone, time.Now()) }

func (f *followed) lookup(ctx context.Context, since time.Time) error {
	return f.inquire(ctx, since, f.ask)
}

// ask looks for both families on their own: of an answer to both, nobody can tell whether
// a family is not there or could not be had.
func (f *followed) ask(ctx context.Context) {
	var four, six family
	var wg sync.WaitGroup
	wg.Go(func() { six = f.family(ctx, "ip6") })
	four = f.family(ctx, "ip4")
	wg.Wait()
	f.answer(four, six)
}

// family is what a look-up of one kind of address has given: addresses, or that there
// are none (neither), or an error.
type family struct {
	ips []netip.Addr
	err error
	is  func(netip.Addr) bool
}

func (f *followed) family(ctx context.Context, network string) family {
	is := netip.Addr.Is4
	if network == "ip6" {
		is = netip.Addr.Is6
	}
	ips, err := f.names.opt.Lookup(ctx, network, f.name)
	switch {
	case none(err):
		return family{is: is}
	case err != nil:
		return family{err: err, is: is}
	}
	return family{ips: servers(ips, is), is: is}
}

// none says that a name has no address of that kind. A hosts file that has one of the other
// kind only makes it an AddrError.
func none(err error) bool {
	var a *net.AddrError
	return notFound(err) || errors.As(err, &a)
}

// servers are the addresses that can be those of servers, each once, sorted. A DNS server
// that blocks a name gives the unspecified address.
func servers(ips []netip.Addr, is func(netip.Addr) bool) (good []netip.Addr) {
	for _, ip := range ips {
		ip = ip.Unmap()
		if is(ip) && ip.Zone() == "" && !ip.IsUnspecified() && !ip.IsMulticast() {
			good = append(good, ip)
		}
	}
	slices.SortFunc(good, netip.Addr.Compare)
	return slices.Compact(good)
}

// answer takes over the result of a look-up.
func (f *followed) answer(families ...family) {
	f.mu.Lock()
	old, first := f.ips, !f.known
	now, err := together(old, families)
	if err == nil && len(now) == 0 {
		err = &net.DNSError{Err: "no address", Name: f.name, IsNotFound: true}
	}
	if len(now) == 0 {
		now = old
	}
	before := f.answered(err)
	f.ips, f.known = now, true
	f.mu.Unlock()
	if f.names.ctx.Err() != nil {
		return // what has failed then is Stop's doing
	}
	changed := !slices.Equal(old, now)
	if changed {
		f.names.opt.OnEvent(Event{Kind: Members, Host: f.name, Old: old, New: now})
	}
	f.tell(before, err)
	if changed || first {
		select {
		case f.names.moved <- struct{}{}:
		default: // the reader has not seen the last one
		}
	}
}

// together are the addresses of the families that gave any, and what was known of those
// that could not be had; none where no family gave any. An answer without any address
// changes nothing, whatever it says: a DNS server gives such answers while it starts, and,
// where it has only replicas that are ready, when all were too busy to say so.
func together(old []netip.Addr, families []family) (now []netip.Addr, err error) {
	gave := false
	for _, f := range families {
		gave = gave || len(f.ips) > 0
		now = append(now, f.ips...)
		if f.err != nil {
			err = f.err
			now = append(now, slices.DeleteFunc(slices.Clone(old), func(ip netip.Addr) bool { return !f.is(ip) })...)
		}
	}
	if !gave {
		return nil, err
	}
	slices.SortFunc(now, netip.Addr.Compare)
	return slices.Compact(now), err
}
