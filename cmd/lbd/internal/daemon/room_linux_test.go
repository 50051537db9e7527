package daemon_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lbd/bench/sim"
	"lbd/cmd/lbd/internal/config"
	"lbd/cmd/lbd/internal/daemon"
)

// from connects to the lbd from an address of its own.
func (p *proxied) from(ip string) net.Conn {
	p.t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
	c, err := d.Dial("tcp", p.Addr().String())
	if err != nil {
		p.t.Skipf("cannot connect from %s: %v", ip, err)
	}
	p.t.Cleanup(func() { c.Close() })
	return c
}

// held opens a stream from that address and returns after its first bytes.
func (p *proxied) held(ip string) net.Conn {
	p.t.Helper()
	c := p.from(ip)
	body := chat(llama, true, 100000)
	fmt.Fprintf(c, "POST /v1/chat/completions HTTP/1.1\r\nHost: lbd\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	c.SetReadDeadline(time.Now().Add(patience))
	b := make([]byte, 15)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "HTTP/1.1 200 OK" {
		p.t.Fatalf("%q, %v", b, err)
	}
	return c
}

// refused sends a request and holds the answer of an lbd without room.
func (p *proxied) refused(ip, want string) {
	p.t.Helper()
	c := p.from(ip)
	resp, err := (&http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return c, nil },
	}}).Post(p.url+"/v1/chat/completions", "application/json", strings.NewReader(chat(llama, true, 10)))
	if err != nil {
		p.t.Errorf("no answer: %v", err)
		return
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Error(err)
	}
	kind, code, message := errorOf(p.t, resp.Header.Get("Content-Type"), string(b))
	if resp.StatusCode != 503 || kind != "overloaded" || code != "too_many_connections" || !strings.Contains(message, want) ||
		resp.Header.Get("Retry-After") == "" || !resp.Close {
		p.t.Errorf("%s %v close %t: %s; want %q", resp.Status, resp.Header, resp.Close, b, want)
	}
}

// refusedMessages is refused on the Messages API.
func (p *proxied) refusedMessages(ip string) {
	p.t.Helper()
	c := p.from(ip)
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	fmt.Fprint(c, messagesPost(llama))
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		p.t.Errorf("no answer: %v", err)
		return
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Error(err)
	}
	if kind, code, _ := messagesError(p.t, resp.StatusCode, resp.Header, string(b)); resp.StatusCode != 503 || kind != "overloaded_error" || code != "too_many_connections" {
		p.t.Errorf("%s: %s", resp.Status, b)
	}
}

// Limits of connections hold, are reloaded, told and counted; trusted proxies bring
// as many as they like.
func TestConnectionLimits(t *testing.T) {
	r := replica(t, sim.Config{Speed: 1})
	conf := &settings{t: t}
	conf.set(r, "max-connections", "4", "max-connections-per-client", "2", "trusted-proxies", "127.0.0.9")
	p := lbdFrom(t, conf.load)
	p.until("the replica in service", func() bool { return p.state(r).Available() })
	for range 2 {
		p.held("127.0.0.2")
	}
	p.refused("127.0.0.2", "your address")
	for range 2 {
		p.held("127.0.0.9")
	}
	p.refused("127.0.0.9", "the load balancer")
	p.refused("127.0.0.3", "the load balancer")
	p.refusedMessages("127.0.0.3")
	conf.set(r, "max-connections", "6", "max-connections-per-client", "0")
	if err := p.Reload(); err != nil {
		t.Fatal(err)
	}
	p.held("127.0.0.2")
	for series, want := range map[string]string{
		`lbd_connections_refused_total{reason="max_connections"}`: "3", `lbd_connections_refused_total{reason="max_connections_per_client"}`: "1",
		"lbd_connections_limit": "6", "lbd_connections": "6", `lbd_accept_errors_total{reason="descriptors"}`: "0",
	} {
		p.counted(series, want)
	}
	if n := len(p.log.logged("connections refused")); n != 2 {
		t.Errorf("%d lines about refused connections; want one of each reason", n)
	}
}

// settings are a configuration that a reload finds changed.
type settings struct {
	t    *testing.T
	mu   sync.Mutex
	from func() (*config.Config, error)
}

func (s *settings) set(r *sim.Server, all ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.from = func() (*config.Config, error) { return tryLoad([]string{r.URL()}, all...) }
}

func (s *settings) load() (*config.Config, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.from()
}

// While a flood from many addresses is turned away, streams go on, and afterwards
// nothing of it is left: own load, connections, and, as TestMain holds, goroutines.
func TestConnectionFlood(t *testing.T) {
	const attackers, each = 12, 40
	r := replica(t, sim.Config{})
	p := lbd(t, urls(r), "max-connections", "8")
	var streams []*running
	for range 4 {
		streams = append(streams, p.stream(llama, longStream))
	}
	for n := range 4 {
		p.held(fmt.Sprintf("127.0.0.%d", n+2))
	}
	var answered, cut atomic.Int64
	var g sync.WaitGroup
	for n := range attackers {
		g.Go(func() {
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(n+1))}}
			for range each {
				c, err := d.Dial("tcp", p.Addr().String())
				if err != nil {
					t.Errorf("refused by the system: %v", err)
					return
				}
				io.WriteString(c, "GET /v1/models HTTP/1.1\r\nHost: lbd\r\nConnection: close\r\n\r\n")
				c.SetReadDeadline(time.Now().Add(patience))
				b, err := io.ReadAll(c)
				switch {
				case strings.HasPrefix(string(b), "HTTP/1.1 503 "), strings.HasPrefix(string(b), "HTTP/1.1 200 "): // a stream has ended
					answered.Add(1)
				case err == nil && len(b) > 0:
					t.Errorf("%q, %v", b, err)
				default:
					cut.Add(1)
				}
				c.Close()
			}
		})
	}
	for _, s := range streams {
		if n := s.finish(); n != longStream {
			t.Errorf("a stream ended after %d tokens in the flood", n)
		}
	}
	g.Wait()
	if answered.Load() < attackers*each/2 {
		t.Errorf("%d told, %d cut", answered.Load(), cut.Load())
	}
}

// A limit beyond the descriptors is not promised.
func TestConnectionLimitOfDescriptors(t *testing.T) {
	r := replica(t, sim.Config{})
	p := lbd(t, urls(r))
	limit := p.metric("lbd_connections_limit")
	if limit == "0" || limit == "" {
		t.Fatalf("lbd_connections_limit is %q; want what descriptors allow", limit)
	}
	q := lbd(t, urls(r), "max-connections", "1000000000")
	if got := q.metric("lbd_connections_limit"); got != limit {
		t.Errorf("lbd_connections_limit is %s; want %s", got, limit)
	}
	if n := len(q.log.logged("max_connections is more than descriptors allow; want a larger RLIMIT_NOFILE (LimitNOFILE=, ulimit -n)")); n != 1 {
		t.Errorf("%d warnings", n)
	}
}

// Whoever has few descriptors is told how few clients that means, at the start and when the
// first one is turned away: the limit was never configured.
func TestFewDescriptorsAreTold(t *testing.T) {
	r := replica(t, sim.Config{Speed: 1})
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Setrlimit(unix.RLIMIT_NOFILE, &old) })
	limitDescriptors(t, 190) // of which none are left for clients: one may come all the same
	p := lbd(t, urls(r))
	told := p.log.logged("descriptors allow few connections of clients; want a larger RLIMIT_NOFILE (LimitNOFILE=, ulimit -n)")
	if len(told) != 1 || told[0]["in_force"] != 1.0 || told[0]["descriptors"] != 190.0 {
		t.Errorf("%v; want one line with 190 descriptors and a limit of 1", told)
	}
	p.held("127.0.0.2")
	p.refused("127.0.0.3", "the load balancer")
	refused := p.log.logged("connections refused")
	if len(refused) != 1 || refused[0]["limit"] != 1.0 {
		t.Errorf("%v; want one line with a limit of 1", refused)
	}
}

// Without descriptors an idle client gives up its own, and the one that waits comes in,
// with that descriptor and no other. The newcomer has its socket before, which a
// net.Conn would not.
func TestIdleClientsGiveUpDescriptors(t *testing.T) {
	r := replica(t, sim.Config{})
	p := lbd(t, []string{r.URL()}, quiet...)
	// A poll that is still under way would take what is given up.
	p.until("the poll", func() bool { return p.state(r).Polled() != nil })
	idle := p.dial()
	idle.send("GET /version HTTP/1.1\r\nHost: lbd\r\n\r\n")
	idle.answer("GET")
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	addr := p.Addr().(*net.TCPAddr)
	restore := noDescriptors(t)
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: addr.Port, Addr: [4]byte(addr.IP.To4())}); err != nil {
		t.Fatal(err)
	}
	unix.Write(fd, []byte("GET /version HTTP/1.1\r\nHost: lbd\r\n\r\n"))
	if rest := idle.closed(); rest != "" {
		t.Errorf("the idle one got %q", rest)
	}
	oneDescriptor(t)
	got, err := firstBytes(fd, 12)
	restore()
	if err != nil || got != "HTTP/1.1 200" {
		t.Errorf("the newcomer got %q, %v", got, err)
	}
	if got := p.metric(`lbd_accept_errors_total{reason="descriptors"}`); got == "0" {
		t.Error("no lack of descriptors is counted")
	}
	if got := p.metric("lbd_connections_reclaimed_total"); got == "0" {
		t.Error("nobody is counted that gave up a connection")
	}
}

// firstBytes reads up to n bytes from a blocking socket. With a time limit the kernel
// does not restart a read that a signal interrupts, and the runtime preempts by signals
// (signal(7), "Interruption of system calls").
func firstBytes(fd, n int) (string, error) {
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: int64(patience / time.Second)})
	b := make([]byte, n)
	for {
		switch n, err := unix.Read(fd, b); err {
		case nil:
			return string(b[:n]), nil
		case unix.EINTR:
		default:
			return "", err
		}
	}
}

// Where there are many processors there are many event loops, and no client is let in for
// whom their descriptors leave no room.
func TestOwnDescriptors(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(100))
	open := func() int {
		all, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	before := open()
	p := lbdLater(t, []string{"http://127.0.0.1:1"})
	if n, kept := open()-before, daemon.OwnFDs(); n > kept {
		t.Errorf("lbd has %d descriptors open; %d are kept for it", n, kept)
	}
	p.end()
}
