package config

import (
	"fmt"
	"net"
	"strings"

	"lbd/access/cors"
)

// validate checks what no single value shows. Each error is put at the place of
// the value a user is likeliest to change.
func (l *loader) validate(c *Config) {
	l.validateReplicas(c)
	l.validateListeners(c)
	if _, err := cors.New(c.CORSAllowedOrigins); err != nil && !l.failed["cors_allowed_origins"] {
		l.fail(c.origins["cors_allowed_origins"], "cors_allowed_origins", "%s", err)
	}
	l.validatePriorities(c)
	if err := l.checkStrategy(c.Strategy); err != nil && !l.failed["strategy"] {
		l.fail(c.origins["strategy"], "strategy", "%s", err)
	}
	if c.MaxEjectionTime < c.EjectionTime && !l.failed["max_ejection_time"] && !l.failed["ejection_time"] {
		shortest, longest := formatDuration(c.EjectionTime), formatDuration(c.MaxEjectionTime)
		if later(c, "max_ejection_time", "ejection_time") == "ejection_time" {
			l.fail(c.origins["ejection_time"], "ejection_time", "%q is longer than max_ejection_time %q; want at most that", shortest, longest)
		} else {
			l.fail(c.origins["max_ejection_time"], "max_ejection_time", "%q is shorter than ejection_time %q; want at least that", longest, shortest)
		}
	}
}

// validatePriorities has a client in one class: of two, nobody sees which one counts.
func (l *loader) validatePriorities(c *Config) {
	const key = "admission_priorities"
	seen := map[string]string{}
	for _, p := range c.AdmissionPriorities {
		name, _, _ := strings.Cut(p, "=")
		if before, twice := seen[name]; twice && !l.failed[key] {
			l.fail(c.origins[key], key, "%q stands beside %q; want each client once", p, before)
		}
		seen[name] = p
	}
}

// later returns whichever key comes from the later layer: a default is never what
// is wrong.
func later(c *Config, a, b string) string {
	if c.origins[b].Source > c.origins[a].Source {
		return b
	}
	return a
}

func (l *loader) validateReplicas(c *Config) {
	for _, e := range c.Endpoints {
		if line := l.pinned[id(e)]; line > 0 {
			l.fail(l.listed[id(e)], "endpoints", "%q is also a replica of a model (%s); want each replica in one of the two",
				e.String(), Origin{Source: FromFile, Name: l.file, Line: line}.place())
		}
	}
	if l.failed["endpoints"] || l.failed["models"] || l.failed[fileFailed] || len(c.Endpoints) > 0 {
		return
	}
	if len(l.pinned) == 0 {
		in := ""
		if l.file != "" {
			in = printable(l.file) + ": "
		}
		l.fail(Origin{}, "", "%sno replicas; want --endpoints URL,URL or the variable LBD_ENDPOINTS (or VLLM_ENDPOINTS), or the key endpoints or models in a file given with --config", in)
		return
	}
	for i, m := range c.Models {
		if len(m.Replicas) == 0 {
			l.fail(Origin{FromFile, l.file, l.nameOwn[m.Name]}, fmt.Sprintf("models[%d]", i),
				"has no replicas, and there are no endpoints to learn it from; want at least one {url: http://host:port}")
		}
	}
}

func (l *loader) validateListeners(c *Config) {
	if l.failed["listen"] || l.failed["admin_listen"] || !sameSocket(c.Listen, c.AdminListen) {
		return
	}
	if later(c, "admin_listen", "listen") == "listen" {
		l.fail(c.origins["listen"], "listen", "%q is taken by admin_listen %q; want another port, or admin_listen off", c.Listen, c.AdminListen)
		return
	}
	l.fail(c.origins["admin_listen"], "admin_listen",
		"%q is taken by listen %q; want another port, or empty for no admin listener", c.AdminListen, c.Listen)
}

// sameSocket tells whether two listen addresses would collide. A wildcard host
// collides with every host; port 0 with nothing.
func sameSocket(a, b string) bool {
	hostA, portA, errA := net.SplitHostPort(a)
	hostB, portB, errB := net.SplitHostPort(b)
	if errA != nil || errB != nil || portA != portB || portA == "0" {
		return false
	}
	return hostA == hostB || wildcard(hostA) || wildcard(hostB)
}

func wildcard(host string) bool {
	ip := net.ParseIP(host)
	return host == "" || ip != nil && ip.IsUnspecified()
}
