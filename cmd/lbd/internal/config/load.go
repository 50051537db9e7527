package config

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/posflag"
	"github.com/knadh/koanf/providers/rawbytes"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/pflag"

	"lbd/balancer"
)

// Options is what Load reads from.
type Options struct {
	// Flags was set up by [Flags] and parsed; nil = no flags.
	Flags *pflag.FlagSet
	// Environ has the form of os.Environ(); nil = no variables.
	Environ []string
	// Strategies are the names that strategy may take; nil = any.
	Strategies []string
	// ReadFile reads the file named by --config or LBD_CONFIG; nil = os.ReadFile.
	ReadFile func(string) ([]byte, error)
}

// Load merges the layers and checks the result. The error is of type [Errors]
// and holds every mistake, values that a later layer would have replaced
// included: a bad file is bad even while a flag hides it.
func Load(o Options) (*Config, error) {
	l := &loader{Options: o, k: koanf.New(koanfDelim), failed: map[string]bool{}, listed: map[string]Origin{}}
	if l.ReadFile == nil {
		l.ReadFile = os.ReadFile
	}
	l.loadDefaults()
	l.loadFile()
	l.loadEnv()
	l.loadFlags()
	c := l.build()
	l.validate(c)
	if len(l.errs) > 0 {
		return nil, l.errs.sorted()
	}
	return c, nil
}

// koanfDelim would nest keys; no key contains it.
const koanfDelim = "/"

// setting is what koanf merges: a parsed value that carries its origin.
type setting struct {
	Value  any
	Origin Origin
}

// loader is one run of Load.
type loader struct {
	Options
	k       *koanf.Koanf
	file    string
	errs    Errors
	failed  map[string]bool   // keys with a value that was refused
	listed  map[string]Origin // where each ID of endpoints stands
	pinned  map[string]int    // line of the first replica with an ID, from models
	nameOwn map[string]int    // line of each model name and alias
}

// must is for koanf providers that have no way to fail.
func must(err error) {
	if err != nil {
		panic("BUG: koanf: " + err.Error())
	}
}

func (l *loader) loadDefaults() {
	layer := map[string]any{}
	for _, k := range keys {
		value, ok := l.read(k, k.def, Origin{})
		if !ok {
			panic("BUG: default of " + k.name + ": " + l.errs.Error())
		}
		layer[k.name] = setting{value, Origin{}}
	}
	must(l.k.Load(confmap.Provider(layer, ""), nil))
}

// read turns the text of a value into a value, or notes what is wrong with it.
func (l *loader) read(k *key, text string, o Origin) (any, bool) {
	text = strings.TrimSpace(text)
	switch k.field(&blank).(type) {
	case *[]Model:
		return []Model(nil), true
	case *[]balancer.Endpoint:
		var parts []located
		for part := range strings.SplitSeq(text, ",") {
			if part = strings.TrimSpace(part); part != "" {
				parts = append(parts, located{part, o})
			}
		}
		return l.readEndpoints(k, parts)
	case *[]string:
		return l.readList(k, text, o)
	}
	value, err := k.parse(text)
	if err == nil && k.name == "strategy" && o.Source != FromDefault {
		err = l.checkStrategy(text)
	}
	if err != nil {
		l.failKey(k, o, "%s", err)
		return nil, false
	}
	return value, true
}

func (l *loader) failKey(k *key, o Origin, format string, args ...any) {
	l.failed[k.name] = true
	l.fail(o, k.name, format, args...)
}

func (l *loader) checkStrategy(name string) error {
	if l.Strategies == nil || slices.Contains(l.Strategies, name) {
		return nil
	}
	return oneOfError(name, l.Strategies)
}

// located is one element of a list and where it stands.
type located struct {
	text string
	at   Origin
}

func (l *loader) readEndpoints(k *key, parts []located) (any, bool) {
	endpoints, ok := []balancer.Endpoint(nil), true
	seen := map[string]bool{}
	for _, p := range parts {
		e, err := parseEndpoint(p.text)
		switch {
		case err != nil:
			l.failKey(k, p.at, "%s", err)
			ok = false
		case seen[id(e)]:
			l.failKey(k, p.at, "%q is listed twice; want each replica once", p.text)
			ok = false
		default:
			seen[id(e)] = true
			l.listed[id(e)] = p.at
			endpoints = append(endpoints, e)
		}
	}
	return endpoints, ok
}

// readList reads a list with commas between its elements.
func (l *loader) readList(k *key, text string, o Origin) (any, bool) {
	var parts []located
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part != "" {
			parts = append(parts, located{part, o})
		}
	}
	return l.checkList(k, parts)
}

func (l *loader) checkList(k *key, parts []located) (any, bool) {
	list, ok := []string(nil), true
	for _, p := range parts {
		text, err := k.check(p.text)
		if err != nil {
			l.failKey(k, p.at, "%s", err)
			ok = false
		}
		list = append(list, text)
	}
	return list, ok
}

// loadFile reads the file that the flag or else the variable names.
func (l *loader) loadFile() {
	path, from := l.filePath()
	if path == "" {
		if from.Source == FromFlag {
			l.fail(from, "", `"" is not a path; want the path of a YAML file`)
		}
		return
	}
	data, err := l.ReadFile(path)
	if err != nil {
		l.failed[fileFailed] = true
		l.fail(from, "", "cannot read the configuration: %s", err)
		return
	}
	l.file = path
	// fileParser notes its own errors, with lines, and returns none.
	must(l.k.Load(rawbytes.Provider(data), &fileParser{l}))
}

func (l *loader) filePath() (string, Origin) {
	if l.Flags != nil {
		if f := l.Flags.Lookup(configFlag); f != nil && f.Changed {
			return f.Value.String(), Origin{Source: FromFlag, Name: configFlag}
		}
	}
	return strings.TrimSpace(lookup(l.Environ, configEnv)), Origin{Source: FromEnv, Name: configEnv}
}

// lookup finds a variable; the last one wins, as in exec.Cmd.
func lookup(environ []string, name string) string {
	for _, pair := range slices.Backward(environ) {
		if value, ok := strings.CutPrefix(pair, name+"="); ok {
			return value
		}
	}
	return ""
}

func (l *loader) loadEnv() {
	must(l.k.Load(env.Provider("", env.Opt{TransformFunc: l.envSetting, EnvironFunc: func() []string { return l.Environ }}), nil))
}

// serviceLink matches what Kubernetes (enableServiceLinks) and docker --link put
// into the environment of every container beside a service called lbd or
// lbd-something: LBD_SERVICE_HOST, LBD_PORT=tcp://..., LBD_PORT_8080_TCP_ADDR.
// https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
var serviceLink = regexp.MustCompile(`^LBD_([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$`)

// envSetting maps one variable; koanf leaves out what is mapped to "". An empty
// variable counts as unset: compose files pass on variables that nobody set.
func (l *loader) envSetting(name, text string) (string, any) {
	k := l.envKey(name)
	if k == nil || strings.TrimSpace(text) == "" {
		return "", nil
	}
	o := Origin{Source: FromEnv, Name: name}
	value, ok := l.read(k, text, o)
	if !ok {
		return "", nil
	}
	return k.name, setting{value, o}
}

// envKey returns the key that a variable sets. An unknown LBD_ variable is an
// error even when it is empty, because it is a mistake all the same.
func (l *loader) envKey(name string) *key {
	known := []string{configFlag}
	for _, k := range keys {
		if !k.scalar() {
			continue
		}
		if name == k.env() {
			return k
		}
		if name == k.alias && k.alias != "" {
			if strings.TrimSpace(lookup(l.Environ, k.env())) != "" {
				return nil // the plain name may be meant for another program
			}
			return k
		}
		known = append(known, k.name)
	}
	rest, ours := strings.CutPrefix(name, envPrefix)
	if !ours || name == configEnv || serviceLink.MatchString(name) {
		return nil
	}
	hint := ""
	if near := Nearest(rest, known); near != "" {
		hint = "; did you mean " + envPrefix + strings.ToUpper(near) + "?"
	}
	l.fail(Origin{Source: FromEnv, Name: name}, "", "unknown variable%s", hint)
	return nil
}

func (l *loader) loadFlags() {
	if l.Flags == nil {
		return
	}
	byFlag := map[string]*key{}
	for _, k := range keys {
		byFlag[k.flag()] = k
	}
	must(l.k.Load(posflag.ProviderWithFlag(l.Flags, koanfDelim, nil, func(f *pflag.Flag) (string, any) {
		k := byFlag[f.Name]
		if k == nil || !f.Changed || !k.scalar() {
			return "", nil
		}
		o := Origin{Source: FromFlag, Name: f.Name}
		value, ok := l.read(k, f.Value.String(), o)
		if !ok {
			return "", nil
		}
		return k.name, setting{value, o}
	}), nil))
}

// build copies the merged settings into a Config.
func (l *loader) build() *Config {
	c := &Config{File: l.file, origins: map[string]Origin{}}
	for _, k := range keys {
		s := l.k.Get(k.name).(setting)
		c.origins[k.name] = s.Origin
		setField(k, c, s.Value)
	}
	if c.MetricsPollTimeout == 0 {
		// Half a poll is worth nothing and vLLM answers slowly while it is
		// busy, so a short interval does not shorten the wait.
		c.MetricsPollTimeout = max(time.Second, c.MetricsPollInterval)
	}
	for i := range c.Models {
		if c.Models[i].Strategy == "" {
			c.Models[i].Strategy = c.Strategy
		}
	}
	return c
}

// setField stores a value that read returned for the same key.
func setField(k *key, c *Config, value any) {
	if value != nil {
		reflect.ValueOf(k.field(c)).Elem().Set(reflect.ValueOf(value))
	}
}
