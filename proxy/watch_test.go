package proxy

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"lbd/metrics"
)

// The answer to a request that is sent again is looked at as what it is, and not as what the
// first one was.
func TestEachAnswerIsReadAsWhatItIs(t *testing.T) {
	x := &exchange{cfg: &Config{}, model: metrics.New(prometheus.NewRegistry(), "test").Model("m")}
	for _, json := range []bool{true, false, true} {
		x.answer.JSON = json
		if x.watch(); (x.stream.Sniff != nil) != json {
			t.Errorf("an answer in JSON: %t, read for its usage: %t", json, !json)
		}
	}
}
