package proxy

import (
	"strings"
	"testing"
)

// No number of slashes makes another path of a control path: what merges them may
// stand in front of a replica.
func TestControlPathBehindManySlashes(t *testing.T) {
	for _, n := range []int{1, 2, maxPath - len("/v1"), maxPath, 2 * maxPath} {
		uri := "/v1" + strings.Repeat("/", n) + "load_lora_adapter"
		path, err := cleanPath([]byte(uri))
		if err != nil || !isControl(path) {
			t.Errorf("%d slashes: %.20q..., %v: not recognised", n, path, err)
		}
	}
}
