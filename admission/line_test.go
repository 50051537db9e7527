package admission

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func (l *line) add(client string, class Class, cost float64) *waiter {
	w := &waiter{client: client, class: class, cost: cost}
	l.join(w)
	return w
}

// served takes n out in order and returns whose they were.
func (l *line) served(n int) (clients string) {
	for range n {
		w := l.next(nil)
		l.serve(w)
		clients += w.client
	}
	return clients
}

func TestOrder(t *testing.T) {
	for name, c := range map[string]struct {
		fill func(l *line)
		want string
	}{
		"one client: as they came":   {func(l *line) { l.add("a", 0, 5); l.add("a", 0, 1); l.add("b", 0, 1) }, "aba"},
		"equal costs: turns":         {func(l *line) { l.many("a", 3, 1); l.many("b", 3, 1) }, "ababab"},
		"double costs: half so many": {func(l *line) { l.many("a", 3, 2); l.many("b", 6, 1) }, "abbabbabb"},
		"classes are strict": {func(l *line) {
			l.add("c", Low, 1)
			l.many("b", 2, 100)
			l.add("a", High, 1000)
		}, "abbc"},
		"who comes late is not owed the past": {func(l *line) {
			l.many("a", 10, 1)
			l.served(5)
			l.many("b", 3, 1)
		}, "bababaaa"},
	} {
		t.Run(name, func(t *testing.T) {
			var l line
			c.fill(&l)
			if got := l.served(l.n); got != c.want {
				t.Errorf("served %q; want %q", got, c.want)
			}
			if l.bytes != 0 || l.n != 0 {
				t.Errorf("%d left with %d bytes", l.n, l.bytes)
			}
		})
	}
}

func (l *line) many(client string, n int, cost float64) {
	for range n {
		l.add(client, Normal, cost)
	}
}

// While two clients have something waiting, the work done for them differs by no
// more than a request of each: theorem 1 of the paper.
func TestFairnessBound(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		var l line
		clients := []string{"a", "b", "c"}
		most := map[string]float64{}
		add := func(c string) {
			cost := 1 + math.Floor(math.Exp(r.Float64()*7))
			most[c] = max(most[c], cost)
			l.add(c, Normal, cost)
		}
		work := map[string]float64{} // since all of them wait
		base := func() { clear(work) }
		for range 400 {
			for _, c := range clients {
				f := l.lanes[Normal.lane()].flows[c]
				for f == nil || len(f.waiters) < 1+r.IntN(4) {
					add(c)
					f = l.lanes[Normal.lane()].flows[c]
				}
			}
			w := l.next(nil)
			l.serve(w)
			work[w.client] += w.cost
			for _, a := range clients {
				for _, b := range clients {
					if d := work[a] - work[b]; d > most[a]+most[b]+1e-6 {
						t.Fatalf("seed %d: %s got %v more than %s; want at most %v", seed, a, d, b, most[a]+most[b])
					}
				}
			}
			if r.IntN(50) == 0 {
				base() // the bound holds over every interval
			}
		}
	}
}

// What leaves without a place is not charged, from the newest on.
func TestLeaveGivesBack(t *testing.T) {
	var l line
	l.add("b", Normal, 1)
	a := []*waiter{l.add("a", Normal, 10), l.add("a", Normal, 10), l.add("a", Normal, 10)}
	for _, w := range slices.Backward(a) {
		l.leave(w)
	}
	l.add("a", Normal, 1)
	l.many("b", 2, 1)
	if got := l.served(4); got != "babb" {
		t.Errorf("served %q; want babb: a owes nothing", got)
	}
}

// What a request has cost beyond its estimate its client waits for later.
func TestCorrect(t *testing.T) {
	var l line
	w := l.add("a", Normal, 1)
	l.many("b", 6, 1)
	l.serve(w)
	w.flow.correct(3)
	l.add("a", Normal, 1)
	if got := l.served(7); got != "bbbbbab" {
		t.Errorf("served %q; want bbbbbab", got)
	}
	w.flow.correct(100) // the lane has been idle: nothing is left to charge
	l.many("b", 1, 1)
	l.many("a", 1, 1)
	if got := l.served(2); got != "ba" {
		t.Errorf("served %q; want ba", got)
	}
}

// Clients that owe nothing are forgotten, and of those that do only so many are
// remembered, or made-up names would pile up.
func TestForget(t *testing.T) {
	var l line
	flows := func() int { return len(l.lanes[Normal.lane()].flows) }
	l.many("a", 20, 1)
	l.many("b", 10, 1)
	l.served(25)
	if l.forget(); flows() != 1 {
		t.Errorf("%d clients are known, of which 1 waits and none owes", flows())
	}
	for i := range 3 * maxDebtors {
		l.add(fmt.Sprint(i), Normal, 100)
		l.served(1)
		if i%1000 == 0 {
			l.forget()
		}
	}
	if l.forget(); flows() > maxDebtors+l.n {
		t.Errorf("%d clients are known; want at most %d and those that wait", flows(), maxDebtors)
	}
}

func TestVictims(t *testing.T) {
	var l line
	l.many("a", 3, 10)
	l.many("b", 1, 25)
	l.add("z", Low, 1)
	for _, c := range []struct {
		client string
		class  Class
		cost   float64
		most   int
		want   string // victims in order, "-" is none
	}{
		{"c", Normal, 1, 6, ""},
		{"c", Normal, 1, 5, "z"},
		{"c", Normal, 1, 4, "za"},
		{"c", Normal, 1, 3, "zab"},
		{"a", Normal, 1, 4, "-"},
		{"a", High, 1, 1, "zabaa"},
		{"c", Low, 1, 5, "-"},
		{"c", Normal, 30, 4, "-"},
	} {
		w := &waiter{client: c.client, class: c.class, cost: c.cost}
		out, ok := l.victims(w, bounds{c.most, 1})
		got := ""
		for _, v := range out {
			got += v.client
		}
		if !ok {
			got = "-"
		}
		if got != c.want {
			t.Errorf("%s %s of %v at %d: %q; want %q", c.client, c.class, c.cost, c.most, got, c.want)
		}
	}
	if l.n != 5 {
		t.Errorf("looking for victims took some out: %d left", l.n)
	}
}

func TestDrain(t *testing.T) {
	var d drain
	now := time.Unix(1000, 0)
	d.resume(now)
	for range drainSure - 1 {
		now = now.Add(100 * time.Millisecond)
		d.took(50, now)
	}
	if r, ok := d.rate(now); ok {
		t.Errorf("%v of %d; want nothing sure", r, drainSure-1)
	}
	near := func(want float64) {
		t.Helper()
		if r, ok := d.rate(now); !ok || math.Abs(r-want) > want/10 {
			t.Errorf("rate %v %t; want %v", r, ok, want)
		}
	}
	for range 100 {
		now = now.Add(100 * time.Millisecond)
		d.took(50, now)
	}
	near(500)
	d.pause(now)
	now = now.Add(30 * time.Second)
	d.resume(now)
	near(500) // the pause does not count
	for range 1000 {
		now = now.Add(100 * time.Millisecond)
		d.took(10, now)
	}
	near(100)
	d.pause(now)
	now = now.Add(2 * drainForget)
	d.resume(now)
	if _, ok := d.rate(now); ok {
		t.Error("a pace of minutes ago is still believed")
	}
}

func TestClassNames(t *testing.T) {
	for _, c := range []Class{High, Normal, Low} {
		if got, err := ParseClass(c.String()); err != nil || got != c {
			t.Errorf("%s reads %s, %v", c, got, err)
		}
	}
	if c, err := ParseClass("urgent"); err == nil || c != Normal {
		t.Errorf("urgent is %s, %v", c, err)
	}
	if Class(0) != Normal {
		t.Error("a request without a class is not normal")
	}
}

func TestParseTimeout(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"600": 600 * time.Second, "600.0": 600 * time.Second, " 0.5 ": 500 * time.Millisecond, "500ms": 500 * time.Millisecond, "1m": time.Minute,
		"": 0, "0": 0, "-1": 0, "-1s": 0, "nan": 0, "inf": 0, "1e300": 0, "soon": 0, "1e-12": 0, "0s": 0,
	} {
		if got, ok := ParseTimeout(text); ok != (want > 0) || ok && got != want {
			t.Errorf("%q is %s, %t; want %s", text, got, ok, want)
		}
	}
}

func FuzzParseTimeout(f *testing.F) {
	for _, s := range []string{"600", "600.0", "500ms", "1e9", "9223372036", "-0", "0x1p3", "1_0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if d, ok := ParseTimeout(text); ok && d <= 0 {
			t.Fatalf("%q is %s", text, d)
		}
	})
}

func TestValidate(t *testing.T) {
	ok := DefaultConfig()
	if err := ok.Validate(); err != nil {
		t.Error(err)
	}
	for _, spoil := range []func(*Config){
		func(c *Config) { c.MaxWaiting = 0 }, func(c *Config) { c.MaxInFlight = -1 }, func(c *Config) { c.MaxLength = 0 },
		func(c *Config) { c.MaxBytes = 0 }, func(c *Config) { c.MaxWait = -1 }, func(c *Config) { c.Limits.TTFT = -1 },
		func(c *Config) { c.Limits.TTFTPerToken = -1 }, func(c *Config) { c.Limits.TPOT = -1 },
	} {
		c := DefaultConfig()
		if spoil(&c); c.Validate() == nil {
			t.Errorf("%+v is taken", c)
		}
	}
}

// What a client owes from before is not forgiven when a later request of its leaves.
func TestLeaveKeepsDebt(t *testing.T) {
	var l line
	w := l.add("a", Normal, 1)
	l.many("b", 4, 1)
	l.serve(w)
	late := l.add("a", Normal, 1)
	w.flow.correct(3)
	l.leave(late)
	l.add("a", Normal, 1)
	if got := l.served(5); got != "bbbba" {
		t.Errorf("served %q; want bbbba: a owes 3", got)
	}
}

// While bytes are short who holds most of them goes, not who has most work.
func TestVictimsOfBytes(t *testing.T) {
	var l line
	add := func(client string, cost float64, bytes int64) *waiter {
		w := &waiter{client: client, cost: cost, bytes: bytes}
		l.join(w)
		return w
	}
	add("honest", 1000, 10)
	add("hog", 1, 50)
	newest := add("hog", 1, 40)
	out, ok := l.victims(&waiter{client: "c", cost: 1, bytes: 30}, bounds{10, 100})
	if !ok || len(out) != 1 || out[0] != newest {
		t.Errorf("%v, %t; want the newest of the one with most bytes", out, ok)
	}
	if out, ok := l.victims(&waiter{client: "other hog", cost: 1, bytes: 95}, bounds{10, 100}); ok {
		t.Errorf("%d go for one with more bytes than any of them; want none", len(out))
	}
}
