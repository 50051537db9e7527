//go:build linux

package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// awakeMain keeps the processor it is pinned to from sleeping, by turning for ever when
// nobody else wants it (SCHED_IDLE: whoever wakes takes the processor at once).
//
// A virtual processor that sleeps is the host's to give away, and comes back when the host
// finds the time. Where it was busy, a fifth of the time was stolen in events of 256
// streams, and the 99th percentile of any proxy was 10 to 40 ms; with processors that
// do not sleep a hundredth, and 0.3 to 1 ms. It is what booting with idle=poll does.
func awakeMain([]int) error {
	runtime.LockOSThread()
	attr, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		return fmt.Errorf("scheduling policy: %w", err)
	}
	if attr.Policy != unix.SCHED_IDLE {
		// The runtime's other threads are there already: they have it from the start of
		// a process that begins with it.
		if err := unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}, 0); err != nil {
			return fmt.Errorf("scheduling policy: %w", err)
		}
		return syscall.Exec("/proc/self/exe", os.Args, os.Environ())
	}
	for {
		nanos() // reads the clock of the processor, which leaves a sibling its share of the core
	}
}

// stayAwake has the processors of load and proxy not sleep.
func (g *rig) stayAwake() error {
	self, err := self()
	if err != nil {
		return err
	}
	for _, cpu := range []int{g.o.loadCPU, g.o.proxyCPU} {
		n := strconv.Itoa(cpu)
		p, err := start("awake"+n, n, g.dir, nil, nil, self, "awake", n)
		if err != nil {
			g.letSleep()
			return err
		}
		g.awake = append(g.awake, p)
	}
	return nil
}

// stillAwake says why a processor sleeps though it should not.
func (g *rig) stillAwake() error {
	for _, p := range g.awake {
		select {
		case <-p.done:
			return fmt.Errorf("%s ended: %w\n%s\nwant -sleep where nobody may choose SCHED_IDLE", p.name, p.err, p.tail())
		default:
		}
	}
	return nil
}

func (g *rig) letSleep() {
	for _, p := range g.awake {
		p.stop()
	}
	g.awake = nil
}

// awakePIDs are the processes whose time is nobody's.
func (g *rig) awakePIDs() (pids []int) {
	for _, p := range g.awake {
		pids = append(pids, p.cmd.Process.Pid)
	}
	return pids
}
