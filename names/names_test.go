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
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// zone is a DNS server that answers what it is told to.
type zone struct {
	mu    sync.Mutex
	ips   []netip.Addr
	err   error
	slow  time.Duration
	asked int
}

func (z *zone) set(ips ...string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.ips, z.err = nil, nil
	for _, ip := range ips {
		z.ips = append(z.ips, netip.MustParseAddr(ip))
	}
}

func (z *zone) fail(err error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.err = err
}

func (z *zone) count() int {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.asked
}

func (z *zone) lookup(ctx context.Context, _, _ string) ([]netip.Addr, error) {
	z.mu.Lock()
	z.asked++
	ips, err, slow := slices.Clone(z.ips), z.err, z.slow
	z.mu.Unlock()
	select {
	case <-time.After(slow):
		return ips, err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// house is Names over a zone, and who listens.
type house struct {
	*testing.T
	*Names
	zone *zone
	dead map[string]error // addresses that take nothing

	mu     sync.Mutex
	events []string
}

func run(t *testing.T, f func(h *house)) {
	synctest.Test(t, func(t *testing.T) {
		h := &house{T: t, zone: &zone{}, dead: map[string]error{}}
		h.Names = New(Options{Lookup: h.zone.lookup, OnEvent: h.heard})
		h.Start()
		defer h.Stop()
		f(h)
	})
}

func (h *house) heard(e Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := fmt.Sprintf("%s %s", e.Host, e.Kind)
	if e.Kind == Moved {
		s += fmt.Sprint(" ", e.Old, " ", e.New)
	}
	h.events = append(h.events, s)
}

// dials reaches the name and returns which addresses were tried.
func (h *house) dials() (tried []string, err error) {
	ctx, cancel := context.WithTimeout(h.Context(), 4*time.Second)
	defer cancel()
	err = h.Try(ctx, "replica:80", func(ctx context.Context, addr string) error {
		tried = append(tried, addr)
		err := h.dead[addr]
		if errors.Is(err, context.DeadlineExceeded) {
			<-ctx.Done()
		}
		return err
	})
	return tried, err
}

func (h *house) wantTried(want ...string) {
	h.Helper()
	got, err := h.dials()
	if err != nil {
		h.Errorf("dial: %v", err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		h.Errorf("tried (-want +got):\n%s", diff)
	}
}

func (h *house) wantEvents(want ...string) {
	h.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if diff := cmp.Diff(want, h.events); diff != "" {
		h.Errorf("events (-want +got):\n%s", diff)
	}
	h.events = nil
}

var (
	refused  = &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	noSuch   = &net.DNSError{Err: "no such host", Name: "replica", IsNotFound: true}
	servFail = &net.DNSError{Err: "server misbehaving", Name: "replica", IsTemporary: true}
)

func TestKnownAddressesAreNotLookedUp(t *testing.T) {
	run(t, func(h *house) {
		h.zone.set("10.0.0.1")
		for range 5 {
			h.wantTried("10.0.0.1:80")
		}
		if n := h.zone.count(); n != 1 {
			h.Errorf("%d look-ups for five dials, want 1", n)
		}
		time.Sleep(defaultRefresh + time.Millisecond)
		synctest.Wait()
		if n := h.zone.count(); n != 2 {
			h.Errorf("%d look-ups after the refresh, want 2", n)
		}
	})
}

// A replica that was started again elsewhere is found when its old address refuses,
// not at the next refresh.
func TestMovedIsFoundAtARefusal(t *testing.T) {
	run(t, func(h *house) {
		h.zone.set("10.0.0.1")
		h.wantTried("10.0.0.1:80")
		time.Sleep(time.Second)
		h.zone.set("10.0.0.2")
		h.dead["10.0.0.1:80"] = refused
		h.wantTried("10.0.0.1:80", "10.0.0.2:80")
		h.wantTried("10.0.0.2:80")
		h.wantEvents("replica name moved [10.0.0.1] [10.0.0.2]")
	})
}

// One that moves while its old address still answers is followed at the refresh.
func TestMovedIsFoundAtTheRefresh(t *testing.T) {
	run(t, func(h *house) {
		h.zone.set("10.0.0.1")
		h.wantTried("10.0.0.1:80")
		old := netip.MustParseAddr("10.0.0.1")
		h.zone.set("10.0.0.2")
		if !h.Current("replica:80", old) {
			h.Error("an address is out before anybody has looked")
		}
		time.Sleep(defaultRefresh + time.Millisecond)
		synctest.Wait()
		h.wantTried("10.0.0.2:80")
		if h.Current("replica:80", old) || !h.Current("replica:80", netip.MustParseAddr("10.0.0.2")) {
			h.Error("the old address is current, or the new one is not")
		}
		if !h.Current("other:80", old) || !h.Current("10.0.0.9:80", old) || !h.Current("nonsense", old) {
			h.Error("what is not known as a name must be current")
		}
	})
}

// All addresses are tried; the one that answered stays the first, whatever order a
// DNS server gives them in.
func TestAllAddressesAreTried(t *testing.T) {
	run(t, func(h *house) {
		h.zone.set("10.0.0.1", "10.0.0.2", "10.0.0.3")
		h.dead["10.0.0.1:80"] = refused
		h.wantTried("10.0.0.1:80", "10.0.0.2:80")
		h.wantTried("10.0.0.2:80")
		h.zone.set("10.0.0.3", "10.0.0.1", "10.0.0.2")
		time.Sleep(defaultRefresh + time.Millisecond)
		synctest.Wait()
		h.wantTried("10.0.0.2:80")
		h.wantEvents()
		h.dead["10.0.0.2:80"] = refused
		h.dead["10.0.0.3:80"] = refused
		if tried, err := h.dials(); !errors.Is(err, syscall.ECONNREFUSED) || len(tried) != 3 {
			h.Errorf("tried %v, error %v; want all three and the refusal", tried, err)
		}
	})
}

// An address that does not answer at all leaves time for the others.
func TestDeadlineIsSharedOut(t *testing.T) {
	run(t, func(h *house) {
		h.zone.set("10.0.0.1", "10.0.0.2")
		h.dead["10.0.0.1:80"] = context.DeadlineExceeded
		began := time.Now()
		h.wantTried("10.0.0.1:80", "10.0.0.2:80")
		if d := time.Since(began); d != 2*time.Second {
			h.Errorf("took %v, want half of 4 s", d)
		}
	})
}

func TestFailedLookUpChangesNothing(t *testing.T) {
	run(t, func(h *house) {
		h.zone.set("10.0.0.1")
		h.wantTried("10.0.0.1:80")
		h.zone.fail(servFail)
		time.Sleep(time.Hour)
		h.wantTried("10.0.0.1:80")
		h.wantEvents("replica name look-up failed")
		h.zone.set("10.0.0.1")
		time.Sleep(defaultRefresh)
		synctest.Wait()
		h.wantEvents("replica name look-up recovered")
	})
}

func TestNameThatIsGone(t *testing.T) {
	run(t, func(h *house) {
		h.zone.set("10.0.0.1")
		h.wantTried("10.0.0.1:80")
		h.zone.fail(noSuch)
		time.Sleep(defaultRefresh + time.Millisecond)
		synctest.Wait()
		h.wantTried("10.0.0.1:80") // once is not enough
		time.Sleep(defaultRefresh)
		synctest.Wait()
		tried, err := h.dials()
		var op *net.OpError
		if len(tried) != 0 || !notFound(err) || !errors.As(err, &op) || op.Op != "dial" {
			h.Errorf("tried %v, error %v; want none and a dial error that says that there is no such name", tried, err)
		}
		h.zone.set("10.0.0.2")
		time.Sleep(minGap)
		h.wantTried("10.0.0.2:80")
	})
}

// Refusals do not become a storm of look-ups, and those at one moment share one.
func TestRefusalsDoNotStormTheServer(t *testing.T) {
	run(t, func(h *house) {
		h.zone.set("10.0.0.1")
		h.zone.slow = 50 * time.Millisecond
		h.dead["10.0.0.1:80"] = refused
		var wg sync.WaitGroup
		var failed atomic.Int32
		for range 10 {
			for range 20 {
				wg.Go(func() {
					err := h.Try(h.Context(), "replica:80", func(context.Context, string) error { return refused })
					if err != nil {
						failed.Add(1)
					}
				})
			}
			time.Sleep(100 * time.Millisecond)
		}
		wg.Wait()
		if failed.Load() != 200 {
			h.Errorf("%d of 200 dials failed", failed.Load())
		}
		if n := h.zone.count(); n < 3 || n > 6 {
			h.Errorf("%d look-ups in a second of refusals, want about four", n)
		}
	})
}

// Who looks first may give up; who waits for the same answer gets one.
func TestLookUpThatIsGivenUp(t *testing.T) {
	run(t, func(h *house) {
		h.zone.set("10.0.0.1")
		h.zone.slow = time.Second
		short, cancel := context.WithTimeout(h.Context(), 100*time.Millisecond)
		defer cancel()
		if err := h.Try(short, "replica:80", func(context.Context, string) error { return nil }); !errors.Is(err, context.DeadlineExceeded) {
			h.Errorf("error %v, want that time is over", err)
		}
		time.Sleep(minGap)
		h.wantTried("10.0.0.1:80")
	})
}

func TestRetain(t *testing.T) {
	run(t, func(h *house) {
		h.zone.set("10.0.0.1")
		h.wantTried("10.0.0.1:80")
		h.Retain(func(string) bool { return false })
		before := h.zone.count()
		time.Sleep(time.Minute)
		if n := h.zone.count(); n != before {
			h.Errorf("%d look-ups of a name that is not in use", n-before)
		}
	})
}

// A dial that was under way when its name was forgotten does not bring it back.
func TestRetainWhileDialling(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	var n *Names
	n = New(Options{Lookup: func(context.Context, string, string) ([]netip.Addr, error) {
		n.Retain(func(string) bool { return false })
		return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
	}})
	defer n.Stop()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	c, err := n.DialContext(t.Context(), "tcp", "replica:"+port)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if hs := n.all(); len(hs) != 0 {
		t.Errorf("%d names are looked up for ever; want none", len(hs))
	}
}

func TestAddressIsNoName(t *testing.T) {
	run(t, func(h *house) {
		for _, addr := range []string{"127.0.0.1:80", "[::1]:80"} {
			got := ""
			h.Try(h.Context(), addr, func(_ context.Context, addr string) error { got = addr; return nil })
			if got != addr {
				h.Errorf("dialled %q, want %q", got, addr)
			}
		}
		if h.zone.count() != 0 {
			h.Error("an address was looked up")
		}
	})
}

// A poll's connection does not outlive the address: it would read the old server's
// gauges for ever.
func TestConnectionsToAnAddressLeftAreClosed(t *testing.T) {
	var ip atomic.Value
	ip.Store("127.0.0.1")
	n := New(Options{Lookup: func(context.Context, string, string) ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr(ip.Load().(string))}, nil
	}})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	addr := "replica:" + ln.Addr().String()[strings.LastIndexByte(ln.Addr().String(), ':')+1:]
	c, err := n.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	gone, err := n.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	h := n.host("replica")
	if len(h.conns) != 1 {
		t.Errorf("%d connections are noted, want 1", len(h.conns))
	}
	ip.Store("127.0.0.2")
	h.mu.Lock()
	h.asked = time.Time{}
	h.mu.Unlock()
	h.lookup(t.Context(), time.Now())
	defer n.Stop()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read of a connection to the old address: %v; want that it is closed", err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.conns) != 0 {
		t.Errorf("%d connections are noted, want none", len(h.conns))
	}
}

func TestStopIsIdempotentAndMayComeFirst(t *testing.T) {
	n := New(Options{Lookup: (&zone{slow: time.Hour}).lookup})
	n.Stop()
	n.Start()
	n.Stop()
}
