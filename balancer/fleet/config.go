package fleet

import (
	"fmt"
	"net/netip"
	"slices"

	"lbd/balancer"
)

// Config says what the fleet is made of.
type Config struct {
	Replicas []ReplicaConfig
	Models   []ModelConfig
	// Strategy is used for every model that names none.
	Strategy string
	// Awaited are the names of which nobody knows yet what replicas they stand for.
	// Until they do, lbd is not ready and the fleet not settled.
	Awaited []string
	// Unresolved are the names without a known address, those that are awaited among
	// them: somebody who is not there yet may serve under them.
	Unresolved []string
}

// ReplicaConfig is one replica.
type ReplicaConfig struct {
	// URL is the endpoint, http://host:port with an optional path prefix.
	URL string
	// Of is the endpoint of which URL's host is one address, if it is; see
	// balancer.Endpoint.Member. Empty otherwise.
	Of string
	// Device names the accelerator; replicas with the same one share it.
	Device string
	// Weight is the relative capacity; below 1 counts as 1.
	Weight int
	// CacheTokens is balancer.Replica.CacheTokens.
	CacheTokens int64
}

// ModelConfig is what is known of a model beforehand.
type ModelConfig struct {
	// Name is what replicas call the model.
	Name string
	// Aliases are further names for clients.
	Aliases []string
	// Strategy replaces the fleet's; empty means the fleet's.
	Strategy string
	// Replicas are the URLs of those that serve the model. Empty means that the
	// model is discovered and only its aliases and strategy are set here.
	Replicas []string
}

// plan is a checked configuration.
type plan struct {
	replicas []planned
	models   []ModelConfig
	byName   map[string]*ModelConfig
	strategy string
	awaited  []string

	unresolved []string
}

type planned struct {
	id       string
	endpoint balancer.Endpoint
	device   string
	weight   int
	cache    int64
	pinned   []string // model names, in the order of the configuration
}

func (p *plan) strategyOf(model string) string {
	if m := p.byName[model]; m != nil && m.Strategy != "" {
		return m.Strategy
	}
	return p.strategy
}

func newPlan(c Config) (*plan, error) {
	p := &plan{
		models: slices.Clone(c.Models), byName: make(map[string]*ModelConfig), strategy: c.Strategy,
		awaited: slices.Clone(c.Awaited), unresolved: slices.Clone(c.Unresolved),
	}
	for _, rc := range c.Replicas {
		if err := p.addReplica(rc); err != nil {
			return nil, err
		}
	}
	for i := range p.models {
		if err := p.addModel(&p.models[i]); err != nil {
			return nil, err
		}
	}
	return p, p.checkAliases()
}

// addReplica takes the same replica twice, as two models may both name it, but
// not with two descriptions.
func (p *plan) addReplica(rc ReplicaConfig) error {
	e, err := rc.endpoint()
	if err != nil {
		return err
	}
	n := planned{id: replicaID(e), endpoint: e, device: rc.Device, weight: max(rc.Weight, 1), cache: max(rc.CacheTokens, 0)}
	if old := p.find(n.id); old != nil {
		if old.device != n.device || old.weight != n.weight {
			return fmt.Errorf("replica %q is listed with device %q, weight %d and with device %q, weight %d; want one of them",
				rc.URL, old.device, old.weight, n.device, n.weight)
		}
		if old.cache != n.cache {
			return fmt.Errorf("replica %q is listed with %d cache tokens and with %d; want one of them", rc.URL, old.cache, n.cache)
		}
		return nil
	}
	p.replicas = append(p.replicas, n)
	return nil
}

func (rc *ReplicaConfig) endpoint() (balancer.Endpoint, error) {
	e, err := balancer.ParseEndpoint(rc.URL)
	if err == nil && e.Each {
		err = fmt.Errorf("endpoint %q is many replicas; want the address of one", rc.URL)
	}
	if err != nil || rc.Of == "" {
		return e, err
	}
	of, err := balancer.ParseEndpoint(rc.Of)
	if err != nil {
		return e, err
	}
	ip, err := netip.ParseAddrPort(e.Addr)
	if err != nil || !of.Each || of.Member(ip.Addr()).String() != e.String() {
		return e, fmt.Errorf("replica %q is no address of %q", rc.URL, rc.Of)
	}
	return of.Member(ip.Addr()), nil
}

func (p *plan) addModel(m *ModelConfig) error {
	if m.Name == "" {
		return fmt.Errorf("model with aliases %q has no name; want the name its replicas use", m.Aliases)
	}
	if p.byName[m.Name] != nil {
		return fmt.Errorf("model %q is listed twice; want one entry with all its replicas", m.Name)
	}
	p.byName[m.Name] = m
	for _, raw := range m.Replicas {
		e, err := balancer.ParseEndpoint(raw)
		if err != nil {
			return fmt.Errorf("model %q: %w", m.Name, err)
		}
		n := p.find(replicaID(e))
		if n == nil {
			return fmt.Errorf("model %q names replica %q, which is not in the fleet", m.Name, raw)
		}
		if !slices.Contains(n.pinned, m.Name) {
			n.pinned = append(n.pinned, m.Name)
		}
	}
	return nil
}

func (p *plan) checkAliases() error {
	owner := make(map[string]string)
	for _, m := range p.models {
		for _, a := range m.Aliases {
			switch other, taken := owner[a]; {
			case a == "":
				return fmt.Errorf("model %q has an empty alias", m.Name)
			case p.byName[a] != nil:
				return fmt.Errorf("alias %q of model %q is the name of a model", a, m.Name)
			case taken && other != m.Name:
				return fmt.Errorf("alias %q stands for model %q and model %q; want one", a, other, m.Name)
			}
			owner[a] = m.Name
		}
	}
	return nil
}

func (p *plan) find(id string) *planned {
	i := slices.IndexFunc(p.replicas, func(n planned) bool { return n.id == id })
	if i < 0 {
		return nil
	}
	return &p.replicas[i]
}

// replicaID asks balancer, which defines it.
func replicaID(e balancer.Endpoint) string { return balancer.NewReplica(e, "", 1).ID }
