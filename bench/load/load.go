package load

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Request is one request to send.
type Request struct {
	// At is when to send it, counted from the start of the run. Open loop only.
	At time.Duration
	// Model is the model asked for.
	Model string
	// PromptTokens is the length of the prompt at 4 bytes a token; OutputTokens is
	// forced with max_tokens, min_tokens and ignore_eos. Both are at least 1.
	PromptTokens, OutputTokens int
	// Stream asks for server-sent events.
	Stream bool
	// Prefix, when not 0, names a text that the first PrefixTokens tokens of the
	// prompt are taken from: requests with equal names share that prefix.
	Prefix       uint64
	PrefixTokens int
	// Blocks, when not nil, names the text of each BlockTokens tokens of the prompt
	// in turn, as traces with prefix information have it; it goes before Prefix.
	// What the blocks do not cover is unique.
	Blocks      []uint64
	BlockTokens int
	// Turns continue the conversation: each is sent so long after the answer
	// before it has ended, with the whole conversation in its prompt.
	Turns []Turn
	// Class names the part of the workload the request belongs to; it is recorded.
	Class string

	index int // place in the sequence, given by the Runner
}

func (q Request) validate() error {
	if q.PromptTokens < 1 || q.OutputTokens < 1 {
		return fmt.Errorf("%d prompt and %d output tokens; want at least 1 of each", q.PromptTokens, q.OutputTokens)
	}
	if q.Blocks != nil && q.BlockTokens < 1 {
		return fmt.Errorf("blocks of %d tokens; want at least 1", q.BlockTokens)
	}
	for i, t := range q.Turns {
		if t.PromptTokens < 1 || t.OutputTokens < 1 || t.Think < 0 {
			return fmt.Errorf("turn %d of %d prompt and %d output tokens after %v; want at least 1 of each, not before 0",
				i+1, t.PromptTokens, t.OutputTokens, t.Think)
		}
	}
	return nil
}

// API is the pair of an endpoint and its body shape.
type API string

// The two APIs.
const (
	Chat        API = "chat"        // /v1/chat/completions
	Completions API = "completions" // /v1/completions
)

// Options describe a run. Target and Requests are required.
type Options struct {
	// Target is the base URL, http://host:port; a trailing /v1 is ignored.
	Target string
	// Requests are sent in the order they come. Open loop: in time order. The
	// sequence is asked for the next request just ahead of time; it must not block.
	Requests iter.Seq[Request]
	// API is Chat if empty.
	API API
	// Concurrency above 0 makes the run closed loop: so many requests at any time,
	// Request.At ignored. At 0 the loop is open: every request is sent at its time,
	// whatever became of the ones before it.
	Concurrency int
	// Ramp spreads the starts of the Concurrency requests of a closed loop over so
	// long; the loop is full after it.
	Ramp time.Duration
	// Duration above 0 starts no request later than this; those in flight finish.
	Duration time.Duration
	// Timeout bounds one request from its start to its last byte (0: 10 minutes,
	// about the longest generation a replica's defaults allow).
	Timeout time.Duration
	// IdleTimeout is how long a connection is kept without use (0: 3 s, below the
	// 5 s after which uvicorn closes one).
	IdleTimeout time.Duration
	// APIKey is sent as a bearer token unless empty.
	APIKey string
	// Seed makes the text of the prompts: equal seeds send equal bytes.
	Seed uint64
	// Requests scheduled before Warmup, and the first WarmupRequests ones, are sent
	// but left out of the results.
	Warmup         time.Duration
	WarmupRequests int
	// SLO is the limits a good request stays within; the zero SLO has none.
	SLO SLO
	// MetricsURL, unless empty, is read each second: what lbd knows of its replicas
	// goes into Results.Timeline.
	MetricsURL string
	// KeepBytes above 0 keeps bodies, texts and the time of every event of the
	// measured requests in Record.Kept, until they take so many bytes together.
	KeepBytes int64
	// KeepRecords puts one Record per request into the results.
	KeepRecords bool
	// Progress is called each second and once at the end, never concurrently.
	Progress func(Snapshot)
	// OnRecord is called once for each request when it has ended, warm-up included,
	// never concurrently; it holds up other requests that end meanwhile.
	OnRecord func(Record)
	// Dial replaces the network in tests (nil: TCP).
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

const (
	defaultTimeout     = 10 * time.Minute
	defaultIdleTimeout = 3 * time.Second
	progressInterval   = time.Second
)

func (o *Options) setDefaults() error {
	if o.Requests == nil {
		return errors.New("no requests; want a sequence of them")
	}
	if o.API == "" {
		o.API = Chat
	}
	if o.API != Chat && o.API != Completions {
		return fmt.Errorf("unknown API %q; want %s or %s", o.API, Chat, Completions)
	}
	if o.Concurrency < 0 || o.Timeout < 0 || o.Duration < 0 || o.Warmup < 0 || o.WarmupRequests < 0 || o.Ramp < 0 {
		return errors.New("concurrency, timeout, duration, ramp and warm-up must not be below 0")
	}
	if o.Ramp > 0 && o.Concurrency == 0 {
		return errors.New("a ramp of an open loop is made by the times of its requests; want concurrency with it")
	}
	if err := o.SLO.validate(); err != nil {
		return err
	}
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	if o.IdleTimeout == 0 {
		o.IdleTimeout = defaultIdleTimeout
	}
	return nil
}

// Runner is one run and the live view of it.
type Runner struct {
	o        Options
	target   target
	pool     *pool
	live     *live
	recorder *recorder
	begun    atomic.Bool
	start    time.Time      // written before the first goroutine starts
	requests sync.WaitGroup // one for each request in flight
}

// New checks the options.
func New(o Options) (*Runner, error) {
	if err := o.setDefaults(); err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	t, err := parseTarget(o.Target)
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	return &Runner{
		o:        o,
		target:   t,
		pool:     newPool(t, o.Dial, o.IdleTimeout),
		live:     newLive(),
		recorder: newRecorder(&o),
	}, nil
}

// Run is New followed by Runner.Run.
func Run(ctx context.Context, o Options) (*Results, error) {
	r, err := New(o)
	if err != nil {
		return nil, err
	}
	return r.Run(ctx)
}

// Run sends the requests and returns when the last one has ended; it can be
// called once. When ctx ends, the requests in flight are aborted and counted as
// cancelled, and the results so far are returned with Interrupted set and no
// error. An error means the requests could not be taken further; the results are
// then those of the requests before it.
func (r *Runner) Run(ctx context.Context) (*Results, error) {
	if r.begun.Swap(true) {
		panic("BUG: load: a Runner runs once")
	}
	r.start = time.Now()
	r.live.begin(r.start)
	stop := r.startProgress()
	sampled := r.startSampler(ctx)
	var err error
	if r.o.Concurrency > 0 {
		err = r.closedLoop(ctx)
	} else {
		err = r.openLoop(ctx)
	}
	r.requests.Wait()
	stop()
	r.pool.close()
	res := r.results()
	if res.Timeline != nil {
		res.Timeline.Sampled = sampled()
	} else {
		sampled()
	}
	res.Interrupted = ctx.Err() != nil
	return res, err
}

// Snapshot is the live view; any goroutine may ask, before, while and after Run.
func (r *Runner) Snapshot() Snapshot { return r.live.snapshot() }

// startProgress starts the goroutine that moves the sliding window and reports
// progress; the function it returns ends it, waits for it and reports once more.
func (r *Runner) startProgress() (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	report := func() {
		if r.o.Progress != nil {
			r.o.Progress(r.Snapshot())
		}
	}
	go func() {
		defer close(done)
		tick := time.NewTicker(progressInterval)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				r.live.roll()
				report()
			case <-quit:
				return
			}
		}
	}()
	return func() {
		close(quit)
		<-done
		report()
	}
}

// since is the time of the run.
func (r *Runner) since() time.Duration { return time.Since(r.start) }
