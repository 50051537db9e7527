package demo

import (
	"fmt"
	"io"
	"strings"
	"sync"
)

// screen is a terminal with one picture at its end that is drawn over. What the
// two lbds log meanwhile goes above the picture: between its lines it would shift
// the next one down and leave the head of the last standing.
type screen struct {
	out, log io.Writer
	// terminal says that out is one; else pictures follow each other.
	terminal bool
	// shared says that the log goes to a terminal as well.
	shared bool

	mu      sync.Mutex
	picture string // on the terminal now
}

func newScreen(out, log io.Writer) *screen {
	s := &screen{out: out, log: log, terminal: isTerminal(out)}
	s.shared = s.terminal && isTerminal(log)
	return s
}

// show draws text in place of the last picture.
func (s *screen) show(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.erase()
	s.draw(text)
}

// clear takes the picture away.
func (s *screen) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.erase()
}

// Write takes whole lines of the log.
func (s *screen) Write(lines []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.shared || s.picture == "" {
		return s.log.Write(lines)
	}
	text := s.picture
	s.erase()
	n, err := s.log.Write(lines)
	s.draw(text)
	return n, err
}

func (s *screen) erase() {
	if s.picture != "" {
		fmt.Fprintf(s.out, "\x1b[%dA\x1b[J", strings.Count(s.picture, "\n"))
		s.picture = ""
	}
}

func (s *screen) draw(text string) {
	if s.terminal {
		s.picture = text
		// A line that wraps would count as one and be two (DECAWM off and on).
		text = "\x1b[?7l" + text + "\x1b[?7h"
	}
	io.WriteString(s.out, text)
}
