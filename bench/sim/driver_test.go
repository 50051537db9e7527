package sim

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"lbd/bench/sim/engine"
)

// bare is a driver without a server, for tests in fake time.
func bare(t *testing.T, change func(*Config)) *driver {
	t.Helper()
	cfg := Config{Model: llama, Engine: engine.Config{Jitter: -1, MaxModelLen: 8192}}
	if change != nil {
		change(&cfg)
	}
	cfg, err := cfg.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	eng, err := engine.New(cfg.Engine)
	if err != nil {
		t.Fatal(err)
	}
	f := newFaultSet(1)
	m := newMeters(cfg, eng.Config(), func() bool { return false })
	return newDriver(cfg, eng, m, f)
}

// runThrough generates tokens and returns how long it took.
func runThrough(t *testing.T, d *driver, tokens int) time.Duration {
	t.Helper()
	began := time.Now()
	j := newJob(true)
	err := d.generate(engine.Request{ID: uint64(tokens), PromptTokens: 10, OutputTokens: tokens}, &generation{job: j, want: tokens, prompt: 10, n: 1, reason: "length"})
	if err != nil {
		t.Fatal(err)
	}
	got := 0
	var batch []delivery
	for {
		<-j.notify
		batch = j.take(batch)
		for _, b := range batch {
			got += b.tokens
			if b.finished {
				if got != tokens {
					t.Errorf("%d tokens, want %d", got, tokens)
				}
				return time.Since(began)
			}
		}
	}
}

// TestPace: wall time is engine time over speed, without drift, however short
// the steps are.
func TestPace(t *testing.T) {
	for _, speed := range []float64{.5, 1, 10, 1000} {
		synctest.Test(t, func(t *testing.T) {
			d := bare(t, func(c *Config) { c.Speed = speed })
			d.start()
			took := runThrough(t, d, 500)
			want := time.Duration(float64(d.engineStats().Busy) / speed)
			// A wait under a millisecond is carried over, so the end may be early by that.
			if off := took - want; off > time.Microsecond || off < -minSleep {
				t.Errorf("speed %v: %v, want %v", speed, took, want)
			}
			d.join()
		})
	}
}

func TestSlowFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := bare(t, nil)
		d.faults.set(Faults{Slow: &Fault{Factor: 4}})
		d.start()
		took := runThrough(t, d, 100)
		want := 4 * d.engineStats().Busy
		if off := took - want; off > time.Millisecond || off < -time.Millisecond {
			t.Errorf("%v, want %v", took, want)
		}
		d.join()
	})
}

// TestIdleGauges: V0 refreshes its gauges every ten seconds when idle.
func TestIdleGauges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := bare(t, func(c *Config) { c.Profile = ProfileV064 })
		d.start()
		shown := func() bool {
			d.meters.mu.Lock()
			defer d.meters.mu.Unlock()
			return d.meters.running.shown
		}
		time.Sleep(9 * time.Second)
		if shown() {
			t.Error("gauges shown before the first idle poll")
		}
		time.Sleep(2 * time.Second)
		if !shown() {
			t.Error("gauges not shown after ten seconds")
		}
		d.join()
	})
}

func TestRefusedByEngine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := bare(t, nil)
		d.start()
		err := d.generate(engine.Request{ID: 1, PromptTokens: 9000, OutputTokens: 1}, &generation{job: newJob(true)})
		if !errors.Is(err, engine.ErrTooLong) {
			t.Errorf("generate: %v, want ErrTooLong", err)
		}
		d.join()
		if err := d.generate(engine.Request{ID: 2, PromptTokens: 1, OutputTokens: 1}, &generation{job: newJob(true)}); !errors.Is(err, errBroken) {
			t.Errorf("generate after the end: %v", err)
		}
	})
}

func TestMailboxMerges(t *testing.T) {
	deliver := func(merge bool) []delivery {
		j := newJob(merge)
		for _, d := range []delivery{{tokens: 1, first: true, cached: 3}, {tokens: 1}, {choice: 1, tokens: 1}, {choice: 1, tokens: 1, finished: true}} {
			j.put(d)
		}
		return j.take(nil)
	}
	if got := deliver(false); len(got) != 4 {
		t.Errorf("unmerged: %v", got)
	}
	got := deliver(true)
	want := []delivery{{tokens: 2, first: true, cached: 3}, {choice: 1, tokens: 2, finished: true}}
	if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("merged: %+v, want %+v", got, want)
	}
}
