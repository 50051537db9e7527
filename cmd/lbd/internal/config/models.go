package config

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"
)

var (
	modelKeys   = []string{"name", "aliases", "strategy", "cache_tokens", "replicas"}
	replicaKeys = []string{
		"url", "device", "weight", "cache_tokens",
		"api_key_file", "api_key_env", "tls_ca_file", "tls_cert_file", "tls_key_file", "tls_server_name", "tls_insecure_skip_verify",
	}
)

// These have the parser and the range of a table row. A billion tokens are far more
// than any replica keeps; what keeps none runs without prefix caching, and its
// metrics say so.
var (
	weightKey      = &key{name: "weight", min: 1, max: 1_000_000}
	cacheTokensKey = &key{name: "cache_tokens", min: 1, max: 1_000_000_000}
)

// models reads the key models. What it returns is of use only if nothing was
// noted.
func (l *loader) models(n *yaml.Node) []Model {
	l.pinned, l.nameOwn = map[string]int{}, map[string]int{}
	hardware := map[string]Replica{}
	var models []Model
	l.sequence(n, "models", func(path string, item *yaml.Node) {
		models = append(models, l.model(item, path, hardware))
	})
	return models
}

func (l *loader) model(n *yaml.Node, path string, hardware map[string]Replica) Model {
	var (
		m        Model
		replicas *yaml.Node
		at       string
	)
	given := map[string]bool{}
	ok := l.mapping(n, path, modelKeys, func(name string, _, v *yaml.Node) {
		given[name] = true
		path := path + "." + name
		switch name {
		case "name":
			m.Name = l.modelName(v, path)
		case "aliases":
			m.Aliases = l.aliases(v, path)
		case "strategy":
			m.Strategy = l.modelStrategy(v, path)
		case "cache_tokens":
			m.CacheTokens = l.cacheTokens(v, path)
		case "replicas":
			replicas, at = v, path
		}
	})
	if replicas != nil { // behind the other keys, which it takes defaults from
		m.Replicas = l.replicas(replicas, at, m.CacheTokens, hardware)
	}
	if ok && !given["name"] {
		l.fail(l.at(n), path, "has no name; want the model as clients name it")
	}
	return m
}

// modelName reads a name that no other model or alias has: a request names one
// model.
func (l *loader) modelName(n *yaml.Node, path string) string {
	name, ok := l.scalar(n, path, false)
	if !ok {
		return ""
	}
	if name == "" || strings.ContainsFunc(name, unicode.IsControl) {
		l.fail(l.at(n), path, "%q is not a model name; want the model as clients name it", name)
		return ""
	}
	if line := l.nameOwn[name]; line > 0 {
		l.fail(l.at(n), path, "%q is already a model or an alias in line %d; want each name once", name, line)
		return ""
	}
	l.nameOwn[name] = n.Line
	return name
}

func (l *loader) aliases(n *yaml.Node, path string) []string {
	var aliases []string
	if isNull(n) {
		return nil
	}
	l.sequence(n, path, func(path string, item *yaml.Node) {
		aliases = append(aliases, l.modelName(item, path))
	})
	return aliases
}

func (l *loader) modelStrategy(n *yaml.Node, path string) string {
	name, ok := l.scalar(n, path, false)
	if !ok {
		return ""
	}
	err := l.checkStrategy(name)
	switch {
	case err != nil:
		l.fail(l.at(n), path, "%s", err)
	case name == "":
		l.fail(l.at(n), path, `"" is no strategy; want its name, or leave the key out for the strategy of all models`)
	}
	return name
}

func (l *loader) cacheTokens(n *yaml.Node, path string) int {
	text, ok := l.scalar(n, path, false)
	if !ok {
		return 0
	}
	tokens, err := cacheTokensKey.parseInt(text)
	if err != nil {
		l.fail(l.at(n), path, "%s", err)
	}
	return tokens
}

func (l *loader) replicas(n *yaml.Node, path string, cacheTokens int, hardware map[string]Replica) []Replica {
	if n.Kind == yaml.SequenceNode && len(n.Content) == 0 || isNull(n) {
		l.fail(l.at(n), path, "is empty; want at least one {url: http://host:port}")
		return nil
	}
	var replicas []Replica
	seen := map[string]int{}
	l.sequence(n, path, func(path string, item *yaml.Node) {
		r, ok := l.replica(item, path, cacheTokens)
		if !ok {
			return
		}
		key := id(r.Endpoint)
		// One vLLM server may serve several models (LoRA adapters), but it is
		// one piece of hardware.
		before, known := hardware[key]
		switch line, twice := seen[key]; {
		case twice:
			l.fail(l.at(item), path, "%q is already a replica of this model in line %d; want each once", r.Endpoint.String(), line)
		case known && (before.Device != r.Device || before.Weight != r.Weight):
			l.fail(l.at(item), path, "%q has device %q and weight %d here, but device %q and weight %d in line %d; want the same",
				r.Endpoint.String(), r.Device, r.Weight, before.Device, before.Weight, l.pinned[key])
		case known && before.CacheTokens != r.CacheTokens:
			l.fail(l.at(item), path, "%q has cache_tokens %d here, but %d in line %d; want the same",
				r.Endpoint.String(), r.CacheTokens, before.CacheTokens, l.pinned[key])
		case known && before.Endpoint.Each != r.Endpoint.Each:
			l.fail(l.at(item), path, "%q is %q in line %d; want the same", r.Endpoint.String(), before.Endpoint.String(), l.pinned[key])
		case known && (before.Access != r.Access || before.Endpoint.TLS != r.Endpoint.TLS):
			l.fail(l.at(item), path, "%q has another key or TLS here than in line %d; want the same", r.Endpoint.String(), l.pinned[key])
		default:
			seen[key], hardware[key] = item.Line, r
			if l.pinned[key] == 0 {
				l.pinned[key] = item.Line
			}
			replicas = append(replicas, r)
		}
	})
	return replicas
}

func (l *loader) replica(n *yaml.Node, path string, cacheTokens int) (Replica, bool) {
	before := len(l.errs)
	r := Replica{Weight: 1, CacheTokens: cacheTokens}
	hasURL := false
	ok := l.mapping(n, path, replicaKeys, func(name string, _, v *yaml.Node) {
		path := path + "." + name
		hasURL = hasURL || name == "url"
		text, ok := l.scalar(v, path, false)
		if !ok {
			return
		}
		var err error
		switch name {
		case "url":
			r.Endpoint, err = parseEndpoint(strings.TrimSpace(text))
		case "device":
			r.Device = text
		case "weight":
			r.Weight, err = weightKey.parseInt(text)
		case "cache_tokens":
			r.CacheTokens, err = cacheTokensKey.parseInt(text)
		default:
			err = l.replicaAccess(&r.Access, name, text)
		}
		if err != nil {
			l.fail(l.at(v), path, "%s", err)
		}
	})
	if ok && !hasURL {
		l.fail(l.at(n), path, "has no url; want http://host:port[/prefix]")
	}
	return r, len(l.errs) == before
}

// replicaAccess sets what one replica is shown instead of what all are.
func (l *loader) replicaAccess(a *ReplicaAccess, name, text string) error {
	switch name {
	case "api_key_file":
		a.APIKeyFile = text
	case "api_key_env":
		a.APIKeyEnv = text
		value := strings.TrimSpace(lookup(l.Environ, text))
		if value == "" {
			return fmt.Errorf("the variable %q is not set; want it to hold the key of this replica", text)
		}
		secret, err := parseSecret(value)
		if err != nil {
			return fmt.Errorf("the variable %q %w", text, err)
		}
		a.APIKey = secret
	case "tls_ca_file":
		a.TLSCAFile = text
	case "tls_cert_file":
		a.TLSCertFile = text
	case "tls_key_file":
		a.TLSKeyFile = text
	case "tls_server_name":
		a.TLSServerName = text
	case "tls_insecure_skip_verify":
		skip, err := parseBool(text)
		a.TLSSkipVerify = strconv.FormatBool(skip)
		return err
	}
	return nil
}
