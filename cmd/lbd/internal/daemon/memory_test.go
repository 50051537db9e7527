package daemon_test

import (
	"runtime/debug"
	"testing"
)

// Large bodies share the memory there is: who comes when it is used up may come again.
func TestBodiesShareTheMemory(t *testing.T) {
	release, holds := make(chan struct{}), make(chan struct{})
	f := fakeReplica(t, func(c *fakeConn) {
		if c.field("x-hold") != "" {
			close(holds)
			<-release
		}
		c.body()
		c.answer(200, `"fine"`)
	})
	usual := debug.SetMemoryLimit(8 << 20) // of which bodies have half
	p := lbd(t, []string{f.url()}, quiet...)
	debug.SetMemoryLimit(usual)
	first, second := p.dial(), p.dial()
	first.sendPost("/v1/x", padded(3<<20), "X-Hold: 1")
	<-holds
	second.send(postText("/v1/x", padded(3<<20))[:3<<19]) // lbd needs no more to say no
	a := second.answer("POST")
	if _, code, _ := openAIError(t, a); a.StatusCode != 503 || code != "overloaded" || a.Header.Get("Retry-After") == "" || !a.Close {
		t.Errorf("%s %q %v", a.Status, a.body, a.Header)
	}
	third := p.dial()
	third.sendPost("/v1/x", `{}`)
	if a := third.answer("POST"); a.StatusCode != 200 {
		t.Errorf("a small one: %s", a.Status)
	}
	close(release)
	if a := first.answer("POST"); a.StatusCode != 200 {
		t.Errorf("the first one: %s", a.Status)
	}
	third.sendPost("/v1/x", padded(3<<20))
	if a := third.answer("POST"); a.StatusCode != 200 {
		t.Errorf("one behind it: %s", a.Status)
	}
}
