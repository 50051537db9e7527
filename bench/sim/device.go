package sim

import (
	"sync"

	"lbd/bench/sim/engine"
)

// Device is a GPU whose memory several replicas share under kvcached. Each
// replica has a pool of virtual blocks; what backs them is physical memory the
// neighbours take from, too, so every replica's reported KV usage
//
//	1 - min(virtual free, physical free) / virtual capacity
//
// rises with the neighbours' and is above zero at idle (weights count). Only
// the gauge is coupled: an engine admits by its own pool.
type Device struct {
	total int64 // bytes

	mu   sync.Mutex
	used map[*share]int64
}

// NewDevice describes a GPU of so many bytes. kvcached keeps 5 % back
// (page_allocator.py: KVCACHED_GPU_UTILIZATION 0.95).
func NewDevice(bytes int64) *Device {
	return &Device{total: bytes - bytes/20, used: make(map[*share]int64)}
}

// share is one replica's part of a device.
type share struct {
	device        *Device
	weights       int64
	bytesPerBlock int64
}

// attach adds a replica; a nil device gives a nil share, which is valid.
func (d *Device) attach(weights, bytesPerBlock int64) *share {
	if d == nil {
		return nil
	}
	s := &share{device: d, weights: weights, bytesPerBlock: bytesPerBlock}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.used[s] = weights
	return s
}

func (s *share) detach() {
	if s == nil {
		return
	}
	s.device.mu.Lock()
	defer s.device.mu.Unlock()
	delete(s.device.used, s)
}

// usage is what the replica's KV gauge shows, and accounts for its blocks.
func (s *share) usage(st engine.Stats) float64 {
	if s == nil || st.NumBlocks == 0 {
		return st.KVUsage
	}
	d := s.device
	d.mu.Lock()
	defer d.mu.Unlock()
	// Evictable cached blocks stay mapped but count as free for their owner.
	d.used[s] = s.weights + int64(st.UsedBlocks)*s.bytesPerBlock
	free := d.total
	for _, b := range d.used {
		free -= b
	}
	blocks := min(int64(st.NumBlocks-st.UsedBlocks), max(free, 0)/s.bytesPerBlock)
	return 1 - float64(blocks)/float64(st.NumBlocks)
}
