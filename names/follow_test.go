package names

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// families is a DNS server that answers for each family on its own.
type families struct {
	mu        sync.Mutex
	four, six func() ([]netip.Addr, error)
	asked     map[string]int // host and network
}

func gives(ips ...string) func() ([]netip.Addr, error) {
	var all []netip.Addr
	for _, ip := range ips {
		all = append(all, netip.MustParseAddr(ip))
	}
	return func() ([]netip.Addr, error) {
		if len(all) == 0 {
			return nil, noSuch
		}
		return slices.Clone(all), nil
	}
}

func failing(err error) func() ([]netip.Addr, error) {
	return func() ([]netip.Addr, error) { return nil, err }
}

func (z *families) set(four, six func() ([]netip.Addr, error)) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.four, z.six = four, six
}

func (z *families) count(host string) int {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.asked[host+" ip4"]
}

func (z *families) lookup(_ context.Context, network, host string) ([]netip.Addr, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.asked[host+" "+network]++
	switch network {
	case "ip4":
		return z.four()
	case "ip6":
		return z.six()
	}
	return nil, fmt.Errorf("network %q", network)
}

// follower is Names that follow one name.
type follower struct {
	*testing.T
	*Names
	zone *families

	mu     sync.Mutex
	events []string
}

func follow(t *testing.T, f func(f *follower)) {
	synctest.Test(t, func(t *testing.T) {
		h := &follower{T: t, zone: &families{asked: map[string]int{}}}
		h.zone.set(gives(), gives())
		h.Names = New(Options{Lookup: h.zone.lookup, OnEvent: func(e Event) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.events = append(h.events, fmt.Sprint(e.Kind, " ", e.Old, " ", e.New))
		}})
		h.Follow([]string{"all"})
		defer h.Stop()
		f(h)
	})
}

// answer has the server say so, and waits until it was asked.
func (h *follower) answer(four, six func() ([]netip.Addr, error)) {
	h.zone.set(four, six)
	time.Sleep(defaultRefresh)
	synctest.Wait()
}

func (h *follower) want(ips string) {
	h.Helper()
	got, known := h.Addresses("all")
	if text := strings.Trim(fmt.Sprint(got), "[]"); text != ips || !known {
		h.Errorf("addresses %q, known %t; want %q", text, known, ips)
	}
}

func (h *follower) wantEvents(want ...string) {
	h.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if diff := cmp.Diff(want, h.events); diff != "" {
		h.Errorf("events (-want +got):\n%s", diff)
	}
	h.events = nil
}

// moved says whether there is something new for the reader.
func (h *follower) moved() bool {
	select {
	case <-h.Moves():
		return true
	default:
		return false
	}
}

func TestFollow(t *testing.T) {
	follow(t, func(h *follower) {
		if _, known := h.Addresses("all"); known || h.moved() {
			t.Error("known before anybody has looked")
		}
		h.zone.set(gives("10.0.0.2", "10.0.0.1", "10.0.0.2"), gives("fd00::1"))
		h.Start()
		synctest.Wait()
		h.want("10.0.0.1 10.0.0.2 fd00::1")
		h.wantEvents("addresses changed [] [10.0.0.1 10.0.0.2 fd00::1]")
		if !h.moved() || h.moved() {
			t.Error("want one value after one change")
		}
		h.answer(gives("10.0.0.1", "10.0.0.2"), gives("fd00::1")) // in another order
		h.wantEvents()
		if h.moved() {
			t.Error("a change of the order was told")
		}
		h.answer(gives("10.0.0.3", "10.0.0.1"), gives())
		h.want("10.0.0.1 10.0.0.3")
		h.wantEvents("addresses changed [10.0.0.1 10.0.0.2 fd00::1] [10.0.0.1 10.0.0.3]")
		if !h.moved() {
			t.Error("a change was not told")
		}
	})
}

// What cannot be the address of a server is none.
func TestFollowedAddressesAreOfServers(t *testing.T) {
	follow(t, func(h *follower) {
		h.Start()
		h.answer(gives("::ffff:10.0.0.1", "0.0.0.0", "224.0.0.1", "10.0.0.1", "fd00::9"), gives("::", "fe80::1%eth0", "fd00::1", "10.0.0.9"))
		h.want("10.0.0.1 fd00::1")
	})
}

// Failures and answers without an address leave what is known, each is told once, and
// so is the end of it.
func TestFollowedNameThatFails(t *testing.T) {
	noAddress := failing(&net.AddrError{Err: "no suitable address", Addr: "all"})
	for name, z := range map[string][2]func() ([]netip.Addr, error){
		"SERVFAIL": {failing(servFail), failing(servFail)}, "NXDOMAIN": {gives(), gives()}, "no answer": {failing(context.DeadlineExceeded), gives()},
		"hosts file without": {noAddress, noAddress}, "nothing usable": {func() ([]netip.Addr, error) { return nil, nil }, gives("::")},
	} {
		t.Run(name, func(t *testing.T) {
			follow(t, func(h *follower) {
				h.Start()
				h.answer(gives("10.0.0.1"), gives("fd00::1"))
				h.mu.Lock()
				h.events = nil
				h.mu.Unlock()
				h.moved()
				for range 5 {
					h.answer(z[0], z[1])
				}
				h.want("10.0.0.1 fd00::1")
				h.wantEvents("name look-up failed [] []")
				if h.moved() {
					t.Error("a change was told")
				}
				h.answer(gives("10.0.0.1"), gives("fd00::1"))
				h.wantEvents("name look-up recovered [] []")
			})
		})
	}
}

// A family that could not be had stays as it was, also when the other one changes.
func TestFollowedFamiliesFailOnTheirOwn(t *testing.T) {
	follow(t, func(h *follower) {
		h.Start()
		h.answer(gives("10.0.0.1"), gives("fd00::1", "fd00::2"))
		h.answer(gives("10.0.0.2"), failing(servFail))
		h.want("10.0.0.2 fd00::1 fd00::2")
		h.answer(failing(servFail), gives("fd00::2"))
		h.want("10.0.0.2 fd00::2")
		h.answer(failing(servFail), gives()) // it may be all that there is
		h.want("10.0.0.2 fd00::2")
		h.answer(gives("10.0.0.2"), gives())
		h.want("10.0.0.2")
	})
}

// A first look-up that fails is an end of not knowing.
func TestFollowedNameThatWasNeverThere(t *testing.T) {
	follow(t, func(h *follower) {
		h.Start()
		synctest.Wait()
		h.want("")
		h.wantEvents("name look-up failed [] []")
		if !h.moved() {
			t.Error("the first outcome was not told")
		}
	})
}

func TestDoubt(t *testing.T) {
	follow(t, func(h *follower) {
		h.zone.set(gives("10.0.0.1"), gives())
		h.Start()
		synctest.Wait()
		h.zone.set(gives("10.0.0.2"), gives())
		for range 10 { // no storm, and none is forgotten that comes right behind a look-up
			h.Doubt("all")
			h.Doubt("nobody")
			time.Sleep(minGap / 100)
		}
		time.Sleep(minGap)
		synctest.Wait()
		h.want("10.0.0.2")
		if n := h.zone.count("all"); n != 2 {
			t.Errorf("%d look-ups; want two", n)
		}
	})
}

// Another set of names keeps what is known of those in both, and asks for the others once.
func TestFollowOthers(t *testing.T) {
	follow(t, func(h *follower) {
		h.zone.set(gives("10.0.0.1"), gives())
		h.Start()
		synctest.Wait()
		h.zone.set(failing(servFail), failing(servFail))
		h.Follow([]string{"all", "more"})
		h.want("10.0.0.1")
		h.Learn(h.Context())
		if ips, known := h.Addresses("more"); len(ips) != 0 || !known {
			t.Errorf("%v, known %t; want that it was looked up in vain", ips, known)
		}
		h.Follow([]string{"more"})
		before := h.zone.count("all")
		time.Sleep(time.Minute)
		if n := h.zone.count("all"); n != before {
			t.Errorf("%d look-ups of a name that is not followed", n-before)
		}
		if ips, known := h.Addresses("all"); len(ips) != 0 || known {
			t.Errorf("%v is known of a name that is not followed", ips)
		}
	})
}

// Who learns waits for the answer, for as long as may be.
func TestLearnIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := &zone{slow: time.Second}
		z.set("10.0.0.1")
		n := New(Options{Lookup: z.lookup})
		defer n.Stop()
		n.Follow([]string{"all"})
		short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if n.Learn(short); !errors.Is(short.Err(), context.DeadlineExceeded) {
			t.Error("back before the answer")
		}
		if _, known := n.Addresses("all"); known {
			t.Error("known before the answer")
		}
		n.Learn(t.Context())
		if ips, known := n.Addresses("all"); len(ips) != 1 || !known {
			t.Errorf("%v, known %t; want the answer", ips, known)
		}
	})
}

// The end of Names is no failure of a name.
func TestStopWhileANameIsLookedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(Options{Lookup: (&zone{slow: time.Hour}).lookup, OnEvent: func(e Event) { t.Errorf("told %+v", e) }})
		n.Follow([]string{"all"})
		n.Start()
		synctest.Wait()
		n.Stop()
		n.Learn(t.Context())
	})
}

// FuzzTogether has two families answer anything: what is known never becomes nothing,
// and holds each address once.
func FuzzTogether(f *testing.F) {
	f.Add([]byte{1, 2, 3}, []byte{2}, []byte{}, uint8(0))
	f.Add([]byte{1, 0x81}, []byte{}, []byte{0x81}, uint8(1))
	f.Add([]byte{1}, []byte{}, []byte{}, uint8(3))
	ips := func(raw []byte, is func(netip.Addr) bool) []netip.Addr {
		var all []netip.Addr
		for _, b := range raw {
			ip := netip.AddrFrom4([4]byte{10, 0, 0, b})
			if b >= 0x80 {
				ip = netip.AddrFrom16([16]byte{0xfd, 15: b})
			}
			all = append(all, ip)
		}
		return servers(all, is)
	}
	any := func(netip.Addr) bool { return true }
	f.Fuzz(func(t *testing.T, old, four, six []byte, fails uint8) {
		n := New(Options{Refresh: time.Hour})
		defer n.Stop()
		name := &followed{inquiry: inquiry{name: "all", names: n}, ips: ips(old, any)}
		before := name.ips
		a := family{ips: ips(four, netip.Addr.Is4), is: netip.Addr.Is4}
		b := family{ips: ips(six, netip.Addr.Is6), is: netip.Addr.Is6}
		if fails&1 != 0 {
			a.ips, a.err = nil, servFail
		}
		if fails&2 != 0 {
			b.ips, b.err = nil, servFail
		}
		name.answer(a, b)
		gave := len(a.ips)+len(b.ips) > 0
		for _, ip := range name.ips {
			known := slices.Contains(before, ip) && (!gave || a.err != nil && ip.Is4() || b.err != nil && ip.Is6())
			if !known && !slices.Contains(a.ips, ip) && !slices.Contains(b.ips, ip) {
				t.Errorf("%v is neither in the answer nor to be kept", ip)
			}
		}
		for _, ip := range slices.Concat(a.ips, b.ips) {
			if !slices.Contains(name.ips, ip) {
				t.Errorf("%v of the answer is missing", ip)
			}
		}
		if !gave && !slices.Equal(before, name.ips) {
			t.Errorf("%v became %v by an answer without any address", before, name.ips)
		}
		if !slices.IsSortedFunc(name.ips, netip.Addr.Compare) || len(slices.Compact(slices.Clone(name.ips))) != len(name.ips) {
			t.Errorf("%v is not sorted, or holds one twice", name.ips)
		}
	})
}
