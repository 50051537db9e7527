//go:build linux

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"time"
)

// disturber does to the fleet what operators and fate do, and heals what it did.
type disturber struct {
	*rig
	rng  *rand.Rand // of the loop; every act gets numbers drawn by it
	acts sync.WaitGroup
	free chan *slot // slots whose act is over
	fail func(string)
}

// most is how many replicas are disturbed at a time.
const most = 3

// disturb goes on until ctx ends, and then until all is healed.
func (r *rig) disturb(ctx context.Context, rng *rand.Rand, fail func(string)) {
	d := &disturber{rig: r, rng: rng, free: make(chan *slot, len(r.slots)), fail: fail}
	for sleep(ctx, time.Duration(100+rng.IntN(700))*time.Millisecond) {
		d.collect()
		if rng.IntN(6) == 0 {
			d.reconfigure(ctx)
			continue
		}
		d.one(ctx)
	}
	d.acts.Wait()
	d.collect()
	d.setting = ""
	if err := d.save(); err != nil {
		fail(err.Error())
	}
}

// collect takes back the slots whose act is over.
func (d *disturber) collect() {
	for {
		select {
		case s := <-d.free:
			s.busy = false
		default:
			return
		}
	}
}

// act is one disturbance of one replica, from beginning to end.
type act struct {
	kind   kind
	lasts  time.Duration
	faults string // JSON of /sim/faults; empty: one of the four below
	model  string // of restarted
}

// simFaults are the faults of lbd sim that the soak draws from; %d is how many
// events of a stream go well before. A share keeps some requests unharmed.
var simFaults = []struct {
	kind kind
	json string
}{
	{"hang", `{"hang":{"rate":0.3}}`},
	{"hang_stream", `{"hang_stream":{"rate":0.3,"events":%d}}`},
	{"reset_before", `{"reset_before":{"rate":0.5}}`},
	{"reset_stream", `{"reset_stream":{"rate":0.5,"events":%d}}`},
	{"truncate_stream", `{"truncate_stream":{"rate":0.5,"events":%d}}`},
	{"status", `{"status":{"rate":0.5,"code":500}}`},
	{"status", `{"status":{"rate":0.5,"code":503}}`},
	{"bad_head", `{"bad_head":{"rate":0.3}}`},
	{"bad_length", `{"bad_length":{"rate":0.3}}`},
	{"bad_chunks", `{"bad_chunks":{"rate":0.3,"events":%d}}`},
	{"stream_error", `{"stream_error":{"rate":0.5,"events":%d}}`},
	{"lost_done", `{"lost_done":{"rate":0.5}}`},
	{"loading", `{"loading":{}}`},
	{"unhealthy", `{"unhealthy":{}}`},
	{"refuse", `{"refuse":{}}`},
	{"slow", `{"slow":{"factor":8}}`},
	{"no_metrics", `{"no_metrics":{}}`},
	{"broken_metrics", `{"broken_metrics":{}}`},
	{"stuck_gauges", `{"stuck_gauges":{}}`},
	{"disable_log_stats", `{"disable_log_stats":{}}`},
	{idleClosed, `{"close_idle_now":{}}`},
}

// draw decides on an act.
func (d *disturber) draw() act {
	a := act{lasts: time.Duration(200+d.rng.IntN(2500)) * time.Millisecond}
	switch n := d.rng.IntN(12); n {
	case 0, 1:
		a.kind = killed
	case 2:
		a.kind, a.model = restarted, homes[d.rng.IntN(len(homes))]
	case 3:
		a.kind = drained
	case 4:
		a.kind = removed
	default:
		f := simFaults[d.rng.IntN(len(simFaults))]
		a.kind, a.faults = f.kind, f.json
		events := 1 + d.rng.IntN(6)
		if slices.Contains([]byte(f.json), '%') {
			a.faults = fmt.Sprintf(f.json, events)
		}
		if f.kind == idleClosed {
			a.lasts = 0 // it is done when the replica has answered
		}
	}
	return a
}

// one begins an act on a replica that is left alone, unless enough are not.
func (d *disturber) one(ctx context.Context) {
	var idle []*slot
	for _, s := range d.slots {
		if !s.busy {
			idle = append(idle, s)
		}
	}
	if len(d.slots)-len(idle) >= most {
		return
	}
	s := idle[d.rng.IntN(len(idle))]
	a := d.draw()
	s.busy = true
	d.acts.Go(func() {
		defer func() { d.free <- s }()
		end := d.journal.begin(s.index, a.kind)
		if err := d.perform(ctx, s, a); err != nil {
			d.fail(fmt.Sprintf("%s of %s: %v", a.kind, s.addr, err))
			return // the window stays open
		}
		end()
	})
}

// perform does an act and undoes it, also when ctx has ended.
func (d *disturber) perform(ctx context.Context, s *slot, a act) error {
	healing := context.WithoutCancel(ctx)
	switch {
	case a.faults != "":
		if err := d.want(d.ask("POST", "http://"+s.addr+"/sim/faults", a.faults)); err != nil {
			return err
		}
		sleep(ctx, a.lasts)
		return d.heal(healing, s, a.kind == "refuse")
	case a.kind == drained:
		if err := d.want(d.ask("POST", "http://"+d.admin+"/replicas/"+s.addr+"/drain", "")); err != nil {
			return err
		}
		sleep(ctx, a.lasts)
		return d.want(d.ask("POST", "http://"+d.admin+"/replicas/"+s.addr+"/undrain", ""))
	case a.kind == removed:
		if err := d.member(healing, s, false); err != nil {
			return err
		}
		sleep(ctx, a.lasts)
		return d.member(healing, s, true)
	}
	s.process.kill()
	if a.model != "" {
		sleep(ctx, 300*time.Millisecond)
		if err := d.revive(healing, s, a.model); err != nil {
			return err
		}
	}
	sleep(ctx, a.lasts)
	s.process.kill()
	return d.revive(healing, s, s.home)
}

func (d *disturber) want(code int, body string, err error) error {
	if err == nil && code != 200 {
		err = fmt.Errorf("%d %s", code, body)
	}
	return err
}

// heal clears the faults. A replica that refuses connections cannot be told; it is
// restarted, which what runs there on live connections does not survive.
func (d *disturber) heal(ctx context.Context, s *slot, deaf bool) error {
	if deaf {
		defer d.journal.begin(s.index, killed)()
		s.process.kill()
		return d.revive(ctx, s, s.home)
	}
	return d.want(d.ask("DELETE", "http://"+s.addr+"/sim/faults", ""))
}

// revive starts the process of a replica that was killed.
func (d *disturber) revive(ctx context.Context, s *slot, model string) error {
	d.journal.serves(s.index, model)
	if err := d.launch(s, model); err != nil {
		return err
	}
	if !d.up(ctx, s) {
		return fmt.Errorf("it does not come up within 20 s")
	}
	return nil
}

// member takes a replica out of the configuration or puts it back.
func (d *disturber) member(ctx context.Context, s *slot, in bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if in {
		delete(d.absent, s.index)
	} else {
		d.absent[s.index] = true
	}
	if err := d.save(); err != nil {
		return err
	}
	return d.reload(ctx, "the endpoints", func() bool {
		code, _, err := d.get("http://" + d.admin + "/replicas/" + s.addr)
		return err == nil && (code == 200) == in
	})
}

// settings are what reloads change besides the endpoints; each differs from the
// others in its strategy, by which a reload is seen. least-cost is not among them:
// one model has it all the time (pinned), since its index of prefixes is 64 MiB a
// model (prefix.DefaultBytes), and memory that comes and goes with a setting would
// hide memory that only comes.
var settings = []struct{ strategy, rest string }{
	{"least-waiting", ""},
	{"cycle", "token_metrics: false\n"},
	{"two-choices", "upstream_idle_timeout: 100ms\naccess_log: true\n"},
	{"least-inflight", "response_headers: true\nmax_attempts: 4\n"},
	{"random", "connect_timeout: 3s\nlog_level: debug\n"},
}

// reconfigure reloads another setting, or a file that must change nothing.
func (d *disturber) reconfigure(ctx context.Context) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := settings[d.rng.IntN(len(settings))]
	bad := d.rng.IntN(3) == 0
	if err := d.tryReload(ctx, n.strategy, n.rest, bad); err != nil {
		d.fail(err.Error())
	}
}

func (d *disturber) tryReload(ctx context.Context, strategy, rest string, bad bool) error {
	if bad {
		if err := os.WriteFile(d.config, []byte("listen: \":1\"\nstrategy: best\n"), 0o644); err != nil {
			return err
		}
		if err := d.reload(ctx, "a bad file", func() bool { return d.lastReload("0") }); err != nil {
			return err
		}
	}
	d.setting = "strategy: " + strategy + "\n" + rest
	if err := d.save(); err != nil {
		return err
	}
	return d.reload(ctx, "strategy "+strategy, func() bool { return d.lastReload("1") && d.uses(strategy) })
}

func (d *disturber) lastReload(value string) bool {
	m, err := d.metrics()
	return err == nil && m.text["lbd_config_last_reload_successful"] == value
}

// uses tells whether lbd works by a strategy.
func (d *disturber) uses(strategy string) bool {
	code, page, err := d.get("http://" + d.admin + "/fleet")
	return err == nil && code == 200 && usesStrategy(page, strategy)
}
