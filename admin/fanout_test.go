package admin

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"lbd/balancer"
	"lbd/balancer/fleet"
)

func fanOutOf(t *testing.T, a answer) []result {
	t.Helper()
	return decode[fanOutView](t, a.body).Results
}

var anyDuration = cmpopts.IgnoreFields(result{}, "DurationMS")

func TestFanOut(t *testing.T) {
	json, jsonID := newReplica(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		fmt.Fprintf(w, `{"query":%q}`, r.URL.RawQuery)
	})
	text, textID := newReplica(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "Success: {}") })
	f := newFleet(t, json, text)
	f.SetHealth(jsonID, balancer.Health{State: balancer.Ejected}) // who sleeps must be woken all the same
	s := start(t, Options{Fleet: f})
	a := s.do("POST", "/fleet/v1/load_lora_adapter?x=%31&model=m&y", `{}`)
	want := []result{
		{Replica: jsonID, Status: new(200), Body: map[string]any{"query": "x=%31&y"}},
		{Replica: textID, Status: new(200), Body: "Success: {}"},
	}
	if diff := cmp.Diff(want, fanOutOf(t, a), anyDuration); diff != "" || a.status != 200 {
		t.Errorf("status %d\n%s", a.status, diff)
	}
	wantContains(t, s.log.String(), `"path":"/v1/load_lora_adapter","replicas":["`+jsonID+`","`+textID+`"],"statuses":[200,200]`)
}

// One that fails makes the whole call fail, and says why; the others are called
// all the same.
func TestFanOutWithFailures(t *testing.T) {
	good, goodID := newReplica(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(204) })
	bad, badID := newReplica(t, func(w http.ResponseWriter, r *http.Request) { http.Error(w, "no such adapter", 404) })
	cut, cutID := newReplica(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100")
		fmt.Fprint(w, "half")
	})
	dead := deadURL
	s := start(t, Options{Fleet: newFleet(t, dead, good, bad, cut)})
	a := s.do("POST", "/fleet/wake_up", "")
	rs := fanOutOf(t, a)
	if a.status != 502 || len(rs) != 4 {
		t.Fatalf("answer %d %s", a.status, a.body)
	}
	wantContains(t, rs[0].Error, "connection refused")
	rs[0].Error = ""
	want := []result{
		{Replica: deadID},
		{Replica: goodID, Status: new(204), Body: ""},
		{Replica: badID, Status: new(404), Body: "no such adapter\n"},
		{Replica: cutID, Status: new(200), Error: "unexpected EOF"},
	}
	if diff := cmp.Diff(want, rs, anyDuration); diff != "" {
		t.Error(diff)
	}
	wantContains(t, s.log.String(), `"statuses":[0,204,404,200]`)
}

func TestFanOutToTheReplicasOfAModel(t *testing.T) {
	answer := func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") }
	a, aID := newReplica(t, answer)
	b, bID := newReplica(t, answer)
	c, cID := newReplica(t, answer)
	f := configured(t, fleet.Config{Strategy: "first", Models: []fleet.ModelConfig{
		{Name: "org/one", Aliases: []string{"uno"}, Replicas: []string{c, a}}, {Name: "two", Replicas: []string{b}}, {Name: "none"},
	}}, a, b, c)
	s := start(t, Options{Fleet: f})
	for query, want := range map[string]string{
		"": aID + " " + bID + " " + cID, "?model=org/one": aID + " " + cID, "?model=org%2Fone&level=1": aID + " " + cID, "?model=uno": aID + " " + cID,
		"?model=two": bID, "?model=two&model=uno": aID + " " + bID + " " + cID,
	} {
		var got []string
		for _, r := range fanOutOf(t, s.do("POST", "/fleet/sleep"+query, "")) {
			got = append(got, r.Replica)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %v; want %s", query, got, want)
		}
	}
	wantContains(t, wantError(t, s.do("POST", "/fleet/sleep?model=three", ""), 404, "model_not_found"), `"three"`, "none, org/one, two")
	wantError(t, s.do("POST", "/fleet/sleep?model=none", ""), 503, "no_replica")
}

// Eight at a time: enough not to wait for each, few enough not to put the whole
// fleet to loading at once.
func TestFanOutIsParallelAndBounded(t *testing.T) {
	var now, most atomic.Int64
	full := make(chan struct{})
	var once sync.Once // the last call may be one of so many again
	base, _ := newReplica(t, func(w http.ResponseWriter, r *http.Request) {
		n := now.Add(1)
		defer now.Add(-1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		if n == parallelCalls {
			once.Do(func() { close(full) })
		}
		select {
		case <-full:
		case <-time.After(20 * time.Second): // fewer at a time than wanted: the check below fails
		}
		fmt.Fprint(w, r.URL.Path)
	})
	var urls []string
	for i := range parallelCalls + 1 {
		urls = append(urls, base+"/r"+strconv.Itoa(i))
	}
	s := start(t, Options{Fleet: newFleet(t, urls...)})
	for i, r := range fanOutOf(t, s.do("POST", "/fleet/sleep", "")) {
		if r.Body != fmt.Sprintf("/r%d/sleep", i) || !strings.HasSuffix(r.Replica, fmt.Sprintf("/r%d", i)) {
			t.Errorf("result %d: %+v", i, r)
		}
	}
	if most.Load() != parallelCalls {
		t.Errorf("%d calls at a time; want %d", most.Load(), parallelCalls)
	}
}

func TestLargeAnswersAreCut(t *testing.T) {
	big, _ := newReplica(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `"`, strings.Repeat("x", maxResultBody), `"`)
	})
	s := start(t, Options{Fleet: newFleet(t, big)})
	r := fanOutOf(t, s.get("/fleet/metrics"))[0]
	if text, _ := r.Body.(string); len(text) != maxResultBody || !r.Truncated {
		t.Errorf("%d bytes, truncated %v", len(text), r.Truncated)
	}
}

func TestJSONInNameOnlyIsText(t *testing.T) {
	if got := resultBody("application/json", []byte("{oops")); got != "{oops" {
		t.Errorf("%#v", got)
	}
	if got := resultBody("", []byte("{}")); got != "{}" {
		t.Errorf("%#v", got)
	}
}

func TestCutModels(t *testing.T) {
	for query, want := range map[string]struct {
		rest   string
		models []string
	}{
		"":                           {"", nil},
		"model=a":                    {"", []string{"a"}},
		"x=1&model=a+b&&y=%31&model": {"x=1&y=%31", []string{"a b", ""}},
		"models=a&xmodel=b":          {"models=a&xmodel=b", nil},
		"model=%zz&tags=w":           {"model=%zz&tags=w", nil},
	} {
		rest, models := cutModels(query)
		if rest != want.rest || !cmp.Equal(models, want.models) {
			t.Errorf("%q: %q %q; want %q %q", query, rest, models, want.rest, want.models)
		}
	}
}

// FuzzCutModels: the models are those a query parser sees, and nothing else is
// lost or changed.
func FuzzCutModels(f *testing.F) {
	for _, seed := range []string{"", "model=a", "x=1&model=a%20b&y", "model=%zz", "&&model", "a;b=c"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, query string) {
		rest, models := cutModels(query)
		if again, left := cutModels(rest); again != rest || len(left) > 0 {
			t.Errorf("%q left %q, of which %q remains to be cut", query, rest, left)
		}
		if strings.Contains(query, ";") {
			return // net/url refuses those, replicas may not
		}
		all, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		kept, err := url.ParseQuery(rest)
		if err != nil {
			t.Fatalf("%q was cut to %q: %v", query, rest, err)
		}
		for key, values := range all {
			if key != "model" && !cmp.Equal(kept[key], values) {
				t.Errorf("%q: %q became %q", query, values, kept[key])
			}
		}
		if got := append(kept["model"], models...); !cmp.Equal(len(got), len(all["model"])) {
			t.Errorf("%q: models %q; want %q", query, got, all["model"])
		}
	})
}
