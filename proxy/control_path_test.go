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

// A URL without a path asks for the root, whatever its query looks like; path and
// what is passed on agree.
func TestAbsoluteFormWithoutPath(t *testing.T) {
	for target, want := range map[string]string{
		"http://host": "/", "http://host?x=1": "/?x=1", "http://host?/v1/x": "/?/v1/x", "http://host/v1/x?y": "/v1/x?y",
	} {
		path, err := cleanPath([]byte(target))
		wantPath, _, _ := strings.Cut(want, "?")
		if got := string(originForm([]byte(target))); got != want || err != nil || path != wantPath {
			t.Errorf("%s: path %q (%v), passed on as %q; want %q", target, path, err, got, want)
		}
	}
}
