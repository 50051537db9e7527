package certs

import (
	"sync"
	"sync/atomic"
	"time"
)

// state is what Listener and Identity share: files and what was in them.
type state struct {
	files  Files
	loaded atomic.Pointer[loaded]

	mu     sync.Mutex // held by Refresh
	failed *loaded    // what was seen of the files when they last could not be read
}

func newState(f Files) (*state, error) {
	l, err := f.load()
	if err != nil {
		return nil, err
	}
	s := &state{files: f}
	s.loaded.Store(l)
	return s, nil
}

// refresh reads the files if they have changed since they were last tried, and reports
// whether there was something else in them: files are also touched, and copied over. The
// error is told once for each state of the files: a missing file is news, that it
// is still missing is not.
func (s *state) refresh() (changed bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := s.loaded.Load()
	if s.failed != nil {
		seen = s.failed
	}
	if !s.files.changed(seen) {
		return false, nil
	}
	stamps := s.files.stamps()
	l, err := s.files.load()
	if err != nil {
		s.failed = &loaded{stamps: stamps}
		return false, err
	}
	changed = l.sums != s.loaded.Load().sums
	s.failed = nil
	s.loaded.Store(l)
	return changed, nil
}

// NotAfter returns when the certificate in use ends, false if there is none.
func (s *state) NotAfter() (time.Time, bool) { return s.loaded.Load().expiry() }
