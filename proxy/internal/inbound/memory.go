package inbound

import (
	"bytes"
	"errors"
	"math"
	"os"
	"runtime/debug"
	"strconv"
	"sync/atomic"
)

// ErrMemory says that the bodies of requests under way take all the memory they may.
var ErrMemory = errors.New("no memory for the request's body")

// larder bounds what all bodies together take: each may have Limits.Body, and there may
// be as many as there are connections. Bodies of up to firstContent are not counted:
// most requests touch nothing that is shared.
type larder struct {
	limit int64 // bytes; 0 = none
	taken atomic.Int64
}

func (l *larder) take(n int64) bool {
	if l.taken.Add(n) > l.limit && n > 0 && l.limit > 0 {
		l.taken.Add(-n)
		return false
	}
	return true
}

// hold counts a body's buffer of now size bytes as this connection's.
func (c *Conn) hold(size int) error {
	if size <= firstContent {
		size = 0
	}
	if size == c.held {
		return nil
	}
	if !c.srv.larder.take(int64(size - c.held)) {
		return ErrMemory
	}
	c.held = size
	return nil
}

// letGo ends what hold began.
func (c *Conn) letGo() {
	if c.held > 0 {
		c.srv.larder.take(int64(-c.held))
		c.held = 0
	}
}

// bodyMemory is half of the memory this process may have: of GOMEMLIMIT where it is
// set, else of the container (cgroup v2) or the machine. 0 = not known.
func bodyMemory() int64 { return memory(debug.SetMemoryLimit(-1), os.ReadFile) / 2 }

func memory(goLimit int64, readFile func(string) ([]byte, error)) int64 {
	if goLimit != math.MaxInt64 {
		return goLimit
	}
	least := int64(math.MaxInt64)
	if b, err := readFile("/sys/fs/cgroup/memory.max"); err == nil { // "max" where there is none
		if n, err := strconv.ParseInt(string(bytes.TrimSpace(b)), 10, 64); err == nil && n > 0 {
			least = n
		}
	}
	if b, err := readFile("/proc/meminfo"); err == nil {
		if n := memTotal(b); n > 0 {
			least = min(least, n)
		}
	}
	if least == math.MaxInt64 {
		return 0
	}
	return least
}

// memTotal reads the line "MemTotal:       8023112 kB" (proc(5)).
func memTotal(meminfo []byte) int64 {
	for line := range bytes.Lines(meminfo) {
		f := bytes.Fields(line)
		if len(f) == 3 && string(f[0]) == "MemTotal:" && string(f[2]) == "kB" {
			n, err := strconv.ParseInt(string(f[1]), 10, 64)
			if err == nil && n > 0 && n < 1<<50 {
				return n << 10
			}
		}
	}
	return 0
}
