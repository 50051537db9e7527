package daemon_test

import (
	"testing"

	"lbd/balancer"
)

// A replica dies behind a server of its own, which answers 502 to all that ran there. The
// first of them take it out of service; those that come after that have run as well, and
// so have those that come when it is back, however quickly.
func TestDiedBehindItsFront(t *testing.T) {
	for name, back := range map[string]bool{"out": false, "back": true} {
		t.Run(name, func(t *testing.T) {
			const first, later = 5, 5
			die := make(chan struct{})
			f := fakeReplica(t, func(c *fakeConn) {
				if c.body() == `{"ok":1}` {
					c.answer(200, "{}")
					return
				}
				<-die
				c.answer(502, "bad gateway")
			})
			g := fakeReplica(t, func(c *fakeConn) {
				c.body()
				c.answer(200, "{}")
			})
			settings := append(out, "health-interval", "1h")
			if back {
				settings = []string{"strategy", "cycle", "ejection-time", "10ms", "max-ejection-time", "10ms", "health-interval", "50ms"}
			}
			p := lbd(t, []string{f.url(), g.url()}, settings...)
			for range 4 {
				p.post("/v1/x", `{"ok":1}`)
			}
			begun, well := len(f.requests()), len(g.requests())
			answers := make(chan answer, 2*(first+later))
			for range 2 * (first + later) {
				go func() { answers <- p.post("/v1/x", `{}`) }()
			}
			for range first + later { // those of g
				<-answers
			}
			p.until("all under way", func() bool { return len(f.requests()) == begun+first+later })
			for range first {
				die <- struct{}{}
			}
			state := func() balancer.Health { return p.Snapshot().Replica(f.ln.Addr().String()).Health }
			p.until("ejected", func() bool { return state().Ejections == 1 })
			if back {
				p.until("back", func() bool { return state().State == balancer.Healthy })
			}
			close(die)
			for range first + later {
				if got := <-answers; got.status != 502 || got.body != "bad gateway" {
					t.Errorf("%d %s; want the 502 of a request that may have run", got.status, got.body)
				}
			}
			if n := len(g.requests()) - well; n != first+later {
				t.Errorf("%d requests at the other replica; want the %d that were its own", n, first+later)
			}
		})
	}
}
