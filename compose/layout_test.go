package compose

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/google/go-cmp/cmp"
)

// replica is one of the six that both environments have.
type replica struct {
	name, port, model string
	gpus              []string
}

const (
	llama   = "meta-llama/Llama-3.1-8B-Instruct"
	qwen    = "Qwen/Qwen2.5-7B-Instruct"
	mixtral = "mistralai/Mixtral-8x7B-Instruct-v0.1"
)

var six = []replica{
	{"vllm-llama-8b-1", "8001", llama, []string{"0"}},
	{"vllm-llama-8b-2", "8002", llama, []string{"1"}},
	{"vllm-qwen-7b-1", "8003", qwen, []string{"2"}},
	{"vllm-qwen-7b-2", "8004", qwen, []string{"3"}},
	{"vllm-mixtral-8x7b-1", "8005", mixtral, []string{"4", "5"}},
	{"vllm-mixtral-8x7b-2", "8006", mixtral, []string{"6", "7"}},
}

// environment is one of the two that are compared.
type environment struct {
	file, project, image   string
	lb, lbPort, lbStrategy string
	command                []string // before the flags; MODEL is the model
	on, off                []string // switches that must and must not be there
	keepAlive              string
}

var compared = []environment{
	{
		file: "baseline.yml", project: "lbd-baseline", image: "vllm/vllm-openai:v0.6.4.post1",
		lb: "baseline-lb", lbPort: "8080", lbStrategy: "cycle",
		on:  []string{"--model", "--enable-prefix-caching"},
		off: []string{"--no-enable-prefix-caching"},
	},
	{
		file: "managed.yml", project: "lbd-managed", image: "ghcr.io/ovg-project/kvcached-vllm:latest",
		lb: "managed-lb", lbPort: "8081", lbStrategy: "least-cost",
		command:   []string{"vllm", "serve", "MODEL"},
		on:        []string{"--no-enable-prefix-caching"},
		off:       []string{"--enable-prefix-caching", "--model", "--kv-events-config"},
		keepAlive: "120",
	},
}

func TestReplicas(t *testing.T) {
	for _, e := range compared {
		p := load(t, e.file, token)
		if p.Name != e.project {
			t.Errorf("%s is project %q; want %q", e.file, p.Name, e.project)
		}
		for _, r := range six {
			t.Run(e.file+"/"+r.name, func(t *testing.T) { e.check(t, r, service(t, p, r.name)) })
		}
		want := []string{e.lb, "grafana", "prometheus"}
		for _, r := range six {
			want = append(want, r.name)
		}
		slices.Sort(want)
		if diff := cmp.Diff(want, slices.Sorted(maps.Keys(p.Services))); diff != "" {
			t.Errorf("%s: services (-want +got):\n%s", e.file, diff)
		}
	}
}

func (e environment) check(t *testing.T, r replica, s types.ServiceConfig) {
	if s.ContainerName != r.name {
		t.Errorf("container name %q", s.ContainerName)
	}
	if s.Image != e.image {
		t.Errorf("image %q; want %q", s.Image, e.image)
	}
	if got, want := published(s), []string{r.port + ":8000"}; !slices.Equal(got, want) {
		t.Errorf("ports %q; want %q", got, want)
	}
	if got := gpus(t, s); !slices.Equal(got, r.gpus) {
		t.Errorf("GPUs %q; want %q", got, r.gpus)
	}
	e.checkCommand(t, r, s.Command)
	if got := env(s, "VLLM_HTTP_TIMEOUT_KEEP_ALIVE"); got != e.keepAlive {
		t.Errorf("keep-alive %q; want %q", got, e.keepAlive)
	}
	checkServer(t, s)
}

func (e environment) checkCommand(t *testing.T, r replica, command []string) {
	words, set := flags(command)
	want := slices.Clone(e.command)
	model := set["--model"]
	if i := slices.Index(want, "MODEL"); i >= 0 {
		want[i], model = r.model, r.model
	}
	if !slices.Equal(words, want) {
		t.Errorf("command begins with %q; want %q", words, want)
	}
	if model != r.model {
		t.Errorf("model %q; want %q", model, r.model)
	}
	for _, name := range e.on {
		if _, ok := set[name]; !ok {
			t.Errorf("command lacks %s", name)
		}
	}
	for _, name := range e.off {
		if _, ok := set[name]; ok {
			t.Errorf("command has %s", name)
		}
	}
	tp := map[int]string{1: "", 2: "2"}[len(r.gpus)]
	if set["--tensor-parallel-size"] != tp {
		t.Errorf("tensor-parallel size %q on %d GPUs", set["--tensor-parallel-size"], len(r.gpus))
	}
	if set["--port"] != "8000" {
		t.Errorf("port %q", set["--port"])
	}
}

// checkServer holds what every vLLM container needs to be run unattended.
func checkServer(t *testing.T, s types.ServiceConfig) {
	t.Helper()
	if env(s, "HF_TOKEN") != "hf_test" {
		t.Errorf("HF_TOKEN is %q", env(s, "HF_TOKEN"))
	}
	if s.Restart != "unless-stopped" {
		t.Errorf("restart policy %q", s.Restart)
	}
	h := s.HealthCheck
	if h == nil || !strings.Contains(strings.Join(h.Test, " "), "http://127.0.0.1:8000/health") || h.Test[1] != "python3" {
		t.Fatalf("health check %v; want python3, which the images have, to ask /health", h)
	}
	if start := time.Duration(*h.StartPeriod); start < 20*time.Minute {
		t.Errorf("start period %v; a first start downloads the model", start)
	}
	if s.ShmSize < 1<<30 && s.Ipc != "host" {
		t.Errorf("shared memory of %d bytes, ipc %q", s.ShmSize, s.Ipc)
	}
	if len(s.Volumes) != 1 || s.Volumes[0].Type != "volume" || s.Volumes[0].Source != "huggingface" || s.Volumes[0].Target != env(s, "HF_HOME") {
		t.Errorf("volumes %v; want the shared cache at %q", s.Volumes, env(s, "HF_HOME"))
	}
}

// Both environments and the shared GPU have the one cache.
func TestSharedCache(t *testing.T) {
	for _, file := range []string{"baseline.yml", "managed.yml", "shared-gpu.yml"} {
		if got := load(t, file, token).Volumes["huggingface"].Name; got != "huggingface" {
			t.Errorf("%s: the cache is volume %q; want one name in every project", file, got)
		}
		s := load(t, file, token, "HF_CACHE=/data/hf").Services
		for name := range s {
			if strings.HasPrefix(name, "vllm-") && s[name].Volumes[0].Type != "bind" {
				t.Errorf("%s: %s does not use the directory HF_CACHE", file, name)
			}
		}
	}
}

// An engine that shares its IPC name with another corrupts it.
func TestIPCNames(t *testing.T) {
	for _, file := range []string{"managed.yml", "shared-gpu.yml"} {
		seen := map[string]string{}
		for name, s := range load(t, file, token).Services {
			if !strings.HasPrefix(name, "vllm-") {
				continue
			}
			ipc := env(s, "KVCACHED_IPC_NAME")
			if ipc == "" || seen[ipc] != "" {
				t.Errorf("%s: %s has IPC name %q, as %q has", file, name, ipc, seen[ipc])
			}
			seen[ipc] = name
			if env(s, "ENABLE_KVCACHED") != "true" {
				t.Errorf("%s: %s runs without kvcached", file, name)
			}
		}
		if len(seen) < 3 {
			t.Errorf("%s: %d IPC names", file, len(seen))
		}
	}
}

func TestTokenIsAskedFor(t *testing.T) {
	for _, file := range []string{"baseline.yml", "managed.yml", "shared-gpu.yml"} {
		for _, env := range [][]string{nil, {"HF_TOKEN="}} {
			_, err := loadError(t, file, env...)
			if err == nil || !strings.Contains(err.Error(), "HF_TOKEN") || !strings.Contains(err.Error(), ".env.example") {
				t.Errorf("%s without a token: %v; want an error that says where to put it", file, err)
			}
		}
	}
	load(t, "sim.yml")
}

func TestImagesCanBePinned(t *testing.T) {
	const digest = "@sha256:0000000000000000000000000000000000000000000000000000000000000000"
	for file, name := range map[string]string{"baseline.yml": "BASELINE_IMAGE", "managed.yml": "MANAGED_IMAGE", "shared-gpu.yml": "MANAGED_IMAGE"} {
		for service, s := range load(t, file, token, name+"=registry/engine"+digest).Services {
			if strings.HasPrefix(service, "vllm-") && s.Image != "registry/engine"+digest {
				t.Errorf("%s: %s runs %q in spite of %s", file, service, s.Image, name)
			}
		}
	}
}
