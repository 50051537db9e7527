package admission

import (
	"cmp"
	"container/heap"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite the tables of README.md")

// A simulation of the queue in virtual time: the line and the bounds that requests
// meet, in front of a model that serves so many at a time at a pace of so many tokens
// a second in all. Lengths of answers are not known beforehand.
type simulation struct {
	clients  []*simClient
	slots    int
	pace     float64 // tokens per second of one slot
	length   int     // of the queue
	fifo     bool    // all clients are one
	maxWait  float64 // seconds
	seconds  float64
	now      float64
	line     line
	free     int
	output   float64 // mean, learned
	rng      *rand.Rand
	events   simEvents
	arrivals map[*waiter]*simRequest
}

// simClient sends requests at random times, whatever becomes of them.
type simClient struct {
	name           string
	class          Class
	rate           float64 // per second
	prompt, output float64 // tokens, mean; answers have an exponential length

	sent, served, refused int
	work                  float64 // tokens done
	waits                 []float64
}

type simRequest struct {
	client *simClient
	real   float64 // cost in tokens
	since  float64
}

type simEvent struct {
	at time.Duration
	do func()
}

type simEvents []simEvent

func (e simEvents) Len() int           { return len(e) }
func (e simEvents) Less(i, j int) bool { return e[i].at < e[j].at }
func (e simEvents) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *simEvents) Push(x any)        { *e = append(*e, x.(simEvent)) }
func (e *simEvents) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

func (s *simulation) after(seconds float64, do func()) {
	heap.Push(&s.events, simEvent{time.Duration((s.now + seconds) * 1e9), do})
}

func (s *simulation) run() {
	s.rng, s.free, s.output = rand.New(rand.NewPCG(1, 2)), s.slots, usualOutput
	s.arrivals = map[*waiter]*simRequest{}
	for _, c := range s.clients {
		s.after(s.rng.ExpFloat64()/c.rate, func() { s.arrive(c) })
	}
	for len(s.events) > 0 {
		e := heap.Pop(&s.events).(simEvent)
		if s.now = e.at.Seconds(); s.now > s.seconds {
			return
		}
		e.do()
	}
}

func (s *simulation) arrive(c *simClient) {
	s.after(s.rng.ExpFloat64()/c.rate, func() { s.arrive(c) })
	c.sent++
	output := c.output * s.rng.ExpFloat64()
	r := &simRequest{client: c, real: c.prompt + costOutput*output, since: s.now}
	w := &waiter{client: c.name, class: c.class, cost: c.prompt + costOutput*s.output}
	if s.fifo {
		w.client, w.class = "all", Normal
	}
	out, ok := s.line.victims(w, bounds{s.length, math.MaxInt64})
	if !ok {
		c.refused++
		return
	}
	for _, v := range out {
		s.line.leave(v)
		s.arrivals[v].client.refused++
	}
	s.arrivals[w] = r
	s.line.join(w)
	s.after(s.maxWait, func() {
		if w.waits {
			s.line.leave(w)
			c.refused++
		}
	})
	s.dispatch()
}

func (s *simulation) dispatch() {
	for ; s.free > 0 && s.line.n > 0; s.free-- {
		w := s.line.next(nil)
		s.line.serve(w)
		s.line.forget()
		r := s.arrivals[w]
		r.client.waits = append(r.client.waits, s.now-r.since)
		s.after(r.real/s.pace, func() {
			s.free++
			r.client.served++
			r.client.work += r.real
			s.output += outputPace * ((r.real-r.client.prompt)/costOutput - s.output)
			w.flow.correct(r.real - w.cost)
			s.dispatch()
		})
	}
}

// due is what each client would get under max-min fairness, in tokens per second: all
// it asks for or as much as nobody has more than.
func (s *simulation) due() map[*simClient]float64 {
	left, due := float64(s.slots)*s.pace, map[*simClient]float64{}
	rest := slices.Clone(s.clients)
	asks := func(c *simClient) float64 { return c.rate * (c.prompt + costOutput*c.output) }
	slices.SortFunc(rest, func(a, b *simClient) int {
		return cmp.Or(int(a.class)-int(b.class), cmp.Compare(asks(a), asks(b)))
	})
	for i, c := range rest {
		same := 0
		for _, o := range rest[i:] {
			if o.class == c.class {
				same++
			}
		}
		due[c] = min(asks(c), left/float64(same))
		left -= due[c]
	}
	return due
}

func percentile(v []float64, p float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(v))
	return s[min(int(p*float64(len(s))), len(s)-1)]
}

// row is a client's line of the table, and what it got of its due.
func (s *simulation) row(order string, c *simClient, due float64) (text string, part float64) {
	part = c.work / s.seconds / due
	return fmt.Sprintf("| %s | %s | %s | %.1f | %.0f %% | %.0f %% | %.2f | %.2f |\n", order, c.name, c.class, c.rate,
		100*float64(c.refused)/float64(c.sent), 100*part, percentile(c.waits, .5), percentile(c.waits, .99)), part
}

// jain is Jain's index of fairness: 1 when all have the same part of their due, 1/n
// when one has everything.
func jain(parts []float64) float64 {
	var sum, squares float64
	for _, p := range parts {
		sum += p
		squares += p * p
	}
	return sum * sum / float64(len(parts)) / squares
}

var simulated = []struct {
	title   string
	clients func() []*simClient
}{
	{"One client sends four and a half times what it is due", func() []*simClient {
		return []*simClient{
			{name: "hog", rate: 24, prompt: 1000, output: 250},
			{name: "chat", rate: 1, prompt: 300, output: 150},
			{name: "agent", rate: 0.4, prompt: 8000, output: 200},
		}
	}},
	{"Four clients with as many requests, of 1 to 16 times the size", func() []*simClient {
		return []*simClient{
			{name: "size 1", rate: 8, prompt: 500, output: 25},
			{name: "size 2", rate: 8, prompt: 1000, output: 50},
			{name: "size 4", rate: 8, prompt: 2000, output: 100},
			{name: "size 16", rate: 8, prompt: 8000, output: 400},
		}
	}},
	{"Batch work of low priority behind people", func() []*simClient {
		return []*simClient{
			{name: "people", class: High, rate: 4, prompt: 500, output: 250},
			{name: "others", rate: 3, prompt: 500, output: 250},
			{name: "batch", class: Low, rate: 20, prompt: 1000, output: 250},
		}
	}},
}

// The tables of README.md are what the code does.
func TestFairnessTable(t *testing.T) {
	var b strings.Builder
	for _, sc := range simulated {
		fmt.Fprintf(&b, "\n### %s\n\n", sc.title)
		b.WriteString("| order | client | class | requests/s | refused | work, of its due | wait p50 s | p99 s |\n|---|---|---|---|---|---|---|---|\n")
		var index [2]float64
		for i, order := range []string{"first come, first served", "as here"} {
			s := simulation{clients: sc.clients(), slots: 32, pace: 375, length: 200, maxWait: 60, seconds: 1800, fifo: i == 0}
			s.run()
			var parts []float64
			due := s.due()
			for _, c := range s.clients {
				text, part := s.row(order, c, due[c])
				b.WriteString(text)
				parts = append(parts, part)
			}
			index[i] = jain(parts)
		}
		fmt.Fprintf(&b, "\nJain's index of the parts of their due: %.3f first come, first served; %.3f as here.\n", index[0], index[1])
		if index[1] < 0.98 || index[1] < index[0] {
			t.Errorf("%s: Jain's index %.3f, first come, first served %.3f; want at least 0.98", sc.title, index[1], index[0])
		}
	}
	const begin, end = "<!-- simulated -->\n", "<!-- end -->\n"
	old, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(old), begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("README.md has no %q and %q", begin, end)
	}
	want := head + begin + b.String() + "\n" + end + tail
	if *update {
		if err := os.WriteFile("README.md", []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if want != string(old) {
		t.Errorf("the tables of README.md are old (go test ./admission -run Table -args -update):\n%s", b.String())
	}
}
