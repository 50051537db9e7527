//go:build linux

package main

import (
	"bytes"
	"runtime"
	"runtime/pprof"
	"strings"
	"testing"
)

const heapPage = `heap profile: 5: 1000 [9: 2000] @ heap/1048576
1: 67108864 [1: 67108864] @ 0x1 0x2
#	0x1	runtime.makeslice+0x1		/usr/local/go/src/runtime/slice.go:1
#	0x2	lbd/balancer/prefix.(*Index).made+0xc4			/index.go:292
#	0x3	lbd/balancer/prefix.(*Index).Insert+0x3e		/index.go:205

2: 1024 [2: 1024] @ 0x4
#	0x4	net.newFD+0x1	/net.go:1

0: 0 [3: 4096] @ 0x5
#	0x5	lbd/proxy.gone+0x1	/gone.go:1

# runtime.MemStats
# Alloc = 3
# HeapAlloc = 69210432
# HeapSys = 120750080
# HeapIdle = 45473792
# HeapInuse = 75276288
# HeapReleased = 8011776
# HeapObjects = 11141
# Stack = 884736 / 884736
# PauseNs = [72655 46652]
`

func TestReadHeap(t *testing.T) {
	h, err := readHeap(heapPage)
	if err != nil {
		t.Fatal(err)
	}
	if h.Live != 69210432 || h.Objects != 11141 || h.Spans != 75276288 || h.Idle != 45473792-8011776 || h.Stacks != 884736 {
		t.Errorf("%+v", h)
	}
	// Two of 512 bytes each are in the sample, which holds one of 1,024 such.
	if n := h.Sites["net.newFD"]; h.Sites[index] != 64<<20 || n < 1<<20 || n > 1<<20+1024 || len(h.Sites) != 2 {
		t.Errorf("%v", h.Sites)
	}
	for _, bad := range []string{"", "404", strings.Replace(heapPage, "HeapAlloc", "x", 1)} {
		if _, err := readHeap(bad); err == nil {
			t.Errorf("%.20q is taken", bad)
		}
	}
}

var kept []byte

// What Go writes today is what is read: a profile of this process.
func TestReadHeapOfGo(t *testing.T) {
	kept = make([]byte, 8<<20)
	runtime.GC() // profiles are of the last collection
	var page bytes.Buffer
	if err := pprof.Lookup("heap").WriteTo(&page, 1); err != nil {
		t.Fatal(err)
	}
	h, err := readHeap(page.String())
	if err != nil || h.Live < int64(len(kept)) || h.Spans < h.Live || h.Idle < 0 || h.Stacks <= 0 {
		t.Errorf("%+v, %v", h, err)
	}
	if n := h.Sites["lbd/bench/soak.TestReadHeapOfGo"]; n < int64(len(kept)) || h.Objects == 0 {
		t.Errorf("%d bytes of %d are known to be of this test; %d objects", n, len(kept), h.Objects)
	}
}

func TestGrownSites(t *testing.T) {
	before := heap{Sites: map[string]int64{"a": 10 << 20, "b": 1 << 20}}
	after := heap{Sites: map[string]int64{"a": 9 << 20, "b": 2 << 20, "c": 5 << 20}}
	if got := strings.Join(grownSites(before, after), ", "); got != "c +5.0 MiB, b +1.0 MiB" {
		t.Error(got)
	}
}

func FuzzReadHeap(f *testing.F) {
	f.Add(heapPage)
	f.Add("heap profile: 1: 2 [3: 4] @ heap/x\n1: 2 [ @ \n#\n# = \n#\tx\ty\tz\n")
	f.Fuzz(func(t *testing.T, page string) {
		if h, err := readHeap(page); err == nil && h.Live == 0 {
			t.Errorf("nothing lives in %q", page)
		}
	})
}
