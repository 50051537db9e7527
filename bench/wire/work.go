//go:build linux

package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// kind is what a cell does and so what is measured in it.
type kind string

const (
	posts   kind = "posts"   // requests in a closed loop
	streams kind = "streams" // streams of events
	bulks   kind = "bulks"   // large bodies, one after the other
	idles   kind = "idles"   // connections that have carried one request
	leaves  kind = "leaves"  // clients that go away
)

// cell is one row of the description of the work. Everything is started from
// it: replica, client and the configuration of each proxy.
type cell struct {
	Name string
	What string // for people
	Kind kind

	Conns    int           // connections, each with one request or stream at a time
	Ask      int           // bytes of a request's body
	Reply    int64         // bytes of an answer's body
	Interval time.Duration // between the events of a stream
	Grid     time.Duration // events fall on multiples of it; 0: each alone
	Events   int           // of one stream before the next begins; 0 = without end
	Cores    int           // of the proxy
	Seconds  float64       // measured; 0 = as the flag says
	Probes   bool          // while all streams run, open further ones for their first byte
	Sleeps   bool          // the load sleeps when it has nothing to do, as it does beside a proxy on its core
	Extra    bool          // measured only when it is named
}

// awake is how long the load looks for small requests and answers before it sleeps, in
// nanoseconds. Who writes to a sleeping thread has to wake it, which over a network no
// proxy has to, and on a virtual machine costs an exit to the hypervisor, whose price
// varies with what else the host does. Where the proxy has the load's core as well, looking
// would take it from it; between the events of a stream it would keep a core busy, perhaps
// the other half of the proxy's, for nothing.
func (c *cell) awake() int64 {
	if c.Kind == posts && c.Cores == 1 && !c.Sleeps {
		return int64(time.Millisecond)
	}
	return 0
}

// cells is the work, in the order it is done and shown. A vLLM replica writes to
// all its streams after each step of the engine, so events come in bursts. On a
// grid of 1 ms 256 streams make bursts of 13, about what several replicas give
// together; lone256 and step256 are the extremes.
var cells = []cell{
	{Name: "post", What: "JSON POST, 300 B in, 300 B out, 64 keep-alive connections", Kind: posts, Conns: 64, Ask: 300, Reply: 300, Cores: 1},
	{Name: "post1", What: "JSON POST, 200 B in, 300 B out, one connection", Kind: posts, Conns: 1, Ask: 200, Reply: 300, Cores: 1},
	{Name: "post2k", What: "JSON POST, 2 KB in, 300 B out, 64 keep-alive connections", Kind: posts, Conns: 64, Ask: 2000, Reply: 300, Cores: 1, Extra: true},
	{Name: "post10k", What: "JSON POST, 10 KB in, 300 B out, 64 keep-alive connections", Kind: posts, Conns: 64, Ask: 10_000, Reply: 300, Cores: 1},
	{Name: "post100k", What: "JSON POST, 100 KB in, 300 B out, 16 keep-alive connections", Kind: posts, Conns: 16, Ask: 100_000, Reply: 300, Cores: 1},
	{Name: "sse256", What: "256 SSE streams, an event per 20 ms each", Kind: streams, Conns: 256, Ask: 300, Interval: 20 * time.Millisecond, Grid: time.Millisecond, Cores: 1},
	{Name: "sse1000", What: "1,000 SSE streams, an event per 20 ms each", Kind: streams, Conns: 1000, Ask: 300, Interval: 20 * time.Millisecond, Grid: time.Millisecond, Cores: 1},
	{Name: "lone256", What: "as sse256, no two events at the same time", Kind: streams, Conns: 256, Ask: 300, Interval: 20 * time.Millisecond, Cores: 1},
	{Name: "step256", What: "as sse256, all events at the same time", Kind: streams, Conns: 256, Ask: 300, Interval: 20 * time.Millisecond, Grid: 20 * time.Millisecond, Cores: 1},
	{Name: "ends", What: "256 SSE streams of 50 events at 20 ms, one after the other", Kind: streams, Conns: 256, Ask: 300, Interval: 20 * time.Millisecond, Grid: time.Millisecond, Events: 50, Cores: 1},
	{Name: "sse10k", What: "10,000 SSE streams, an event per second each, two cores", Kind: streams, Conns: 10_000, Ask: 300, Interval: time.Second, Cores: 2, Probes: true},
	{Name: "idle", What: "4,000 idle keep-alive connections that carried one request", Kind: idles, Conns: 4000, Ask: 300, Reply: 300, Cores: 1},
	{Name: "bulk", What: "64 MiB body with Content-Length, one connection", Kind: bulks, Conns: 1, Ask: 300, Reply: 64 << 20, Cores: 1},
	{Name: "leave", What: "client goes away; the replica's connection is closed", Kind: leaves, Ask: 300, Interval: 20 * time.Millisecond, Cores: 1},
	{Name: "post1c", What: "as post, the load sleeps as it does in post2c", Kind: posts, Conns: 64, Ask: 300, Reply: 300, Cores: 1, Sleeps: true},
	{Name: "post2c", What: "as post, the proxy on two cores, one of them the load's", Kind: posts, Conns: 64, Ask: 300, Reply: 300, Cores: 2},
	{Name: "sse2c", What: "as sse256, the proxy on two cores, one of them the load's", Kind: streams, Conns: 256, Ask: 300, Interval: 20 * time.Millisecond, Grid: time.Millisecond, Cores: 2},
}

// variant is lbd with something optional: what a feature costs.
type variant struct {
	Name, What string
	Args       []string // $dir is a folder with what prepareFeatures writes
	Head       string   // further lines of each request's head; $n is a number of the connection
	TLS        bool     // clients speak it
}

// features are the variants of the flag -features, beside lbd as it is.
var features = []variant{
	{Name: "lbd-tokens", What: "answers not read for tokens and usage", Args: []string{"--token-metrics=false"}},
	{Name: "lbd-headers", What: "no X-Lbd-Replica, X-Lbd-Strategy", Args: []string{"--response-headers=false"}},
	{Name: "lbd-cycle", What: "strategy cycle", Args: []string{"--strategy=cycle"}},
	{Name: "lbd+cost", What: "strategy least-cost: prompts hashed and looked up, answers learned from", Args: []string{"--strategy=least-cost"}},
	{Name: "lbd+log", What: "access log, every request", Args: []string{"--access-log"}},
	{Name: "lbd+log100", What: "access log, one request in 100", Args: []string{"--access-log", "--access-log-sample=100"}},
	{Name: "lbd+log+hash", What: "access log with the hashes of prompts", Args: []string{"--access-log", "--access-log-prefixes"}},
	{Name: "lbd+keys", What: "an API key asked for, its tokens and requests counted", Args: []string{"--api-keys-file=$dir/keys.txt"}},
	{Name: "lbd+sessions", What: "64 sessions by header", Args: []string{"--affinity-headers=X-Session-ID"}, Head: "X-Session-ID: session-$n\r\n"},
	{Name: "lbd+sessions-hash", What: "64 sessions by header, at home by hash", Args: []string{"--affinity-headers=X-Session-ID", "--affinity-home=hash"}, Head: "X-Session-ID: session-$n\r\n"},
	{Name: "lbd+tls", What: "clients speak TLS 1.3; only CPU compares, for the load has a hop more", Args: []string{"--tls-cert-file=$dir/cert.pem", "--tls-key-file=$dir/key.pem"}, TLS: true},
}

// featureCells are those in which features show: a request without a prompt to speak of, prompts of 2 KB and 100 KB, events.
const featureCells = "post,post2k,post100k,sse256"

// chosen returns the cells a flag names, in the order of the table.
func chosen(names string) ([]cell, error) {
	if names == "all" {
		return slices.DeleteFunc(slices.Clone(cells), func(c cell) bool { return c.Extra }), nil
	}
	var out []cell
	want := strings.Split(names, ",")
	for _, c := range cells {
		if slices.Contains(want, c.Name) {
			out = append(out, c)
		}
	}
	for _, n := range want {
		if !slices.ContainsFunc(cells, func(c cell) bool { return c.Name == n }) {
			return nil, fmt.Errorf("cell %q is unknown; want all or some of %s", n, cellNames())
		}
	}
	return out, nil
}

// within is the cell with as many connections as the descriptor limit allows: a
// proxy has two for each, and some hundred besides.
func (c cell) within(limit int) cell {
	if most := (limit - 400) / 2; c.Conns > most {
		c.What += fmt.Sprintf(" (%d of them: the limit of open files is %d)", most, limit)
		c.Conns = most
	}
	return c
}

func cellNames() string {
	var names []string
	for _, c := range cells {
		names = append(names, c.Name)
	}
	return strings.Join(names, ",")
}
