package proxy

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"lbd/access/cors"
	"lbd/access/keys"
	"lbd/affinity"
	"lbd/balancer"
	"lbd/internal/loopback"
	"lbd/metrics"
)

// rooms is a place for lines that has room or not, and says who had to do with it.
type rooms struct {
	full atomic.Bool
	held sync.Mutex // by who lets nobody in who waits

	mu      sync.Mutex
	taken   int // lines for which there is room and that have not come
	waited  int
	inTurns int // lines that a turn put
	lines   []string
}

func (r *rooms) Try() bool {
	if r.full.Load() {
		return false
	}
	r.count(1)
	return true
}

func (r *rooms) Wait() {
	r.held.Lock()
	defer r.held.Unlock()
	r.count(1)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.waited++; inTurn() {
		panic("BUG: a turn waits")
	}
}

func (r *rooms) Give() { r.count(-1) }

func (r *rooms) Put(p []byte) {
	r.count(-1)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, string(p))
	if inTurn() {
		r.inTurns++
	}
}

// inTurn says that it is called by a turn, and not only by a goroutine that a turn began.
func inTurn() bool {
	stack, _, _ := bytes.Cut(debug.Stack(), []byte("created by "))
	return bytes.Contains(stack, []byte("sock.(*Turn)"))
}

func (r *rooms) count(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.taken += n; r.taken < 0 {
		panic("BUG: a line without room")
	}
}

func (r *rooms) hasSeenATurn() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.inTurns > 0
}

func (r *rooms) get() (lines []string, inTurns, waited, taken int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lines, r.inTurns, r.waited, r.taken
}

// logging is a server with an access log in front of one replica.
type logging struct {
	*Server
	t     *testing.T
	one   *one
	asked atomic.Int64 // requests of the replica
	rooms *rooms
	log   told // everything but requests
}

type told struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *told) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *told) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func withAccessLog(t *testing.T, c Config, more ...func(*Options)) *logging {
	t.Helper()
	l := &logging{t: t, rooms: &rooms{}}
	addr := yes(t, &l.asked)
	l.one = &one{replica: balancer.NewReplica(balancer.Endpoint{Addr: addr, Host: addr}, "", 1)}
	c.MaxHeader, c.MaxBody, c.UpstreamIdle = 4096, 1<<20, time.Minute
	o := Options{
		Config: c, Fleet: l.one, Health: l.one, Metrics: metrics.New(prometheus.NewRegistry(), "test"),
		Log: zerolog.New(&l.log).Level(zerolog.InfoLevel).Hook(l), Lines: l.rooms,
	}
	for _, with := range more {
		with(&o)
	}
	var err error
	if l.Server, err = New(o); err != nil {
		t.Fatal(err)
	}
	if err := l.Start(loopback.Address()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Stop(context.Background()) })
	return l
}

// Run implements zerolog.Hook.
func (l *logging) Run(_ *zerolog.Event, _ zerolog.Level, message string) {
	if message == "request" {
		l.one.fails(inLine)
	}
}

// client is a connection to a server under test.
type client struct {
	net.Conn
	t  *testing.T
	br *bufio.Reader
}

func (l *logging) dial() *client {
	l.t.Helper()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { c.Close() })
	return &client{c, l.t, bufio.NewReader(c)}
}

func (c *client) ask(target string) {
	io.WriteString(c, "POST "+target+" HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}")
}

func (c *client) answer(want int) {
	c.t.Helper()
	resp, err := http.ReadResponse(c.br, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != want {
		c.t.Fatalf("%s, %v; want %d", resp.Status, err, want)
	}
}

// asks sends n requests one after the other.
func (c *client) asks(n int, target string, want int) {
	c.t.Helper()
	for range n {
		c.ask(target)
		c.answer(want)
	}
}

// A request with a line is relayed in turns: the line is put there, before the answer is
// sent. What a client may add to the path does not change that.
func TestLinesInTurns(t *testing.T) {
	for _, target := range []string{"/v1/completions", "/v1/messages?beta=true", "/tokenize"} {
		l := withAccessLog(t, Config{AccessLog: true})
		c := l.dial()
		for n := 1; ; n++ {
			pause(n / 10)
			c.asks(1, target, 200)
			lines, inTurns, waited, taken := l.rooms.get()
			if len(lines) != n || taken != 0 {
				t.Fatalf("%s: %d lines, room for %d more taken; want %d and 0\n%s", target, len(lines), taken, n, l.log.String())
			}
			if inTurns > 0 && waited <= n-inTurns {
				break
			}
			if n == 1000 {
				t.Fatalf("%s: %d of 1000 lines in turns", target, inTurns)
			}
		}
		lines, _, _, _ := l.rooms.get()
		for _, line := range lines {
			var f map[string]any
			path, _, _ := strings.Cut(target, "?")
			if err := json.Unmarshal([]byte(line), &f); err != nil || f["path"] != path || f["status"] != 200.0 || f["client"] != c.LocalAddr().String() || f["level"] != "info" {
				t.Errorf("%s: %q, %v", target, line, err)
			}
		}
	}
}

// What is in common use does not take a request out of its turns.
func TestFeaturesInTurns(t *testing.T) {
	key := keys.Generate()
	entries, err := keys.ParseValue("alice "+key+" requests_per_minute=1000000 models=m", true)
	if err != nil {
		t.Fatal(err)
	}
	policy, err := cors.New([]string{"https://chat.example.org"})
	if err != nil {
		t.Fatal(err)
	}
	withKeys := func(o *Options) {
		o.Keys = keys.New()
		if err := o.Keys.Set(entries); err != nil {
			t.Fatal(err)
		}
	}
	withSessions := func(o *Options) {
		o.Affinity = affinity.New(affinity.Options{Config: affinity.Config{Headers: []string{"x-session-id"}, Fields: []string{"user"}}, Snapshot: o.Fleet.Snapshot})
	}
	for _, c := range []struct {
		name   string
		config Config
		with   func(*Options)
		target string
		fields string // of the head
		body   string
	}{
		{"API key", Config{}, withKeys, "/v1/chat/completions", "Authorization: Bearer " + key + "\r\n", `{"model":"m"}`},
		{"CORS", Config{CORS: policy}, nil, "/v1/chat/completions", "Origin: https://chat.example.org\r\n", `{"model":"m"}`},
		{"session by header", Config{}, withSessions, "/v1/chat/completions", "X-Session-ID: 1\r\n", `{"model":"m"}`},
		{"session by field", Config{}, withSessions, "/v1/chat/completions", "", `{"model":"m","user":"1"}`},
		{"stored response", Config{}, withSessions, "/v1/responses", "", `{"model":"m"}`},
		{"alias", Config{}, nil, "/v1/chat/completions", "", `{"model":"short"}`},
		{"prefixes", Config{AccessLogPrefixes: true}, nil, "/v1/completions", "", `{"model":"m","prompt":"` + strings.Repeat("once ", 1000) + `"}`},
		{"response headers", Config{ResponseHeaders: true, NoTokenMetrics: true}, nil, "/v1/completions", "", `{"model":"m"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.config.AccessLog = true
			more := []func(*Options){}
			if c.with != nil {
				more = append(more, c.with)
			}
			l := withAccessLog(t, c.config, more...)
			client := l.dial()
			for n := 0; !l.rooms.hasSeenATurn(); n++ {
				if n == 1000 {
					t.Fatal("never in a turn")
				}
				pause(n / 10)
				fmt.Fprintf(client, "POST %s HTTP/1.1\r\nHost: a\r\n%sContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", c.target, c.fields, len(c.body), c.body)
				client.answer(200)
			}
		})
	}
}

// Where there is no room the request waits in a goroutine. Nobody else does, and each has
// its line.
func TestNoRoomForALine(t *testing.T) {
	l := withAccessLog(t, Config{AccessLog: true})
	const many = 50
	var held []*client
	for range many {
		c := l.dial()
		c.asks(2, "/v1/completions", 200)
		held = append(held, c)
	}
	l.rooms.full.Store(true)
	l.rooms.held.Lock()
	for _, c := range held {
		c.ask("/v1/completions")
	}
	for l.asked.Load() < 3*many || l.one.replica.InFlight() > 0 { // their answers have come
		time.Sleep(time.Millisecond)
	}
	other := l.dial()
	for range 3 {
		io.WriteString(other, "GET /version HTTP/1.1\r\nHost: a\r\n\r\n")
		other.answer(200)
	}
	if lines, _, _, _ := l.rooms.get(); len(lines) != 2*many {
		t.Errorf("%d lines; want %d", len(lines), 2*many)
	}
	l.rooms.held.Unlock()
	for _, c := range held {
		c.answer(200)
	}
	l.rooms.full.Store(false)
	held[0].asks(1, "/v1/completions", 200)
	if lines, _, _, taken := l.rooms.get(); len(lines) != 3*many+1 || taken != 0 {
		t.Errorf("%d lines, room for %d more; want %d and 0", len(lines), taken, 3*many+1)
	}
}

// One line in so many requests, and no room kept for the others.
func TestSampledLines(t *testing.T) {
	l := withAccessLog(t, Config{AccessLog: true, AccessLogSample: 4})
	c := l.dial()
	c.asks(30, "/v1/completions", 200)
	c.asks(10, "/v1/nothing/such", 200)
	io.WriteString(c, "POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
	c.answer(404)
	c.asks(3, "/v1/completions", 200)
	if lines, _, _, taken := l.rooms.get(); len(lines) != 11 || taken != 0 {
		t.Errorf("%d lines of 44 requests, room for %d more; want 11 and 0", len(lines), taken)
	}
}

// Room that a request has taken is used or given back, also where it panics.
func TestRoomOfPanics(t *testing.T) {
	for name, where := range map[string]int64{"snapshot": inSnapshot, "pick": inPick, "report": inReport, "finished": inFinished, "line": inLine} {
		t.Run(name, func(t *testing.T) {
			l := withAccessLog(t, Config{AccessLog: true})
			for n := 0; n < 20 || n < 1000 && !l.rooms.hasSeenATurn(); n++ {
				c := l.dial()
				c.asks(2, "/v1/completions", 200)
				pause(n / 10)
				l.one.mistakes.Store(where)
				c.ask("/v1/completions")
				if _, err := io.Copy(io.Discard, c.br); err != nil { // up to the end: no other request is answered
					t.Fatal(err)
				}
				l.one.mistakes.Store(0)
			}
			l.Stop(context.Background())
			lines, inTurns, _, taken := l.rooms.get()
			if taken != 0 {
				t.Errorf("room for %d lines is kept", taken)
			}
			if n := len(lines); n < 40 || inTurns == 0 {
				t.Errorf("%d lines, %d in turns; want 40 and more", n, inTurns)
			}
			if !strings.Contains(l.log.String(), "BUG: mistake") {
				t.Errorf("no panic in the log: %s", l.log.String())
			}
		})
	}
}

// A log that is only written to makes requests wait, so they have goroutines.
func TestLinesWithoutAQueue(t *testing.T) {
	s := &Server{opt: Options{Log: zerolog.New(io.Discard).Level(zerolog.InfoLevel)}}
	for _, c := range []struct {
		access, queue, debug, want bool
	}{
		{false, false, false, true}, {true, false, false, false}, {true, true, false, true}, {true, true, true, false}, {false, true, true, false},
	} {
		s.opt.Lines = nil
		if c.queue {
			s.opt.Lines = &rooms{}
		}
		s.opt.Log = s.opt.Log.Level(map[bool]zerolog.Level{true: zerolog.DebugLevel, false: zerolog.InfoLevel}[c.debug])
		s.cfg.Store(&Config{AccessLog: c.access})
		if got := s.Turns(); got != c.want {
			t.Errorf("%+v: %t", c, got)
		}
	}
}

// A straight target is one that route relays.
func FuzzStraight(f *testing.F) {
	for _, s := range []string{"/v1/completions", "/v1/messages?beta=true", "/score?#", "/v1/completions#", "/tokenize?a?b", "/v1/%63ompletions", "?", ""} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, target []byte) {
		if !straight(target) {
			return
		}
		path, err := cleanPath(target)
		if err == nil {
			err = permitted("POST", path)
		}
		if err != nil || ownPage(path) != nil {
			t.Errorf("%q is straight: %v", target, err)
		}
	})
}

// loading is a fleet of two replicas, of which the first one loads or not.
type loading struct {
	*one
	second *balancer.Replica
	loads  atomic.Bool
	since  atomic.Int64 // Unix ns of the re-admission behind which it has not served anything
}

func (f *loading) Snapshot() *balancer.Snapshot {
	h := balancer.Health{State: balancer.Healthy, Since: time.Unix(0, f.since.Load())}
	both := []*balancer.Replica{f.replica, f.second}
	m := &balancer.Model{Name: "m", Picker: f, Replicas: both, Available: both}
	return balancer.NewSnapshot(1, []balancer.ReplicaState{{Replica: f.replica, Health: h}, {Replica: f.second, Health: h}}, []*balancer.Model{m})
}

// tries counts who takes room without waiting, which only turns do.
type tries struct {
	*rooms
	n atomic.Int64
}

func (r *tries) Try() bool {
	r.n.Add(1)
	return r.rooms.Try()
}

// A request that a replica refuses because it loads goes on elsewhere, perhaps for
// minutes. It keeps no room for its line meanwhile: a few hundred of them would make all
// other requests wait.
func TestNoRoomHeldByARetry(t *testing.T) {
	asked, answer := make(chan struct{}), make(chan struct{})
	f, lines := &loading{}, &tries{}
	first := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		if f.loads.Load() {
			w.WriteHeader(503)
		}
		io.WriteString(w, "loading or not")
	}))
	defer first.Close()
	second := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		asked <- struct{}{}
		<-answer
	}))
	defer second.Close()
	at := func(s *httptest.Server) *balancer.Replica {
		addr := s.Listener.Addr().String()
		return balancer.NewReplica(balancer.Endpoint{Addr: addr, Host: addr}, "", 1)
	}
	l := withAccessLog(t, Config{AccessLog: true, MaxAttempts: 2}, func(o *Options) {
		f.one, f.second, lines.rooms = o.Fleet.(*one), at(second), o.Lines.(*rooms)
		f.replica = at(first)
		o.Fleet, o.Lines = f, lines
	})
	for n := 1; ; n++ {
		c := l.dial()
		c.asks(2, "/v1/completions", 200)
		pause(n / 10)
		f.since.Store(time.Now().UnixNano())
		f.loads.Store(true)
		before := lines.n.Load()
		c.ask("/v1/completions")
		select {
		case <-asked:
		case <-time.After(time.Minute):
			t.Fatal("the second replica is not asked")
		}
		inTurn := lines.n.Load() > before
		if _, _, _, taken := l.rooms.get(); taken != 0 {
			t.Errorf("room for %d lines is taken while the second replica is asked; want none", taken)
		}
		f.loads.Store(false)
		answer <- struct{}{}
		c.answer(200)
		c.Close()
		if inTurn {
			break
		}
		if n == 200 {
			t.Fatal("never in a turn")
		}
	}
	if _, _, _, taken := l.rooms.get(); taken != 0 {
		t.Errorf("room for %d lines is kept", taken)
	}
}

// README tells of every field of a line.
func TestReadmeListsEveryField(t *testing.T) {
	source, err := os.ReadFile("accesslog.go")
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := bytes.Cut(readme, []byte("\n## Access log\n"))
	section, _, _ = bytes.Cut(section, []byte("\n## "))
	fields := regexp.MustCompile(`\.(?:Bytes|Str|Int|Dur|Array)\("([a-z_]+)"`).FindAllSubmatch(source, -1)
	if len(fields) < 15 {
		t.Fatalf("%d fields found; has the way they are written changed?", len(fields))
	}
	for _, f := range fields {
		if !bytes.Contains(section, fmt.Appendf(nil, "`%s`", f[1])) {
			t.Errorf("field %q is not listed", f[1])
		}
	}
}
