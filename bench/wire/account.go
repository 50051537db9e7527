//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cpuOf returns the CPU time a process has used, in ns, threads that ended
// included: the clock clock_getcpuclockid(3) names.
func cpuOf(pid int) (int64, error) {
	const sched = 2 // CPUCLOCK_SCHED of linux/posix-timers_types.h
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|sched), &ts); err != nil {
		return 0, fmt.Errorf("cpu clock of process %d: %w", pid, err)
	}
	return ts.Nano(), nil
}

// schedstat reads the first two numbers of /proc/PID/schedstat: ns on a CPU, ns
// ready to run but waiting for one.
func schedstat(b []byte) (ran, waited int64, err error) {
	f := bytes.Fields(b)
	if len(f) != 3 {
		return 0, 0, fmt.Errorf("schedstat %q; want three numbers", b)
	}
	if ran, err = strconv.ParseInt(string(f[0]), 10, 64); err != nil {
		return 0, 0, fmt.Errorf("schedstat %q: %w", b, err)
	}
	if waited, err = strconv.ParseInt(string(f[1]), 10, 64); err != nil {
		return 0, 0, fmt.Errorf("schedstat %q: %w", b, err)
	}
	return ran, waited, nil
}

// waitedOf sums over the threads of a process how long they waited for a CPU.
// On a core of its own a proxy waits for nobody, so this shows who else was there.
func waitedOf(pid int) int64 {
	dir := fmt.Sprintf("/proc/%d/task", pid)
	tasks, _ := os.ReadDir(dir)
	sum := int64(0)
	for _, t := range tasks {
		if b, err := os.ReadFile(dir + "/" + t.Name() + "/schedstat"); err == nil {
			if _, waited, err := schedstat(b); err == nil {
				sum += waited
			}
		}
	}
	return sum
}

// family returns a process and all below it: nginx works in children.
func family(pid int) []int {
	all := []int{pid}
	for i := 0; i < len(all); i++ {
		dir := fmt.Sprintf("/proc/%d/task", all[i])
		tasks, _ := os.ReadDir(dir)
		for _, t := range tasks {
			b, _ := os.ReadFile(dir + "/" + t.Name() + "/children")
			for _, f := range strings.Fields(string(b)) {
				if child, err := strconv.Atoi(f); err == nil {
					all = append(all, child)
				}
			}
		}
	}
	return all
}

// residentOf returns the resident memory of a process in KiB.
func residentOf(pid int) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0
	}
	return resident(b)
}

func resident(rollup []byte) int64 {
	for line := range strings.Lines(string(rollup)) {
		if v, ok := strings.CutPrefix(line, "Rss:"); ok {
			kib, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(v), "kB")), 10, 64)
			return kib
		}
	}
	return 0
}

// account is what a family of processes has used up to a time.
type account struct {
	cpu, waited int64 // ns
}

func accountOf(pids []int) (a account, err error) {
	for _, pid := range pids {
		cpu, err := cpuOf(pid)
		if err != nil {
			return a, err
		}
		a.cpu += cpu
		a.waited += waitedOf(pid)
	}
	return a, nil
}

func residentSum(pids []int) (kib int64) {
	for _, pid := range pids {
		kib += residentOf(pid)
	}
	return kib
}

// userHZ is the unit of /proc/stat, 1/100 s on every Linux architecture Go runs on.
const userHZ = 100

// busyOf reads from /proc/stat how long all CPUs together were busy, in ns, time
// stolen by the hypervisor included.
func busyOf(stat []byte) (busy int64, err error) {
	line, _, _ := bytes.Cut(stat, []byte("\n"))
	f := strings.Fields(string(line))
	if len(f) < 9 || f[0] != "cpu" {
		return 0, fmt.Errorf("/proc/stat begins with %q; want cpu and at least 8 numbers", line)
	}
	for i, s := range f[1:9] {
		v, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/stat: %w", err)
		}
		if i != 3 && i != 4 { // idle, iowait
			busy += v
		}
	}
	return busy * int64(time.Second) / userHZ, nil
}

// machineBusy is how long all CPUs together were busy, but for what some processes used.
func machineBusy(but []int) (int64, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	busy, err := busyOf(b)
	for _, pid := range but {
		cpu, cpuErr := cpuOf(pid)
		busy, err = busy-cpu, errors.Join(err, cpuErr)
	}
	return busy, err
}

// ticksOf reads the command and the CPU time, in ticks of userHZ, from
// /proc/PID/stat. The command is in parentheses and may hold some of its own.
func ticksOf(stat []byte) (command string, ticks int64) {
	open, end := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
	if open < 0 || end < open {
		return "", 0
	}
	f := bytes.Fields(stat[end+1:])
	const utime, stime = 11, 12 // counted from the field after the command
	if len(f) <= stime {
		return "", 0
	}
	for _, v := range f[utime : stime+1] {
		n, _ := strconv.ParseInt(string(v), 10, 64)
		ticks += n
	}
	return string(stat[open+1 : end]), ticks
}

// usage is the CPU time of every process so far, in ticks, by PID: kernel threads
// change their names.
type usage map[int]process

type process struct {
	command string
	ticks   int64
}

func look() usage {
	all := usage{}
	dirs, _ := os.ReadDir("/proc")
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		if b, err := os.ReadFile("/proc/" + d.Name() + "/stat"); err == nil {
			command, ticks := ticksOf(b)
			all[pid] = process{command, ticks}
		}
	}
	return all
}

// greediest is the process that used most since an earlier look.
func (u usage) greediest(before usage) (p process) {
	for pid, now := range u {
		if used := now.ticks - before[pid].ticks; used > p.ticks {
			p = process{now.command + " " + strconv.Itoa(pid), used}
		}
	}
	return p
}
