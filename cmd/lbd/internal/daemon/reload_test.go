package daemon_test

import (
	"os"
	"strings"
	"testing"

	"lbd/bench/sim"
)

// A reload applies the file, all of it or nothing.
func TestReload(t *testing.T) {
	a, b := replica(t, sim.Config{}), replica(t, sim.Config{})
	p, file := configured(t, "strategy: cycle\n"+endpoints(a))
	p.available(llama, a)
	write(t, file, "strategy: random\n"+endpoints(b))
	if err := p.Reload(); err != nil {
		t.Fatal(err)
	}
	p.available(llama, b)
	r, got := p.ask(llama)
	if r != b.Addr() || got.header.Get("X-Lbd-Strategy") != "random" {
		t.Errorf("%s by %q; want %s by random", r, got.header.Get("X-Lbd-Strategy"), b.Addr())
	}
}

func TestBadReloadChangesNothing(t *testing.T) {
	// It lists its models in the same words each time, which vLLM does not: it makes up an id
	// and a time for each answer, and there is a new snapshot.
	a, b := fakeReplica(t, echo), replica(t, sim.Config{})
	good := "strategy: cycle\nendpoints: [" + a.url() + "]\n"
	p, file := configured(t, good)
	p.until("served", func() bool { m := p.Snapshot().Model([]byte(llama)); return m != nil && len(m.Available) == 1 })
	generation := p.Snapshot().Generation
	for name, yaml := range map[string]string{
		"unknown key":      endpoints(b) + "stratagy: random\n",
		"unknown strategy": endpoints(b) + "strategy: best\n",
		"not YAML":         endpoints(b) + "strategy: [\n",
		"bad weight":       endpoints(b) + "models: [{name: m, replicas: [{url: http://x:1, weight: -1}]}]\n",
		"no replicas":      "strategy: random\nendpoints: []\n",
	} {
		write(t, file, yaml)
		err := p.Reload()
		if err == nil {
			t.Errorf("%s: taken", name)
			continue
		}
		if name != "no replicas" && !strings.Contains(err.Error(), file+":2") && !strings.Contains(err.Error(), file+":3") {
			t.Errorf("%s: %q does not name file and line", name, err)
		}
		if got := p.metric("lbd_config_last_reload_successful"); got != "0" {
			t.Errorf("%s: lbd_config_last_reload_successful is %q; want 0", name, got)
		}
	}
	os.Remove(file)
	if err := p.Reload(); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("file gone: %v; want its name", err)
	}
	if g := p.Snapshot().Generation; g != generation {
		t.Errorf("snapshot %d after %d: something changed", g, generation)
	}
	if r, got := p.ask(llama); r != a.ln.Addr().String() || got.header.Get("X-Lbd-Strategy") != "cycle" {
		t.Errorf("%s by %q; want all as before", r, got.header.Get("X-Lbd-Strategy"))
	}
	write(t, file, good)
	if err := p.Reload(); err != nil {
		t.Fatal(err)
	}
	if got := p.metric("lbd_config_last_reload_successful"); got != "1" {
		t.Errorf("after a good one: lbd_config_last_reload_successful is %q; want 1", got)
	}
}

// What only a restart applies is told, and stays as it was, however often.
func TestReloadTellsWhatNeedsRestart(t *testing.T) {
	a := replica(t, sim.Config{})
	p, file := configured(t, endpoints(a))
	p.available(llama, a)
	for range 2 {
		write(t, file, "log_format: console\nmax_request_header_size: 64KiB\nmax_attempts: 1\n"+endpoints(a))
		if err := p.Reload(); err != nil {
			t.Fatal(err)
		}
	}
	lines := p.log.logged("configuration reloaded")
	if len(lines) != 2 {
		t.Fatalf("%d lines for 2 reloads", len(lines))
	}
	for i, line := range lines {
		needs, _ := line["needs_restart"].([]any)
		if len(needs) != 2 || needs[0] != "max_request_header_size" || needs[1] != "log_format" {
			t.Errorf("reload %d: needs_restart %v", i, line["needs_restart"])
		}
	}
	if applied, _ := lines[0]["applied"].([]any); len(applied) != 1 || applied[0] != "max_attempts" {
		t.Errorf("applied %v; want max_attempts", lines[0]["applied"])
	}
	if applied, _ := lines[1]["applied"].([]any); len(applied) != 0 {
		t.Errorf("nothing new, but applied %v", applied)
	}
}

// Every part of lbd takes its share of a reload.
func TestReloadReachesEveryPart(t *testing.T) {
	a, b := replica(t, sim.Config{APIKey: secretReply}), replica(t, sim.Config{APIKey: secretReply})
	p, file := configured(t, endpoints(a, b))
	p.until("told that a key is wanted", func() bool { return len(p.log.logged("models failed")) == 2 })
	reload := func(yaml string) {
		t.Helper()
		write(t, file, yaml+"replica_api_key: "+secretReply+"\n"+endpoints(a, b))
		if err := p.Reload(); err != nil {
			t.Fatal(err)
		}
	}
	lora := func() int {
		return p.onAdmin("POST", "/replicas/"+a.Addr()+"/v1/load_lora_adapter", `{"lora_name":"x","lora_path":"/x"}`).status
	}
	if status := lora(); status != 401 {
		t.Errorf("control call without the key: %d; want the replica's 401", status)
	}

	reload("response_headers: true\n")
	p.available(llama, a, b) // poller
	if status := lora(); status != 200 {
		t.Errorf("control call with the reloaded key: %d", status) // admin
	}
	if _, got := p.ask(llama); got.header.Get("X-Lbd-Replica") == "" {
		t.Error("no X-Lbd-Replica")
	}
	reload("response_headers: false\n")
	if _, got := p.ask(llama); got.header.Get("X-Lbd-Replica") != "" { // proxy
		t.Error("X-Lbd-Replica though response_headers is false")
	}
	pick := func() int {
		return p.onAdmin("POST", "/pick", `{"model":"`+llama+`"}`+strings.Repeat(" ", 1500)).status
	}
	if status := pick(); status != 200 {
		t.Errorf("dry run below max_request_body_size: %d", status)
	}
	reload("max_request_body_size: 1KiB\n")
	if status := pick(); status != 413 { // admin
		t.Errorf("dry run above the reloaded max_request_body_size: %d; want 413", status)
	}
	reload("health_path: /nowhere\n")
	p.until("one ejected, the last spared", func() bool { // health
		return len(p.log.logged("replica ejected")) == 1 && len(p.log.logged("replica spared")) > 0
	})
	reload("")
	p.available(llama, a, b)
}

// Reloads and requests at once: nothing is lost.
func TestReloadUnderTraffic(t *testing.T) {
	a, b := replica(t, sim.Config{}), replica(t, sim.Config{})
	p, file := configured(t, endpoints(a, b))
	p.available(llama, a, b)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			write(t, file, []string{"strategy: cycle\n", "strategy: least-inflight\nconnect_timeout: 2s\n"}[i%2]+endpoints(a, b))
			if err := p.Reload(); err != nil {
				t.Error(err)
			}
		}
	}()
	p.spread(llama, 150)
	close(stop)
	<-stopped
}
