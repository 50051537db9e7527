package load

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestTimeline(t *testing.T) {
	s := time.Second
	recs := []Record{
		{Replica: "a", Sent: 500 * time.Millisecond, FirstContent: s, LastContent: 3 * s, End: 3 * s, Events: 9, OutputTokens: 10},
		{Replica: "a", Sent: s, FirstContent: 2 * s, LastContent: 2 * s, End: 2 * s, Events: 1, OutputTokens: 4},
		{Replica: "", Dispatched: 200 * s, End: 200 * s, Cause: CauseConnect},
	}
	got := newTimeline(recs)
	if got.Step != 1000 || len(got.Replicas) != 2 || len(got.Replicas["a"].InFlight) != 201 {
		t.Fatalf("step %v, %d replicas", got.Step, len(got.Replicas))
	}
	a := got.Replicas["a"]
	want := &Series{InFlight: []float64{.5, 2, 1, 0}, Started: []int{1, 1, 0, 0}, Ended: []int{0, 0, 1, 1}, OutputTokens: []float64{0, 5, 9, 0}}
	if diff := cmp.Diff(want, &Series{a.InFlight[:4], a.Started[:4], a.Ended[:4], a.OutputTokens[:4]}); diff != "" {
		t.Error(diff)
	}
	if none := got.Replicas[""]; none.Started[200] != 1 || none.Ended[200] != 1 || none.InFlight[200] != 0 {
		t.Errorf("%+v", none)
	}
	if newTimeline(nil) != nil {
		t.Error("a timeline of nothing")
	}
}

func TestStepOf(t *testing.T) {
	for length, want := range map[time.Duration]time.Duration{
		0: 10 * time.Millisecond, 2 * time.Second: 10 * time.Millisecond, time.Minute: 500 * time.Millisecond, time.Hour: 20 * time.Second,
	} {
		if got := stepOf(length); got != want {
			t.Errorf("step of %v is %v, want %v", length, got, want)
		}
	}
}

const exposition = `# HELP lbd_replica_requests_waiting x
lbd_replica_requests_waiting{replica="http://a:1"} 3
lbd_replica_requests_running{replica="http://a:1"} 2 1700000000000
lbd_inflight_requests{model="m,\"}",replica="http://a:1"} 4
lbd_inflight_requests{model="n",replica="http://a:1"} 5
lbd_replica_kv_cache_usage{replica="http://b:1"} 0.25
lbd_build_info{version="x"} 1
lbd_replica_requests_waiting{replica="broken"
other{replica="c"} 1
`

func TestSampledAddsReadings(t *testing.T) {
	v := func(f float64) *float64 { return &f }
	s := Sampled{Replicas: map[string]*SampledLoad{}}
	s.add(0, parseGauges([]byte("lbd_replica_requests_waiting{replica=\"http://a:1\"} 1\n")))
	s.add(1500*time.Millisecond, parseGauges([]byte(exposition)))
	want := Sampled{At: []float64{0, 1500}, Replicas: map[string]*SampledLoad{
		"http://a:1": {Waiting: []*float64{v(1), v(3)}, Running: []*float64{nil, v(2)}, KVCache: []*float64{nil, nil}, InFlight: []*float64{nil, v(9)}},
		"http://b:1": {Waiting: []*float64{nil, nil}, Running: []*float64{nil, nil}, KVCache: []*float64{nil, v(.25)}, InFlight: []*float64{nil, nil}},
	}}
	if diff := cmp.Diff(want, s); diff != "" {
		t.Error(diff)
	}
}

func TestRunSamplesLbd(t *testing.T) {
	read := make(chan struct{}, 9)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Path != "/metrics" {
			<-read
			<-read // the next reading: the first has been taken in
			w.WriteHeader(http.StatusTeapot)
			return
		}
		io.WriteString(w, exposition)
		read <- struct{}{}
	}))
	defer s.Close()
	url, ok := IsLbd(t.Context(), s.URL+"/v1")
	<-read
	if !ok || url != s.URL+"/metrics" {
		t.Fatalf("%q, %v", url, ok)
	}
	res, err := Run(t.Context(), Options{Target: s.URL, Requests: every(1, 0), MetricsURL: url})
	if err != nil {
		t.Fatal(err)
	}
	if got := res.Timeline.Sampled; got == nil || got.Source != url || len(got.At) < 1 || len(got.Replicas) != 2 || got.Failures != 0 {
		t.Errorf("%+v", got)
	}
	if _, ok := IsLbd(t.Context(), "http://127.0.0.1:1"); ok {
		t.Error("nothing there is lbd")
	}
}

func FuzzParseGauges(f *testing.F) {
	f.Add([]byte(exposition))
	f.Add([]byte(`lbd_inflight_requests{replica=` + "`x`" + `} NaN`))
	f.Fuzz(func(t *testing.T, text []byte) {
		for replica, values := range parseGauges(text) {
			if len(values) != len(sampledMetrics) {
				t.Errorf("%q has %d values", replica, len(values))
			}
		}
	})
}
