package compose

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/google/go-cmp/cmp"
)

// difference is one value that baseline and managed do not share; "" is absent.
type difference struct{ baseline, managed, why string }

// replicaDifferences are those of each of the six; NAME is the replica's.
var replicaDifferences = map[string]difference{
	"image": {"vllm/vllm-openai:v0.6.4.post1", "ghcr.io/ovg-project/kvcached-vllm:latest", "compared"},

	"command --enable-prefix-caching":    {"on", "", "compared: vanilla vLLM caches prefixes"},
	"command --no-enable-prefix-caching": {"", "on", "compared: kvcached asks for it"},

	"environment.ENABLE_KVCACHED":   {"", "true", "compared"},
	"environment.KVCACHED_IPC_NAME": {"", "NAME", "part of kvcached"},

	"command":                        {"", "vllm serve", "the managed image has no entrypoint"},
	"command --disable-log-requests": {"on", "", "v0.6.4 logs prompts unless told not to, v0.19 does not and does not know the flag"},

	"environment.VLLM_HTTP_TIMEOUT_KEEP_ALIVE": {"", "120", "read from v0.9.1 on; below it uvicorn closes idle connections after 5 s, which lbd allows for"},
}

var lbDifferences = map[string]difference{
	"container_name":            {"baseline-lb", "managed-lb", "both names stand in the contract"},
	"environment.LBD_STRATEGY":  {"cycle", "least-cost", "compared"},
	"environment.LBD_ADMISSION": {"false", "", "compared: round robin holds nothing back"},
	"environment.LBD_LISTEN":    {":8080", ":8081", "both ports stand in the contract"},
	"ports.0.published":         {"8080", "8081", "both ports stand in the contract"},
	"ports.0.target":            {"8080", "8081", "both ports stand in the contract"},
}

// TestDifferences compares what the two files come to with what may differ.
func TestDifferences(t *testing.T) {
	base, managed := load(t, "baseline.yml", token), load(t, "managed.yml", token)
	for _, r := range six {
		want := map[string]difference{}
		for path, d := range replicaDifferences {
			d.managed = strings.ReplaceAll(d.managed, "NAME", r.name)
			want[path] = d
		}
		compareServices(t, want, service(t, base, r.name), service(t, managed, r.name))
	}
	compareServices(t, lbDifferences, service(t, base, "baseline-lb"), service(t, managed, "managed-lb"))
	compareServices(t, nil, service(t, base, "grafana"), service(t, managed, "grafana"))
	compareServices(t, map[string]difference{
		"volumes.3.source": {"prometheus/targets/baseline.yml", "prometheus/targets/managed.yml", "other replicas to scrape"},
	}, service(t, base, "prometheus"), service(t, managed, "prometheus"))
}

func compareServices(t *testing.T, want map[string]difference, a, b types.ServiceConfig) {
	t.Helper()
	got := map[string]difference{}
	x, y := leaves(t, a), leaves(t, b)
	for _, m := range []map[string]string{x, y} {
		for path := range m {
			if x[path] != y[path] {
				got[path] = difference{x[path], y[path], want[path].why}
			}
		}
	}
	if want == nil {
		want = map[string]difference{}
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(difference{})); diff != "" {
		t.Errorf("%s differs otherwise than it may (-may +does):\n%s", a.Name, diff)
	}
}

// leaves lists the values of a service by path. Commands are read as flags, paths
// begin in this folder.
func leaves(t *testing.T, s types.ServiceConfig) map[string]string {
	t.Helper()
	command := s.Command
	s.Command, s.Name = nil, ""
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var tree any
	if err := json.Unmarshal(b, &tree); err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	flatten("", tree, out)
	addCommand(out, command)
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for path, v := range out {
		out[path] = strings.TrimPrefix(v, here+"/")
	}
	return out
}

// addCommand lists the flags of a command. A model as a word is a --model.
func addCommand(out map[string]string, command []string) {
	words, set := flags(command)
	if i := slices.Index(words, "serve"); i >= 0 && i+1 < len(words) {
		set["--model"] = words[i+1]
		words = slices.Delete(words, i+1, i+2)
	}
	if len(words) > 0 {
		out["command"] = strings.Join(words, " ")
	}
	for name, v := range set {
		if v == "" {
			v = "on"
		}
		out["command "+name] = v
	}
}

func flatten(path string, v any, out map[string]string) {
	switch v := v.(type) {
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			flatten(strings.TrimPrefix(path+"."+k, "."), v[k], out)
		}
	case []any:
		for i, e := range v {
			flatten(fmt.Sprintf("%s.%d", path, i), e, out)
		}
	case nil:
	default:
		out[path] = fmt.Sprint(v)
	}
}
