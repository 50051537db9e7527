package upstream

import (
	"crypto/tls"
	"sync"
	"testing"
	"time"

	"lbd/access/certs/certstest"
	"lbd/proxy/internal/sock"
)

// A connection that was made by rules which are in force no more, that any certificate will do
// say, carries no further request.
func TestTLSOfEarlierRules(t *testing.T) {
	ca := certstest.New(t, "ca")
	paths := ca.Write(t, t.TempDir(), "replica")
	cert, err := tls.LoadX509KeyPair(paths.Cert, paths.Key)
	if err != nil {
		t.Fatal(err)
	}
	r := newReplica(t)
	var served sync.WaitGroup
	defer served.Wait()
	end := make(chan struct{})
	defer close(end)
	served.Go(func() {
		for {
			select {
			case c := <-r.conns:
				tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}}).Handshake() // who dials hears of it, if it fails
			case <-end:
				return
			}
		}
	})
	p := newPool(t, r.addr, Config{Watch: newWatch(t)})
	lax, strict := &tls.Config{InsecureSkipVerify: true}, &tls.Config{RootCAs: ca.Pool(), ServerName: "replica"}
	rules := lax
	p.tls = func() *tls.Config { return rules }

	kept, busy := get(t, p), get(t, p)
	p.Put(kept, time.Now())
	if c := p.Reuse(time.Now(), sock.AnyLoop); c != kept {
		t.Fatal("a connection is not used again while nothing changes")
	}
	p.Put(kept, time.Now())
	rules = strict
	if c := p.Reuse(time.Now(), sock.AnyLoop); c != nil {
		t.Error("a connection of earlier rules is used again")
	}
	if p.Put(busy, time.Now()); p.Idle() != 0 {
		t.Error("a connection of earlier rules is kept")
	}
	c := get(t, p)
	p.Put(c, time.Now())
	rules = lax
	if p.Expire(time.Now()); p.Idle() != 0 {
		t.Error("a connection of earlier rules waits on")
	}
}
