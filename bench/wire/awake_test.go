//go:build linux

package main

import (
	"os"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A processor is kept awake by a process that gives way to every other, in all of its
// threads, and whose time is not taken for somebody else's.
func TestAwake(t *testing.T) {
	g := &rig{dir: t.TempDir()}
	if err := g.stayAwake(); err != nil {
		t.Fatal(err)
	}
	defer g.letSleep()
	pids := g.awakePIDs()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		cpu, err := cpuOf(pids[0])
		if err != nil {
			t.Fatalf("%v\n%s", err, g.awake[0].tail())
		}
		if cpu > int64(100*time.Millisecond) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%v used in a minute\n%s", time.Duration(cpu), g.awake[0].tail())
		}
	}
	threads, err := os.ReadDir("/proc/" + strconv.Itoa(pids[0]) + "/task")
	if err != nil || len(threads) == 0 {
		t.Fatal(threads, err)
	}
	for _, thread := range threads {
		tid, _ := strconv.Atoi(thread.Name())
		if attr, err := unix.SchedGetAttr(tid, 0); err != nil || attr.Policy != unix.SCHED_IDLE {
			t.Errorf("thread %d: %+v, %v; want policy %d", tid, attr, err, unix.SCHED_IDLE)
		}
	}
	with, err := machineBusy(nil)
	if err != nil {
		t.Fatal(err)
	}
	without, err := machineBusy(pids)
	if err != nil || with-without < int64(100*time.Millisecond) {
		t.Errorf("busy for %v, %v but for those, %v", time.Duration(with), time.Duration(without), err)
	}
	if err := g.stillAwake(); err != nil {
		t.Error(err)
	}
	g.awake[0].stop()
	if err := g.stillAwake(); err == nil {
		t.Error("one has ended, and nobody says so")
	}
	g.letSleep()
	for _, pid := range pids {
		if _, err := cpuOf(pid); err == nil {
			t.Error("it goes on when it should have ended")
		}
	}
}
