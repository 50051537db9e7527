package prefix

import "testing"

// What was cleared is forgotten, and the index goes on.
func TestClear(t *testing.T) {
	x := New(Config{Bytes: 1 << 16})
	o := x.Owner("a")
	o.SetRoom(1 << 20)
	hashes := x.Hasher("m").Prompt(nil, nil, make([]byte, 2048))
	var d Depths
	for range 2 {
		x.Insert(o, hashes)
		if n := x.Match(hashes, &d); n == 0 || int(d[o.ID()]) != len(hashes) {
			t.Fatalf("%d of %d blocks", d[o.ID()], len(hashes))
		}
		clear(d[:])
		x.Clear()
		if x.table.Load() != nil {
			t.Error("the table is still there")
		}
		if n := x.Match(hashes, &d); n != 0 {
			t.Errorf("%d replicas have what was cleared", n)
		}
		clear(d[:])
	}
}
