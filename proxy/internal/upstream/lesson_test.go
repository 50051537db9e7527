package upstream

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"lbd/internal/loopback"
	"lbd/proxy/internal/sock"
)

// idle is the limit that an operator has set.
const idle = 3 * time.Second

func TestLessonOfAShortKeepAlive(t *testing.T) {
	var l lesson
	now := time.Unix(1e9, 0)
	if got := l.most(now, idle); got != idle {
		t.Errorf("limit %v before anything was learned; want %v", got, idle)
	}
	l.closed(now, time.Second, idle)
	l.closed(now, 2*time.Second, idle) // says no more than the first
	if got := l.most(now, idle); got != 500*time.Millisecond {
		t.Errorf("limit %v after one that had waited 1 s; want half of it", got)
	}
	l.closed(now, 100*time.Millisecond, idle)
	now = now.Add(lessonTime - 1)
	if got := l.most(now, idle); got != 50*time.Millisecond {
		t.Errorf("limit %v after one that had waited 100 ms; want half of it", got)
	}
	for _, want := range []time.Duration{100 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond, 800 * time.Millisecond, 1600 * time.Millisecond, idle, idle} {
		now = now.Add(lessonTime)
		if got := l.most(now, idle); got != want {
			t.Errorf("limit %v; want %v", got, want)
		}
	}
}

func TestLessonOfAReset(t *testing.T) {
	var l lesson
	now := time.Unix(1e9, 0)
	for _, want := range []time.Duration{leastDistrust, 2 * leastDistrust, 4 * leastDistrust} {
		l.reset(now)
		l.reset(now.Add(time.Millisecond)) // of the same moment
		if got := l.most(now.Add(want-1), idle); got != 0 {
			t.Errorf("limit %v within %v of a reset; want 0", got, want)
		}
		now = now.Add(want)
		if got := l.most(now, idle); got != idle {
			t.Errorf("limit %v %v after a reset; want %v", got, want, idle)
		}
	}
	now = now.Add(time.Hour)
	for range 12 {
		l.reset(now)
		now = l.distrusted
	}
	if l.distrust != mostDistrust {
		t.Errorf("distrust of %v after twelve in a row; want %v", l.distrust, mostDistrust)
	}
	now = now.Add(mostDistrust)
	if l.reset(now); l.distrust != leastDistrust {
		t.Errorf("distrust of %v after a good time; want %v", l.distrust, leastDistrust)
	}
	if l.forget(); l.most(now, idle) != idle {
		t.Error("something is left of a lesson that was forgotten")
	}
}

// After a reset no connection is kept, and a replica that was away starts anew.
func TestPoolLearns(t *testing.T) {
	r := newReplica(t)
	p := newPool(t, r.addr, Config{Watch: newWatch(t)})
	a, b := get(t, p), get(t, p)
	p.Put(a, time.Now())
	p.Reset(b)
	b.Close()
	if c := get(t, p); c.Reused || !isClosed(a) {
		t.Error("a connection was used again after another was reset")
	} else if p.Put(c, time.Now()); p.Idle() != 0 {
		t.Error("a connection is kept that nobody may use")
	}
	addr := p.addr
	p.addr = loopback.Free(t)
	if _, err := p.Dial(t.Context(), sock.AnyLoop); err == nil {
		t.Fatal("somebody listens where nobody should")
	}
	p.addr = addr
	p.Put(get(t, p), time.Now())
	if c := get(t, p); !c.Reused {
		t.Error("a connection was not used again although the replica is another one")
	}
}

// An attempt that was given up says nothing of the replica: what was learned of it stays.
func TestNothingIsLearnedOfADialThatWasGivenUp(t *testing.T) {
	p := newPool(t, newReplica(t).addr, Config{Watch: newWatch(t)})
	a := get(t, p)
	p.Reset(a)
	a.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.Dial(ctx, sock.AnyLoop); !errors.Is(err, context.Canceled) {
		t.Errorf("%v; want %v", err, context.Canceled)
	}
	if p.Put(get(t, p), time.Now()); p.Idle() != 0 {
		t.Error("connections are kept that nobody may use so soon after a reset")
	}
}

// book is Names of one name.
type book struct {
	tried []string
	ip    netip.Addr // current
	at    []string
}

func (b *book) Try(ctx context.Context, addr string, dial func(context.Context, string) error) (err error) {
	b.tried = append(b.tried, addr)
	for _, at := range b.at {
		if err = dial(ctx, at); err == nil {
			return nil
		}
	}
	return err
}

func (b *book) Current(_ string, ip netip.Addr) bool { return b.ip == ip }

// A connection to an address that its name has left is not used again, and not kept.
func TestPoolOfANameThatMoves(t *testing.T) {
	r := newReplica(t)
	_, port, _ := strings.Cut(r.addr, ":")
	ip := netip.MustParseAddrPort(r.addr).Addr()
	b := &book{ip: ip, at: []string{netip.AddrPortFrom(ip, 1).String(), r.addr}}
	p := newPool(t, "replica:"+port, Config{Watch: newWatch(t), Names: b})
	first, second, third := get(t, p), get(t, p), get(t, p)
	if first.ip != b.ip {
		t.Errorf("the connection is to %v; want %v", first.ip, b.ip)
	}
	p.Put(first, time.Now())
	if get(t, p) != first {
		t.Error("a connection to a current address was not used again")
	}
	p.Put(first, time.Now())
	p.Put(second, time.Now())
	b.ip = netip.MustParseAddr("127.0.0.2")
	p.Put(third, time.Now())
	if p.Idle() != 2 {
		t.Errorf("%d connections are kept; want the two of before", p.Idle())
	}
	if c := get(t, p); c.Reused {
		t.Error("a connection to an address that was left is used again")
	}
	p.Put(first, time.Now())
	p.Expire(time.Now())
	if p.Idle() != 0 {
		t.Errorf("%d connections to an address that was left are kept", p.Idle())
	}
	if NewPool(r.addr, Config{Names: b}).named {
		t.Error("an address is taken for a name")
	}
}
