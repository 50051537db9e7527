package admin

import (
	"net/url"
	"strings"
	"testing"

	"lbd/balancer"
)

func TestReplicaPage(t *testing.T) {
	s := start(t, Options{Fleet: newFleet(t, "http://a:1", "http://b:1/base")})
	for _, path := range []string{"/replicas/b:1/base", "/replicas/b:1%2Fbase", "/replicas/b%3A1%2Fbase"} {
		a := s.get(path)
		if v := decode[replicaView](t, a.body); a.status != 200 || v.ID != "b:1/base" || !v.Available {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	for _, path := range []string{"/replicas/", "/replicas", "/replicas/c:1", "/replicas/a:11", "/replicas/a", "/replicas/c:1/drain"} {
		wantContains(t, wantError(t, s.get(path), 404, "replica_not_found"), "a:1, b:1/base")
	}
	if a := s.do("POST", "/replicas/a:1", ""); a.header.Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: %d, Allow %q", a.status, a.header.Get("Allow"))
	}
}

func TestDrainAndUndrain(t *testing.T) {
	f := newFleet(t, "http://a:1", "http://b:1/base")
	s := start(t, Options{Fleet: f})
	for _, path := range []string{"/replicas/b:1%2Fbase/", "/replicas/b:1/base/"} {
		for range 2 { // again is no error
			a := s.do("POST", path+"drain", "")
			if v := decode[replicaView](t, a.body); a.status != 200 || !v.Draining || v.Available {
				t.Errorf("drain: %d %s", a.status, a.body)
			}
		}
		if m := f.Snapshot().Model([]byte("m")); len(m.Available) != 1 || m.Available[0].ID != "a:1" {
			t.Errorf("available while drained: %v", ids(m.Available))
		}
		a := s.do("POST", path+"undrain", "")
		if v := decode[replicaView](t, a.body); a.status != 200 || v.Draining || !v.Available {
			t.Errorf("undrain: %d %s", a.status, a.body)
		}
	}
	wantContains(t, s.log.String(), `"replica":"b:1/base","message":"operator asked to drain"`, `"operator asked to undrain"`, `"client":"127.0.0.1:`)
}

func TestGetChangesNothing(t *testing.T) {
	f := newFleet(t, "http://a:1")
	reloads := 0
	s := start(t, Options{Fleet: f, Reload: func() (Reloaded, error) { reloads++; return Reloaded{}, nil }})
	for _, path := range []string{"/replicas/a:1/drain", "/replicas/a:1/undrain", "/reload", "/replicas/a:1/sleep", "/fleet/sleep", "/pick"} {
		if path == "/pick" {
			wantError(t, s.get(path), 404, "unknown_path") // no Explain, no page
			continue
		}
		a := s.get(path)
		wantError(t, a, 405, "method_not_allowed")
		if a.header.Get("Allow") != "POST" {
			t.Errorf("%s: Allow %q", path, a.header.Get("Allow"))
		}
	}
	if f.Snapshot().Replicas[0].Draining || reloads > 0 {
		t.Error("a GET changed something")
	}
}

// leaves is a fleet whose replica is gone by the time it is drained.
type leaves struct{ Fleet }

func (leaves) Drain(id string) error { return refusal{code: id} }

func TestDrainOfAReplicaThatJustLeft(t *testing.T) {
	s := start(t, Options{Fleet: leaves{newFleet(t, "http://a:1")}})
	wantError(t, s.do("POST", "/replicas/a:1/drain", ""), 404, "replica_not_found")
}

func snapshotOf(ids ...string) *balancer.Snapshot {
	var states []balancer.ReplicaState
	for _, id := range ids {
		r := balancer.NewReplica(balancer.Endpoint{}, "", 1)
		r.ID = id
		states = append(states, balancer.ReplicaState{Replica: r})
	}
	return balancer.NewSnapshot(1, states, nil)
}

func TestFindReplica(t *testing.T) {
	snap := snapshotOf("h:80", "h:80/v1", "h:8000", "h:80/a%20b", "[::1]:80")
	for _, c := range []struct{ path, id, action string }{
		{"h:80", "h:80", ""},
		{"h:80/", "h:80", ""},
		{"h:8000/sleep", "h:8000", "sleep"},
		{"h:80/sleep", "h:80", "sleep"},
		{"h:80/v1", "h:80/v1", ""},
		{"h:80/v1/sleep", "h:80/v1", "sleep"},
		{"h:80/v1/load_lora_adapter", "h:80", "v1/load_lora_adapter"},
		{"h:80/v1%2Fload_lora_adapter", "h:80", "v1/load_lora_adapter"},
		{"h:80/v1/v1/load_lora_adapter", "h:80/v1", "v1/load_lora_adapter"},
		{"h:80%2Fv1/load_lora_adapter", "h:80/v1", "load_lora_adapter"}, // which is no control path
		{"h%3A80/drain", "h:80", "drain"},
		{"h:80/nonsense", "h:80", "nonsense"},
		{"h:80/a%20b/sleep", "h:80/a%20b", "sleep"},
		{"h:80%2Fa%2520b/sleep", "h:80/a%20b", "sleep"},
		{"[::1]:80/drain", "[::1]:80", "drain"},
		{"%5B::1%5D:80/drain", "[::1]:80", "drain"},
		{"", "", ""}, {"/", "", ""}, {"h", "", ""}, {"h:80x/sleep", "", ""}, {"h:80%2Fv2/sleep", "", "sleep"}, {"h:80%zz", "", ""},
	} {
		r, action := findReplica(snap, c.path)
		id := ""
		if r != nil {
			id = r.ID
		}
		if id != c.id || action != c.action {
			t.Errorf("%q: replica %q, action %q; want %q, %q", c.path, id, action, c.id, c.action)
		}
	}
}

// FuzzFindReplica: whatever is found stands at the beginning of the path, and the
// action is the rest.
func FuzzFindReplica(f *testing.F) {
	for _, seed := range []string{"h:80", "h:80/sleep", "h:80%2Fv1/sleep", "h:80/v1/load_lora_adapter", "%", "h:80/a%20b/x", "//", "h:80/%2e%2e"} {
		f.Add(seed)
	}
	snap := snapshotOf("h:80", "h:80/v1", "h:80/a%20b")
	f.Fuzz(func(t *testing.T, path string) {
		r, action := findReplica(snap, path)
		if r == nil {
			return
		}
		first, tail, _ := strings.Cut(path, "/")
		id, _ := url.PathUnescape(first)
		behind, _ := url.PathUnescape(tail)
		whole, _ := url.PathUnescape(path)
		rest, _ := url.PathUnescape(strings.TrimPrefix(path, r.ID))
		for _, reading := range []string{whole, r.ID + rest, id + "/" + behind} {
			if strings.TrimSuffix(reading, "/") == strings.TrimSuffix(r.ID+"/"+action, "/") {
				return
			}
		}
		t.Errorf("%q was read as replica %q, action %q", path, r.ID, action)
	})
}
