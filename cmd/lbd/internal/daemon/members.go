package daemon

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"lbd/balancer"
	"lbd/balancer/fleet"
	"lbd/cmd/lbd/internal/config"
	"lbd/names"
)

// roster lists the replicas of a configuration, every address of a dns+ name among them.
type roster struct {
	fleet.Config
	addresses func(host string) (ips []netip.Addr, known bool)
	byHand    map[string]bool // IDs of addresses that the configuration lists itself
	members   map[string]bool // IDs of addresses of names
}

// rosterOf lists what c says where names stand for addresses. An address that is also
// listed by hand is what is written there; of one that two names have, the first says
// what it is, and it serves the models of both.
func rosterOf(c *config.Config, addresses func(string) ([]netip.Addr, bool)) fleet.Config {
	r := &roster{
		Config: fleet.Config{Strategy: c.Strategy}, addresses: addresses, byHand: map[string]bool{}, members: map[string]bool{},
	}
	for e := range listed(c) {
		if !e.Each {
			r.byHand[spelled(e)] = true
		}
	}
	for _, e := range c.Endpoints {
		r.add(config.Replica{Endpoint: e})
	}
	for _, m := range c.Models {
		mc := fleet.ModelConfig{Name: m.Name, Aliases: m.Aliases, Strategy: m.Strategy}
		for _, replica := range m.Replicas {
			mc.Replicas = append(mc.Replicas, r.add(replica)...)
		}
		r.Models = append(r.Models, mc)
	}
	return r.Config
}

// add returns the URLs of what is listed.
func (r *roster) add(c config.Replica) (urls []string) {
	if !c.Endpoint.Each {
		r.Replicas = append(r.Replicas, replicaConfig(c.Endpoint, c))
		return []string{c.Endpoint.String()}
	}
	ips, known := r.addresses(hostOf(c.Endpoint))
	name := c.Endpoint.String()
	if !known && !slices.Contains(r.Awaited, name) {
		r.Awaited = append(r.Awaited, name)
	}
	if len(ips) == 0 && !slices.Contains(r.Unresolved, name) {
		r.Unresolved = append(r.Unresolved, name)
	}
	for _, ip := range ips {
		e := c.Endpoint.Member(ip)
		id := spelled(e)
		if r.byHand[id] {
			continue
		}
		if !r.members[id] {
			r.members[id] = true
			r.Replicas = append(r.Replicas, replicaConfig(e, c))
		}
		urls = append(urls, e.String())
	}
	return urls
}

func replicaConfig(e balancer.Endpoint, c config.Replica) fleet.ReplicaConfig {
	return fleet.ReplicaConfig{URL: e.String(), Of: e.Of(), Device: c.Device, Weight: c.Weight, CacheTokens: int64(c.CacheTokens)}
}

// spelled is the ID of a replica with its address in the one spelling that addresses of
// names have.
func spelled(e balancer.Endpoint) string {
	if at, err := netip.ParseAddrPort(e.Addr); err == nil {
		e.Addr = netip.AddrPortFrom(at.Addr().Unmap(), at.Port()).String()
	}
	return e.Addr + e.BasePath
}

// listed yields every endpoint of a configuration.
func listed(c *config.Config) func(yield func(balancer.Endpoint) bool) {
	return func(yield func(balancer.Endpoint) bool) {
		for _, e := range c.Endpoints {
			if !yield(e) {
				return
			}
		}
		for _, m := range c.Models {
			for _, r := range m.Replicas {
				if !yield(r.Endpoint) {
					return
				}
			}
		}
	}
}

// eachNames are the names of which every address is a replica.
func eachNames(cs ...*config.Config) (hosts []string) {
	for _, c := range cs {
		for e := range listed(c) {
			if e.Each {
				hosts = append(hosts, hostOf(e))
			}
		}
	}
	return hosts
}

// learnPatience bounds how long a reload waits for the addresses of names that it brings:
// that of one look-up.
const learnPatience = 5 * time.Second

// learnNames looks up what next brings, so that a name that takes the place of a replica
// is there when that leaves.
func (d *Daemon) learnNames(next *config.Config) {
	hosts := eachNames(d.cfg.Load(), next)
	if len(hosts) == 0 {
		return
	}
	d.names.Follow(hosts)
	ctx, cancel := context.WithTimeout(context.Background(), learnPatience)
	defer cancel()
	d.names.Learn(ctx)
}

// followNames has the fleet follow the names until lbd stops.
func (d *Daemon) followNames() {
	for {
		select {
		case <-d.done:
			return
		case <-d.names.Moves():
			d.applyNames()
		}
	}
}

// applyNames brings addresses that have joined into the fleet, as a reload does with
// replicas, and takes those out that have left: they get no more requests, and what runs
// there ends by itself.
func (d *Daemon) applyNames() {
	d.reload.Lock()
	defer d.reload.Unlock()
	cfg := d.cfg.Load()
	if err := d.configureFleet(cfg); err != nil {
		d.opt.Log.Error().Err(err).Msg("addresses not taken over")
		return
	}
	d.keepDrained()
	d.health.Look()
	d.proxy.SetMaxConnections(d.maxConnections(cfg))
}

// configureFleet makes the fleet what c says. Where an address is another name's now, who
// answers there has to show that it is that one: polls, whose connection is never idle for
// long, connect anew.
func (d *Daemon) configureFleet(c *config.Config) error {
	old := d.fleet.Snapshot()
	if err := d.fleet.Configure(rosterOf(c, d.names.Addresses)); err != nil {
		return err
	}
	for _, r := range d.fleet.Snapshot().Replicas {
		if was := old.Replica(r.ID); was != nil && was.Endpoint.ServerAddr() != r.Endpoint.ServerAddr() {
			d.poller.Renew()
			return nil
		}
	}
	return nil
}

// tellMembers tells who has joined and who has left.
func (d *Daemon) tellMembers(e names.Event) {
	joined, left := without(e.New, e.Old), without(e.Old, e.New)
	d.opt.Log.Info().Str("component", "names").Str("host", e.Host).Stringers("joined", joined).Stringers("left", left).
		Int("addresses", len(e.New)).Msg(e.Kind.String())
}

// without are those of ips that are not among others.
func without(ips, others []netip.Addr) []fmt.Stringer {
	var rest []fmt.Stringer
	for _, ip := range ips {
		if !slices.Contains(others, ip) {
			rest = append(rest, ip)
		}
	}
	return rest
}

// doubt has the name looked up of which a replica is an address that was taken out of
// service: it may have left.
func (d *Daemon) doubt(id string) {
	r := d.fleet.Snapshot().Replica(id)
	if r == nil || r.Endpoint.Name == "" {
		return
	}
	host, _, _ := net.SplitHostPort(r.Endpoint.Name) // as config has joined it
	d.names.Doubt(host)
}
