package poll

import (
	"errors"
	"testing"
	"time"
)

// Silence is told once and a refusal after it once more, since only a refusal needs
// somebody to do something; neither is told again before a good answer.
func TestRefusalIsToldAfterSilence(t *testing.T) {
	run(t, Config{ModelsInterval: 2 * time.Second}, func(b *bench) {
		b.fetch.change("a:1", func(s *fakeReplica) { s.err = errors.New("refused") })
		b.sleep(10 * time.Second)
		b.wantEvents("a:1 load stale", "a:1 models failed", "a:1 poll failed")
		b.fetch.change("a:1", func(s *fakeReplica) { s.err, s.status = nil, 503 })
		b.sleep(10 * time.Second)
		b.wantEvents()
		b.fetch.change("a:1", func(s *fakeReplica) { s.status = 401 })
		b.sleep(10 * time.Second)
		b.wantEvents("a:1 poll failed", "a:1 models failed")
		b.fetch.change("a:1", func(s *fakeReplica) { s.err = errors.New("refused") })
		b.sleep(10 * time.Second)
		b.fetch.change("a:1", func(s *fakeReplica) { s.err = nil })
		b.sleep(10 * time.Second)
		b.wantEvents()
	})
}

func TestFailingNews(t *testing.T) {
	silence, no := errors.New("refused"), refusal{errors.New("status 401")}
	f := answering
	for i, step := range []struct {
		err  error
		news bool
	}{
		{nil, false}, {silence, true}, {silence, false}, {no, true}, {no, false}, {silence, false}, {no, false},
		{nil, false}, {no, true}, {nil, false}, {silence, true},
	} {
		if got := f.news(step.err); got != step.news {
			t.Errorf("step %d, %v: news %t; want %t", i, step.err, got, step.news)
		}
	}
}
