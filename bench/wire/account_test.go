//go:build linux

package main

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestSchedstat(t *testing.T) {
	ran, waited, err := schedstat([]byte("123456789 42 7\n"))
	if ran != 123456789 || waited != 42 || err != nil {
		t.Errorf("got %d, %d, %v", ran, waited, err)
	}
	for _, bad := range []string{"", "1 2", "1 2 3 4", "x 2 3", "1 y 3"} {
		if _, _, err := schedstat([]byte(bad)); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

// The clock by number is the one the kernel gives the process itself.
func TestCPUOfThisProcess(t *testing.T) {
	var before, after unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &before); err != nil {
		t.Fatal(err)
	}
	got, err := cpuOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &after); err != nil {
		t.Fatal(err)
	}
	if got < before.Nano() || got > after.Nano() {
		t.Errorf("%d; want it from %d to %d", got, before.Nano(), after.Nano())
	}
	if _, err := cpuOf(1 << 22); err == nil {
		t.Error("a process that is not there has a clock")
	}
}

func TestBusy(t *testing.T) {
	got, err := busyOf([]byte("cpu  10 20 30 1000 5 1 2 3 99 99\ncpu0 1 1 1 1 1 1 1 1 0 0\n"))
	if want := int64(66 * time.Second / userHZ); got != want || err != nil {
		t.Errorf("%d, %v; want %d: user, nice, system, irq, softirq and stolen, not idle, iowait, guest", got, err, want)
	}
	for _, bad := range []string{"", "cpu 1 2 3", "cpu 1 2 3 4 5 6 7 x", "intr 1 2 3 4 5 6 7 8"} {
		if _, err := busyOf([]byte(bad)); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
	if a, err := machineBusy(nil); err != nil || a <= 0 {
		t.Errorf("this machine: %d, %v", a, err)
	}
}

func TestResident(t *testing.T) {
	const rollup = "00400000-7ffd rollup\nRss:               23456 kB\nPss:                1 kB\n"
	if got := resident([]byte(rollup)); got != 23456 {
		t.Errorf("%d; want 23456", got)
	}
	if got := residentOf(os.Getpid()); got < 1000 {
		t.Errorf("this process: %d KiB", got)
	}
}

// A child of a child belongs to the family.
func TestFamily(t *testing.T) {
	p, err := start("tree", "0", t.TempDir(), nil, nil, "/bin/sh", "-c", "sh -c 'sleep 60 & wait' & wait")
	if err != nil {
		t.Fatal(err)
	}
	pid := p.cmd.Process.Pid
	var all []int
	eventually(t, "the shell, its shell and sleep", func() bool { all = family(pid); return len(all) == 3 })
	if all[0] != pid {
		t.Errorf("family %v; want %d first", all, pid)
	}
	p.stop()
	for _, child := range all[1:] {
		eventually(t, "the end of "+itoa(child), func() bool {
			b, err := os.ReadFile("/proc/" + itoa(child) + "/cmdline")
			return err != nil || len(b) == 0 // gone, or dead and not waited for
		})
	}
}

// eventually waits for what must happen; nothing is asserted about how soon it does.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: it did not happen", what)
		}
	}
}

func TestTicks(t *testing.T) {
	command, ticks := ticksOf([]byte("42 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 30 12 13 14\n"))
	if command != "a (b) c" || ticks != 42 {
		t.Errorf("%q, %d; want \"a (b) c\", 42", command, ticks)
	}
	for _, bad := range []string{"", "1 (x", ") 1 (", "1 (x) S 1 2"} {
		if command, ticks := ticksOf([]byte(bad)); command != "" || ticks != 0 {
			t.Errorf("%q: %q, %d", bad, command, ticks)
		}
	}
	now, before := usage{1: {"x", 5}, 2: {"y", 9}}, usage{1: {"w", 1}, 2: {"y", 8}}
	if got, want := now.greediest(before), (process{"x 1", 4}); got != want {
		t.Errorf("greediest: %v; want %v", got, want)
	}
}
