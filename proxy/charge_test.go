package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"lbd/access/keys"
	"lbd/balancer"
	"lbd/internal/loopback"
)

// Who leaves before the first byte of the answer has had a prompt worked at, and pays for it:
// or whoever leaves in time could have any number of prompts worked at.
func TestWhoLeavesBeforeTheAnswerIsCharged(t *testing.T) {
	for _, size := range []int{400, 2 * smallBody} { // sent in a turn, and by a goroutine beside reading
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			came, key := make(chan struct{}), keys.Generate()
			addr := asked(t, came)
			ks := keysOf(t, "alice "+key+" tokens_per_minute=1000000")
			l := withAccessLog(t, Config{}, func(o *Options) {
				o.Keys = ks
				o.Fleet.(*one).replica = balancer.NewReplica(balancer.Endpoint{Addr: addr, Host: addr}, "", 1)
			})
			c := l.dial()
			body := `{"prompt":"` + strings.Repeat("x", size) + `"}`
			fmt.Fprintf(c, "POST /v1/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s", key, len(body), body)
			<-came
			c.Close()
			for ks.Usage()[0].InFlight != 0 {
				time.Sleep(time.Millisecond)
			}
			if got, least := ks.Usage()[0].Tokens, uint64(keys.Estimate(size)); got < least {
				t.Errorf("%d tokens are charged; want the prompt's %d at least", got, least)
			}
		})
	}
}

// Who leaves while its request waits for a replica has had nothing.
func TestWhoLeavesUnservedIsNotCharged(t *testing.T) {
	key := keys.Generate()
	ks := keysOf(t, "alice "+key+" tokens_per_minute=1000000")
	l := withAccessLog(t, Config{}, func(o *Options) { o.Keys = ks })
	x, client, _ := between(t)
	x.want.model = l.one.Snapshot().Model([]byte("m"))
	x.s, x.cfg, x.model = l.Server, l.cfg.Load(), l.opt.Metrics.Model("m")
	x.owner = &owner{key: l.keyOf(t, key)}
	x.req.Prompt = make([]byte, 400)
	if err := x.let(nil); err != nil {
		t.Fatal(err)
	}
	client.Close()
	for !x.client.Gone() {
		time.Sleep(time.Millisecond)
	}
	x.conclude(verdict{retry: balancer.ConnectTimeout.String(), err: replicaError("cannot connect")})
	x.end()
	if u := ks.Usage()[0]; u.Tokens != 0 || u.InFlight != 0 {
		t.Errorf("%d tokens are charged, %d in flight; want none", u.Tokens, u.InFlight)
	}
}

// asked is a replica that reads a request, tells of it and answers nothing.
func asked(t *testing.T, came chan<- struct{}) (addr string) {
	t.Helper()
	ln := loopback.Listen(t)
	ended := make(chan struct{})
	t.Cleanup(func() { ln.Close(); <-ended })
	go func() {
		defer close(ended)
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		br := bufio.NewReader(c)
		if req, err := http.ReadRequest(br); err == nil {
			io.Copy(io.Discard, req.Body)
		}
		came <- struct{}{}
		br.ReadByte() // until lbd ends the connection
	}()
	return ln.Addr().String()
}

func keysOf(t *testing.T, line string) *keys.Keys {
	t.Helper()
	entries, err := keys.ParseValue(line, true)
	if err != nil {
		t.Fatal(err)
	}
	ks := keys.New()
	if err := ks.Set(entries); err != nil {
		t.Fatal(err)
	}
	return ks
}

// keyOf is the key in force that a client presents.
func (l *logging) keyOf(t *testing.T, text string) *keys.Key {
	t.Helper()
	var p keys.Presented
	p.Field([]byte("Authorization"), []byte("Bearer "+text))
	k, refused := l.opt.Keys.Identify(&p)
	if !refused.OK() {
		t.Fatal(refused)
	}
	return k
}
