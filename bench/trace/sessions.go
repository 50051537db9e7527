package trace

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"
)

// SessionBlock is the block size in tokens of the agentic traces of kv-cache-tester.
const SessionBlock = 64

// Session is a conversation, for closed loop: each turn is sent its Think after the end of the one before.
type Session struct {
	ID    string
	Turns []Turn
}

// Turn is one request of a session. Its blocks come from Cursor.
type Turn struct {
	Think                      time.Duration
	PromptTokens, OutputTokens int

	list int      // turns of one list share a chain of blocks: the conversation's own, or one sub-agent's
	keep int      // leading blocks kept from the last turn of the list
	add  [][2]int // runs of further ones: first, count
}

// Cursor yields the blocks of a session's turns in order, which are stored as differences.
type Cursor struct {
	s     *Session
	salt  uint64
	next  int
	lists map[int][]uint64
}

// Blocks starts at the first turn. Ids of the trace are local to a conversation; number tells conversations apart.
func (s *Session) Blocks(number uint64) *Cursor {
	return &Cursor{s: s, salt: number << 32, lists: map[int][]uint64{}}
}

// Next is the blocks of the next turn. They are valid until the turn after the next of the same list.
func (c *Cursor) Next() []uint64 {
	t := &c.s.Turns[c.next]
	c.next++
	ids := c.lists[t.list]
	ids = ids[:t.keep:t.keep] // what follows is copied: the last turn may still be read
	for _, run := range t.add {
		for i := range run[1] {
			ids = append(ids, c.salt|uint64(run[0]+i))
		}
	}
	c.lists[t.list] = ids
	return ids
}

// Sessions reads conversations with delta-coded blocks (callanjfox/kv-cache-tester, one JSON object per line), plain or
// gzip. What a sub-agent does takes its place in the conversation. Of conversations with the same first requests only the
// first is kept: 46 of 710 are copies in their beginning, and would pass for independent ones.
func Sessions(r io.Reader) ([]Session, error) {
	var all []Session
	seen := map[string]bool{}
	for l, err := range lines(r) {
		if err != nil {
			return nil, err
		}
		s, err := parseSession(l)
		if err != nil {
			return nil, err
		}
		if head := s.head(); len(s.Turns) > 0 && !seen[head] {
			seen[head] = true
			all = append(all, s)
		}
	}
	return all, nil
}

// OpenSessions is Sessions of a file.
func OpenSessions(path string) ([]Session, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("cannot open trace: %w", err)
	}
	defer f.Close()
	all, err := Sessions(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return all, nil
}

// head tells sessions apart by the lengths of their first twelve requests.
func (s *Session) head() (h string) {
	for _, t := range s.Turns[:min(len(s.Turns), 12)] {
		h += fmt.Sprint(t.PromptTokens, t.OutputTokens, " ")
	}
	return h
}

// MaxTokens ends the session before its first turn of more prompt and output tokens than limit: an agent whose context
// is full starts anew or stops. It reports how many turns went.
func (s *Session) MaxTokens(limit int) (dropped int) {
	for i, t := range s.Turns {
		if t.PromptTokens+t.OutputTokens > limit {
			dropped = len(s.Turns) - i
			s.Turns = s.Turns[:i]
			return dropped
		}
	}
	return 0
}

type sessionRow struct {
	ID        string       `json:"id"`
	BlockSize int          `json:"block_size"`
	Requests  []sessionReq `json:"requests"`
}

type sessionReq struct {
	Type     string       `json:"type"`
	In       int          `json:"in"`
	Out      int          `json:"out"`
	Think    float64      `json:"think_time"` // seconds
	CP       int          `json:"cp"`
	Add      [][2]int     `json:"add"`
	Requests []sessionReq `json:"requests"`
}

func parseSession(l line) (s Session, err error) {
	var row sessionRow
	if err := json.Unmarshal(l.text, &row); err != nil {
		return s, l.errorf("want one JSON object per line: %w", err)
	}
	if row.BlockSize != SessionBlock {
		return s, l.errorf("block_size %d; want %d", row.BlockSize, SessionBlock)
	}
	s.ID = row.ID
	b := sessionBuilder{l: l, s: &s}
	return s, b.list(row.Requests)
}

type sessionBuilder struct {
	l     line
	s     *Session
	lists int
}

// list adds the turns of one list of requests, and those of its sub-agents where they stand.
func (b *sessionBuilder) list(reqs []sessionReq) error {
	list, blocks := b.lists, 0
	b.lists++
	for _, q := range reqs {
		if q.Type == "subagent" {
			if b.lists > maxLists {
				return b.l.errorf("more than %d lists of requests", maxLists)
			}
			if err := b.list(q.Requests); err != nil {
				return err
			}
			continue
		}
		n, err := b.check(q, blocks)
		if err != nil {
			return err
		}
		blocks = n
		b.s.Turns = append(b.s.Turns, Turn{
			Think: time.Duration(q.Think * float64(time.Second)), PromptTokens: q.In,
			OutputTokens: max(q.Out, 1), // a few were cut off before their first token
			list:         list, keep: q.CP, add: q.Add,
		})
	}
	return nil
}

// maxLists is far above what a conversation has; lists nest in a damaged file only.
const maxLists = 1000

// check returns how many blocks the request has.
func (b *sessionBuilder) check(q sessionReq, before int) (int, error) {
	if q.In < 1 || q.In > maxTokens || q.Out < 0 || q.Out > maxTokens {
		return 0, b.l.errorf("%d tokens in and %d out; want 1 and 0 to %d", q.In, q.Out, maxTokens)
	}
	if !(q.Think >= 0 && q.Think < 1e8) {
		return 0, b.l.errorf("think_time %v; want seconds", q.Think)
	}
	if q.CP < 0 || q.CP > before {
		return 0, b.l.errorf("cp %d; want at most the %d blocks of the request before", q.CP, before)
	}
	n := q.CP
	for _, run := range q.Add {
		if run[0] < 0 || run[0] > 1<<31 || run[1] < 0 || run[1] > maxTokens/SessionBlock {
			return 0, b.l.errorf("run %v of blocks; want a first one and a count", run)
		}
		n += run[1]
	}
	if n != q.In/SessionBlock {
		return 0, b.l.errorf("%d blocks for %d tokens; want %d", n, q.In, q.In/SessionBlock)
	}
	return n, nil
}
