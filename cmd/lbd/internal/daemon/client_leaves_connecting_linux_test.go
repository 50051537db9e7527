package daemon_test

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
)

// A client that leaves while lbd connects to a replica that is out of reach ends the
// attempt, however the replica is called, and the replica is not blamed for it.
func TestClientLeavesWhileConnecting(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "localhost"} {
		for _, l := range leavings {
			t.Run(host+"/"+l.name, func(t *testing.T) {
				f := fakeReplica(t, echo)
				f.pollsApart()
				p := lbd(t, []string{strings.Replace(f.url(), "127.0.0.1", host, 1)},
					append([]string{"connect-timeout", "1h", "upstream-idle-timeout", "1ms", "metrics-poll-timeout", "1m"}, quiet...)...)
				r := p.Snapshot().Replicas[0]
				p.until("the first poll", func() bool { return r.Polled() != nil }) // and the last one
				f.deafen()
				w := p.dial()
				w.sendPost("/v1/chat/completions", chat(llama, true, 1))
				p.until("the attempt", func() bool { return f.connecting() == 1 })
				if n := r.InFlight(); n != 1 {
					t.Errorf("own load is %d while lbd connects; want 1", n)
				}
				l.leave(w)
				p.until("own load 0", func() bool { return r.InFlight() == 0 })
				p.until("the end of the attempt", func() bool { return f.connecting() == 0 })
				p.until("the disconnect counted", func() bool {
					return p.metric(`lbd_client_disconnects_total{model="`+llama+`"}`) == "1" &&
						p.metric(`lbd_requests_total{code="499",model="`+llama+`"}`) == "1"
				})
				for _, reason := range []string{"connect_refused", "connect_timeout"} {
					if got := p.metric(`lbd_upstream_errors_total{reason="` + reason + `",replica="` + r.ID + `"}`); got != "" && got != "0" {
						t.Errorf("the replica is blamed for %s: %s", reason, got)
					}
				}
				if n := len(f.requests()); n != 0 {
					t.Errorf("the replica got %d requests; want none", n)
				}
			})
		}
	}
}

// pollsApart has the first reading of models and the first poll, which begin at once, meet
// at the replica: then both have connected. Else one could end before the other has its
// connection, which takes over the first one's, and net/http goes on connecting for nobody
// at a time when connections are counted.
func (f *fake) pollsApart() {
	var models, metrics sync.Once
	met := make(chan struct{}, 2)
	both := make(chan struct{})
	f.wg.Go(func() {
		defer close(both)
		for range 2 {
			select {
			case <-met:
			case <-f.deaf:
				return
			}
		}
	})
	f.before = func(path string) {
		switch {
		case path == "/v1/models":
			models.Do(func() { met <- struct{}{} })
		case strings.HasPrefix(path, "/metrics"):
			metrics.Do(func() { met <- struct{}{} })
		default:
			return
		}
		<-both
	}
}

// connecting counts the sockets whose SYN to the replica nobody has answered (state 2 of
// Linux, SYN_SENT).
func (f *fake) connecting() (n int) {
	f.t.Helper()
	file, err := os.Open("/proc/net/tcp")
	if err != nil {
		f.t.Fatal(err)
	}
	defer file.Close()
	port := fmt.Sprintf(":%04X", f.ln.Addr().(*net.TCPAddr).Port)
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) > 3 && strings.HasSuffix(fields[2], port) && fields[3] == "02" {
			n++
		}
	}
	return n
}
