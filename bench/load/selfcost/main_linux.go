package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"lbd/bench/load"
)

// options are the flags; the server gets the same.
type options struct {
	serve                bool
	streams              int
	rate                 float64 // events per second and stream
	seconds              float64 // measured
	client, server       int     // processors
	gogc                 int
	clock                string
	settle, ramp, stream time.Duration
}

func main() {
	var o options
	flag.BoolVar(&o.serve, "serve", false, "be the server (internal)")
	flag.IntVar(&o.streams, "streams", 10000, "streams at once")
	flag.Float64Var(&o.rate, "rate", 1, "events per second on each")
	flag.Float64Var(&o.seconds, "seconds", 20, "seconds to measure")
	flag.IntVar(&o.client, "client-cpu", 0, "processor of the client")
	flag.IntVar(&o.server, "server-cpu", 1, "processor of the server")
	flag.IntVar(&o.gogc, "gogc", 500, "GOGC of the client; lbd bench sets 500")
	flag.StringVar(&o.clock, "clock", "kernel", "kernel (as lbd bench) or client: take the times after the read instead")
	flag.Parse()
	// Connections are opened over a few seconds, then all is left to settle.
	o.ramp, o.settle = time.Duration(o.streams)*300*time.Microsecond+time.Second, 2*time.Second
	o.stream = o.ramp + o.settle + time.Duration(o.seconds*float64(time.Second)) + time.Second
	run := o.load
	if o.serve {
		run = o.answer
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "selfcost:", err)
		os.Exit(1)
	}
}

// pin runs the whole process on one processor.
func pin(cpu int) error {
	out, err := exec.Command("taskset", "-a", "-p", "-c", strconv.Itoa(cpu), strconv.Itoa(os.Getpid())).CombinedOutput()
	if err != nil {
		return fmt.Errorf("taskset: %w: %s", err, out)
	}
	runtime.GOMAXPROCS(1)
	return nil
}

// load runs the client and reports.
func (o *options) load() error {
	server, address, err := o.start()
	if err != nil {
		return err
	}
	defer func() {
		server.Process.Kill()
		server.Wait()
	}()
	if err := pin(o.client); err != nil {
		return err
	}
	share, longest := stolen()
	fmt.Printf("processor %d before the run: %.1f %% of a second taken by others, %v at most at once\n", o.client, 100*share, longest)
	debug.SetGCPercent(o.gogc)
	events := int(o.rate*o.stream.Seconds()) + 1
	requests := func(yield func(load.Request) bool) {
		for range o.streams {
			if !yield(load.Request{Model: "m", PromptTokens: 8, OutputTokens: events, Stream: true}) {
				return
			}
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var before, after cost
	time.AfterFunc(o.ramp+o.settle, func() { before = spent() })
	time.AfterFunc(o.ramp+o.settle+time.Duration(o.seconds*float64(time.Second)), func() {
		after = spent()
		cancel()
	})
	var dial func(context.Context, string, string) (net.Conn, error)
	if o.clock == "client" {
		dial = hidden
	}
	res, err := load.Run(ctx, load.Options{
		Target: "http://" + address, Requests: requests, Concurrency: o.streams, Ramp: o.ramp,
		KeepRecords: true, KeepBytes: 8 << 30, Dial: dial,
	})
	if err != nil {
		return err
	}
	o.report(res, before, after)
	return nil
}

// start runs the server, which prints its address.
func (o *options) start() (*exec.Cmd, string, error) {
	cmd := exec.Command("taskset", append([]string{"-c", strconv.Itoa(o.server), os.Args[0], "--serve"}, os.Args[1:]...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, "", err
	}
	if err := cmd.Start(); err != nil {
		return nil, "", err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return nil, "", fmt.Errorf("the server ended: %w", err)
	}
	return cmd, strings.TrimSpace(line), nil
}

// cost is what the process has used so far.
type cost struct {
	cpu     time.Duration
	at      time.Time
	mallocs uint64
	cycles  uint32
	pause   time.Duration
	heap    uint64
}

func spent() cost {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return cost{time.Duration(u.Utime.Nano() + u.Stime.Nano()), time.Now(), m.Mallocs, m.NumGC, time.Duration(m.PauseTotalNs), m.Sys}
}

// report prints the figures.
func (o *options) report(res *load.Results, before, after cost) {
	whole := wholeDelays(res, before.at, after.at)
	took := after.at.Sub(before.at)
	cpu := after.cpu - before.cpu
	fmt.Printf("%d streams, %.0f events/s measured over %.1f s, clock of the %s, at most %d in flight, %d failed\n",
		o.streams, float64(len(whole))/took.Seconds(), took.Seconds(), res.EventClock, res.PeakInFlight, res.Failed)
	fmt.Printf("client: %.0f %% of processor %d, %.2f us and %.3f allocations per event, %d collections, %v paused, %d MiB\n",
		100*cpu.Seconds()/took.Seconds(), o.client, float64(cpu.Microseconds())/float64(max(1, len(whole))),
		float64(after.mallocs-before.mallocs)/float64(max(1, len(whole))), after.cycles-before.cycles, after.pause-before.pause, after.heap>>20)
	show("event to recorded time", whole)
}

func show(name string, delays []time.Duration) {
	if len(delays) == 0 {
		fmt.Printf("%s: nothing measured\n", name)
		return
	}
	slices.Sort(delays)
	at := func(q float64) float64 {
		return float64(delays[min(len(delays)-1, int(q*float64(len(delays))))]) / 1e3
	}
	fmt.Printf("%s, us: p50 %.1f  p90 %.1f  p99 %.1f  p99.9 %.1f  max %.1f  (%d)\n",
		name, at(.5), at(.9), at(.99), at(.999), at(1), len(delays))
}

// wholeDelays compares the server's stamp in each event with the recorded time.
func wholeDelays(res *load.Results, from, to time.Time) []time.Duration {
	var all []time.Duration
	for i := range res.Records {
		rec := &res.Records[i]
		if rec.Kept == nil {
			continue
		}
		at, start := res.Started.Add(rec.FirstContent), int32(0)
		for n, end := range rec.Kept.Ends {
			if n > 0 {
				at = at.Add(rec.Kept.Gaps[n-1])
			}
			stamp, err := strconv.ParseInt(string(rec.Kept.Text[start:end]), 10, 64)
			if err == nil && at.After(from) && at.Before(to) {
				all = append(all, time.Duration(at.UnixNano()-stamp))
			}
			start = end
		}
	}
	return all
}

// hidden is a connection that package load does not know for a TCP one.
func hidden(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return struct{ net.Conn }{c}, nil
}

// stolen looks at the clock for a second and says how much of it went by in gaps
// longer than 100 us, which is somebody else's time.
func stolen() (share float64, longest time.Duration) {
	start := time.Now()
	last, lost := start, time.Duration(0)
	for last.Sub(start) < time.Second {
		now := time.Now()
		if gap := now.Sub(last); gap > 100*time.Microsecond {
			lost += gap
			longest = max(longest, gap)
		}
		last = now
	}
	return lost.Seconds() / last.Sub(start).Seconds(), longest
}
