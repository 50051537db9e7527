package daemon_test

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"lbd/balancer"
	"lbd/balancer/fleet"
	"lbd/balancer/strategy"
	"lbd/bench/sim"
	"lbd/cmd/lbd/internal/config"
	"lbd/cmd/lbd/internal/daemon"
	"lbd/internal/loopback"
)

// book is what names stand for; others are not known yet.
type book map[string][]netip.Addr

func (b book) addresses(host string) (ips []netip.Addr, known bool) {
	ips, known = b[host]
	return ips, known
}

func parsed(ips ...string) (all []netip.Addr) {
	for _, ip := range ips {
		all = append(all, netip.MustParseAddr(ip))
	}
	return all
}

func fromFile(t testing.TB, yaml string) *config.Config {
	t.Helper()
	c, err := config.Load(config.Options{
		Environ: []string{"LBD_CONFIG=lbd.yml"}, Strategies: strategy.Names(), ReadFile: func(string) ([]byte, error) { return []byte(yaml), nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// motley has every way in which a replica may be listed.
const motley = `
endpoints: ["dns+http://a:8000/x", "http://[FD00:0::1]:8000", "dns+http://later:8000", "http://10.0.0.9:8000"]
models:
  - name: m
    replicas: [{url: "dns+https://b", weight: 2, device: gpu0, cache_tokens: 7}, {url: "dns+http://later:9000"}]
  - {name: n, replicas: [{url: "dns+http://c:8000", weight: 3}, {url: "dns+https://d:443", weight: 4}]}
  - {name: empty, replicas: [{url: "dns+http://none:8000"}]}
`

func TestRoster(t *testing.T) {
	got := daemon.RosterOf(fromFile(t, motley), book{
		"a": parsed("10.0.0.1", "fd00::1"), "b": parsed("10.0.0.1", "10.0.0.2"), "c": parsed("fd00::1", "10.0.0.3", "10.0.0.9"),
		"d": parsed("10.0.0.2", "10.0.0.4"), "none": nil,
	}.addresses)
	want := fleet.Config{
		Strategy: "least-waiting",
		Awaited:  []string{"dns+http://later:8000", "dns+http://later:9000"},

		Unresolved: []string{"dns+http://later:8000", "dns+http://later:9000", "dns+http://none:8000"},
		Replicas: []fleet.ReplicaConfig{
			{URL: "http://10.0.0.1:8000/x", Of: "dns+http://a:8000/x"}, {URL: "http://[fd00::1]:8000/x", Of: "dns+http://a:8000/x"},
			{URL: "http://[fd00:0::1]:8000"}, {URL: "http://10.0.0.9:8000"},
			{URL: "https://10.0.0.1:443", Of: "dns+https://b", Weight: 2, Device: "gpu0", CacheTokens: 7},
			{URL: "https://10.0.0.2:443", Of: "dns+https://b", Weight: 2, Device: "gpu0", CacheTokens: 7},
			{URL: "http://10.0.0.3:8000", Of: "dns+http://c:8000", Weight: 3},
			{URL: "https://10.0.0.4:443", Of: "dns+https://d:443", Weight: 4},
		},
		Models: []fleet.ModelConfig{
			{Name: "m", Strategy: "least-waiting", Replicas: []string{"https://10.0.0.1:443", "https://10.0.0.2:443"}},
			{Name: "n", Strategy: "least-waiting", Replicas: []string{"http://10.0.0.3:8000", "https://10.0.0.2:443", "https://10.0.0.4:443"}},
			{Name: "empty", Strategy: "least-waiting"},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("roster (-want +got):\n%s", diff)
	}
}

type nobody struct{}

func (nobody) Pick(*balancer.Request, []*balancer.Replica) *balancer.Replica { return nil }

// FuzzRoster has DNS say anything: the fleet takes what is made of it, since no reload is
// there to refuse it.
func FuzzRoster(f *testing.F) {
	f.Add([]byte{1, 2, 3, 0x81}, []byte{1}, []byte{}, []byte{9})
	f.Add([]byte{}, []byte{1, 2}, []byte{0x81, 1}, []byte{2})
	cfg := fromFile(f, motley)
	ips := func(raw []byte) (all []netip.Addr) {
		for _, b := range raw {
			if b < 0x80 {
				all = append(all, netip.AddrFrom4([4]byte{10, 0, 0, b}))
			} else {
				all = append(all, netip.AddrFrom16([16]byte{0xfd, 15: b - 0x80}))
			}
		}
		return all
	}
	f.Fuzz(func(t *testing.T, a, b, c, d []byte) {
		zone := book{"a": ips(a), "b": ips(b), "c": ips(c), "d": ips(d)}
		fl := fleet.New(fleet.Options{NewPicker: func(string) (balancer.Picker, error) { return nobody{}, nil }})
		if err := fl.Configure(daemon.RosterOf(cfg, zone.addresses)); err != nil {
			t.Fatalf("%v: %v", zone, err)
		}
		s := fl.Snapshot()
		for _, host := range []string{"b", "d"} {
			for _, ip := range zone[host] {
				id := netip.AddrPortFrom(ip, 443).String()
				if r := s.Replica(id); r == nil || !slices.ContainsFunc(r.Models, func(m balancer.ModelInfo) bool { return m.ID == map[string]string{"b": "m", "d": "n"}[host] }) {
					t.Errorf("%s of %s is no replica of its model", id, host)
				}
			}
		}
	})
}

// What an operator has drained in the lbd before stays drained, although an address of a
// name is known only when the name is.
func TestDrainedBeforeItsNameIsKnown(t *testing.T) {
	r := replica(t, sim.Config{})
	at := netip.MustParseAddrPort(r.Addr())
	answer := make(chan struct{})
	cfg := load(t, []string{"dns+http://vllm.test:" + r.Addr()[strings.LastIndexByte(r.Addr(), ':')+1:]})
	log := &syncLog{}
	d, err := daemon.New(cfg, daemon.Options{Log: zerolog.New(log), Version: "test", Lookup: func(ctx context.Context, network, _ string) ([]netip.Addr, error) {
		select {
		case <-answer:
		case <-ctx.Done():
		}
		if network == "ip6" {
			return nil, ctx.Err()
		}
		return []netip.Addr{at.Addr()}, ctx.Err()
	}})
	if err != nil {
		t.Fatal(err)
	}
	daemon.DrainLater(d, r.Addr(), loopback.Free(t))
	if err := d.Start(); err != nil {
		t.Fatal(err)
	}
	defer d.Stop(t.Context())
	close(answer)
	until(t, "healthy", func() bool {
		s := d.Snapshot().Replica(r.Addr())
		return s != nil && s.Health.State == balancer.Healthy
	})
	if s := d.Snapshot().Replica(r.Addr()); !s.Draining {
		t.Errorf("%+v; want it drained", s)
	}
	until(t, "told of who is not known", func() bool { return len(log.logged("drained in the lbd before, and not known to this one")) == 1 })
}
