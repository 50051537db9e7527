package scripts

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// lb answers as an lbd with one model on two replicas does, but for what a test
// breaks.
type lb struct {
	health   string // "" = healthy
	models   string // "" = the model
	stream   string // "" = a whole one
	code     int    // of answers that are no streams; 0 = 200
	replicas int    // that answer; 0 = two
	key      string // that clients must show
	turn     atomic.Int64
}

const (
	whole     = "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\ndata: {\"choices\":[{\"delta\":{\"content\":\"One\"}}]}\n\ndata: [DONE]\n\n"
	wordless  = "data: {\"choices\":[{\"delta\":{\"content\":\"\"}}]}\n\ndata: [DONE]\n\n"
	cut       = "data: {\"choices\":[{\"delta\":{\"content\":\"One\"}}]}\n\n"
	allWell   = `{"status":"healthy","replicas":2,"healthy_replicas":2,"models":{"org/m":{"replicas":2,"healthy":2}}}`
	oneDown   = `{"status":"degraded","replicas":2,"healthy_replicas":1,"models":{"org/m":{"replicas":2,"healthy":1}}}`
	noneThere = `{"status":"unhealthy","replicas":2,"healthy_replicas":0,"models":{}}`
)

func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

func (l *lb) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if l.key != "" && r.URL.Path != "/health" && r.Header.Get("Authorization") != "Bearer "+l.key {
		http.Error(w, "no key", http.StatusUnauthorized)
		return
	}
	switch r.URL.Path {
	case "/health":
		fmt.Fprint(w, or(l.health, allWell))
	case "/v1/models":
		fmt.Fprint(w, or(l.models, `{"object":"list","data":[{"id":"org/m","object":"model"}]}`))
	case "/v1/chat/completions":
		l.chat(w, r)
	default:
		http.NotFound(w, r)
	}
}

func (l *lb) chat(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Model  string
		Stream bool
	}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil || body.Model != "org/m" {
		http.Error(w, "bad body", http.StatusBadRequest)
		return
	}
	n := l.replicas
	if n == 0 {
		n = 2
	}
	w.Header().Set("X-Lbd-Replica", fmt.Sprintf("r%d:8000", l.turn.Add(1)%int64(n)+1))
	w.Header().Set("X-Lbd-Strategy", "cycle")
	switch {
	case body.Stream:
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		fmt.Fprint(w, or(l.stream, whole))
	case l.code != 0:
		http.Error(w, "no", l.code)
	default:
		fmt.Fprint(w, `{"choices":[]}`)
	}
}

func TestEnvironmentIsTested(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("curl is not installed")
	}
	for _, c := range []struct {
		name string
		lb   *lb
		code int
		want []string
	}{
		{"well", &lb{}, 0, []string{
			"ok    health", "ok    models: org/m", "ok    stream: org/m, 2 events, from r2:8000 by cycle", "ok    spread: org/m: r1:8000 8, r2:8000 8", "all is well",
		}},
		{"key", &lb{key: "sk-test"}, 0, []string{"all is well"}},
		{"other key", &lb{key: "sk-other"}, 3, []string{"FAIL  stream of org/m: HTTP/1.1 401 Unauthorized, no key"}},
		{"one replica down", &lb{health: oneDown, replicas: 1}, 3, []string{"FAIL  health: degraded", "ok    spread: org/m: r1:8000 16", "not all is well"}},
		{"none there", &lb{health: noneThere}, 3, []string{"FAIL  health", "unhealthy"}},
		{"model not listed", &lb{models: `{"data":[]}`}, 3, []string{"FAIL  models: org/m is healthy but not in /v1/models"}},
		{"stream cut", &lb{stream: cut}, 3, []string{"FAIL  stream of org/m: ends without [DONE] after 1 events"}},
		{"stream without words", &lb{stream: wordless}, 3, []string{"FAIL  stream of org/m: 1 events without a word"}},
		{"one replica gets all", &lb{replicas: 1}, 3, []string{"FAIL  spread: org/m has 2 healthy replicas, requests reached: r1:8000 16"}},
		{"requests fail", &lb{code: 502}, 3, []string{"FAIL  spread: 16 of 16 requests for org/m failed: no"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := httptest.NewServer(c.lb)
			defer s.Close()
			m := newMachine(t)
			if err := os.Symlink(curl, filepath.Join(m.bin, "curl")); err != nil {
				t.Fatal(err)
			}
			u, err := url.Parse(s.URL)
			if err != nil {
				t.Fatal(err)
			}
			m.env = []string{"LBD_BENCH_API_KEY=sk-test"}
			m.expect(c.code, c.want, "test_env.sh", u.Port())
		})
	}
}

func TestEnvironmentIsNotThere(t *testing.T) {
	m := newMachine(t)
	m.expect(1, []string{"curl is missing", "apt-get install curl"}, "test_env.sh", "sim")
	m.install("curl", "exit 7")
	m.expect(3, []string{"FAIL  nothing answers on http://localhost:8081"}, "test_env.sh", "managed")
	m.expect(1, []string{`environment "prod"`}, "test_env.sh", "prod")
}

// benchMachine has an lbd that measures nothing and an environment whose health
// page a test gives.
func benchMachine(t *testing.T, health string) *machine {
	m := newMachine(t)
	m.install("curl", "cat <<'END'\n"+health+"\nEND")
	m.install("lbd", "[ -z \"$BENCH_FAILS\" ]")
	m.install("nvidia-smi", "echo '0, NVIDIA H100 80GB HBM3, 550.90.07, 81559 MiB'")
	m.install("git", "echo 0123abc")
	m.env = []string{"LBD=" + filepath.Join(m.bin, "lbd")}
	return m
}

func TestBenchmark(t *testing.T) {
	two := strings.Replace(allWell, `"org/m":`, `"org/n":{"replicas":2,"healthy":2},"org/m":`, 1)
	m := benchMachine(t, two)
	m.expect(0, []string{"org/m, 8 users, 100 requests", "./lbd report results/baseline results/managed"}, "benchmark_all_models.sh", "managed", "8", "100")
	for _, model := range []string{"org/m", "org/n"} {
		want := "lbd bench --env managed --model " + model + " --concurrency 8 --requests 108 --warmup-requests 8 --input-tokens 512 --output-tokens 128 --seed 1 --results " + m.root + "/results"
		if calls := m.called("--model " + model); len(calls) != 1 || calls[0] != want {
			t.Errorf("calls: %q; want %q", calls, want)
		}
	}
	files, err := filepath.Glob(filepath.Join(m.root, "results/managed/environment_*.txt"))
	if err != nil || len(files) != 1 {
		t.Fatalf("description: %q, %v", files, err)
	}
	b, err := os.ReadFile(files[0])
	if err != nil || !strings.Contains(string(b), "H100") || !strings.Contains(string(b), "0123abc") {
		t.Errorf("description: %q, %v", b, err)
	}
}

func TestBenchmarkSimulation(t *testing.T) {
	m := benchMachine(t, allWell)
	m.expect(0, []string{"lbd report results/sim/baseline results/sim/managed"}, "benchmark_all_models.sh", "sim", "4")
	for _, env := range []string{"baseline", "managed"} {
		if calls := m.called("bench --env " + env); len(calls) != 1 || !strings.Contains(calls[0], "--requests 84 ") ||
			!strings.HasSuffix(calls[0], "/results/sim") {
			t.Errorf("%s: %q", env, m.called("bench"))
		}
	}
}

func TestBenchmarkRefuses(t *testing.T) {
	for _, c := range []struct {
		name, health, env, args string
		code                    int
		want                    string
	}{
		{"nothing there", "", "", "managed", 1, "no lbd answers on port 8081"},
		{"a replica down", oneDown, "", "managed", 1, "1 of 2 replicas of org/m are healthy"},
		{"concurrency", allWell, "", "managed many", 1, `concurrency "many"`},
		{"requests", allWell, "", "managed 8 0", 1, `requests "0"`},
		{"too many arguments", allWell, "", "managed 8 8 8", 1, "4 arguments"},
		{"no such program", allWell, "LBD=/nowhere/lbd", "managed", 1, "LBD=/nowhere/lbd is no program"},
		{"no program and no Go", allWell, "LBD=", "managed", 1, "docker cp"},
		{"measurement fails", allWell, "BENCH_FAILS=1", "managed", 3, "failed its own checks"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := benchMachine(t, c.health)
			if c.env != "" {
				m.env = append(m.env, c.env)
			}
			m.expect(c.code, []string{c.want}, "benchmark_all_models.sh", strings.Fields(c.args)...)
		})
	}
}
