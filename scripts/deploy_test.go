package scripts

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// dockerd is a docker whose answers are files: running.PROJECT lists containers,
// states is what docker inspect says, one page for each time it is asked.
const dockerd = `
case "$*" in
  "info --format {{.ServerVersion}}") [ -z "$DOCKER_PROBLEM" ] || { echo "$DOCKER_PROBLEM"; exit 1; }; echo 28.0 ;;
  "info --format {{json .Runtimes}}") echo "${RUNTIMES:-{\"nvidia\":{},\"runc\":{}\}}" ;;
  "info --format {{.DockerRootDir}}") echo /var/lib/docker ;;
  "compose version --short") [ -z "$NO_COMPOSE" ] || { echo "docker: 'compose' is not a docker command" >&2; exit 1; }; echo "${COMPOSE_VERSION:-2.40.3}" ;;
  "ps -q --filter label=com.docker.compose.project=lbd-"*)
    project=${4#label=com.docker.compose.project=lbd-}
    case " $RUNNING " in *" $project "*) echo c1; echo c2 ;; esac ;;
  "ps --filter publish="*) echo "$HOLDER" ;;
  "volume inspect huggingface") [ -n "$CACHE" ] ;;
  *"up --detach"*) [ -z "$UP_FAILS" ] || { echo "pull access denied" >&2; exit 1; } ;;
  *"ps -aq") echo c1 c2 ;;
  "inspect --format {{.Name}}"*)
    n=$(cat "$PAGES/asked" 2>/dev/null || echo 0)
    echo $((n + 1)) >"$PAGES/asked"
    [ -f "$PAGES/$n" ] || n=last
    cat "$PAGES/$n" ;;
  "logs "*) echo "torch.cuda.OutOfMemoryError" ;;
esac`

// gpuMachine has everything that deploy.sh wants for an environment with GPUs.
func gpuMachine(t *testing.T, pages ...string) *machine {
	t.Helper()
	m := newMachine(t)
	m.install("docker", dockerd)
	m.install("nvidia-smi", `case "$*" in
  -L) for i in $(seq 0 $((${GPUS:-8} - 1))); do echo "GPU $i: NVIDIA H100 80GB HBM3"; done ;;
  *compute-apps*) echo -n "$APPS" ;;
esac`)
	m.install("ss", `case "$*" in *":${TAKEN:-none}") echo "LISTEN 0 4096 0.0.0.0:$TAKEN" ;; esac`)
	m.install("df", `echo "Filesystem 1024-blocks Used Available Capacity Mounted on"; echo "/dev/sda1 9 9 $((${FREE_GB:-900} * 1000000)) 1% /"`)
	m.install("curl", `echo -n "${HUB_CODE:-200}"`)
	for i, page := range pages {
		name := "pages/last"
		if i < len(pages)-1 {
			name = "pages/" + string(rune('0'+i))
		}
		m.write(name, page, 0o644)
	}
	m.write("compose/.env", "HF_TOKEN=hf_secret\n", 0o600)
	m.env = []string{"PAGES=" + filepath.Join(m.root, "pages")}
	return m
}

const (
	starting = "/vllm-llama-8b-1 running starting 0\n/baseline-lb running starting 0\n"
	loading  = "/vllm-llama-8b-1 running starting 0\n/baseline-lb running unhealthy 0\n"
	healthy  = "/vllm-llama-8b-1 running healthy 0\n/baseline-lb running healthy 0\n"
	crashing = "/vllm-llama-8b-1 restarting none 3\n/baseline-lb running starting 0\n"
	unwell   = "/vllm-llama-8b-1 running unhealthy 0\n/baseline-lb running starting 0\n"
	monitor  = healthy + "/lbd-baseline-prometheus-1 running none 0\n"
)

// What is missing is said before anything is started, with what mends it.
func TestDeployChecks(t *testing.T) {
	for _, c := range []struct {
		name string
		env  string // of the machine
		args string
		want string // in the output, parted by |
	}{
		{"no argument", "", "", "Usage:"},
		{"unknown environment", "", "prod", `environment "prod"; want one of: baseline managed shared-gpu sim`},
		{"two environments", "", "baseline sim", "want one"},
		{"unknown flag", "", "baseline --now", "unknown flag --now|--help"},
		{"timeout", "", "baseline --timeout soon", `--timeout "soon"`},
		{"daemon down", "DOCKER_PROBLEM=Cannot connect to the Docker daemon", "baseline", "does not answer|systemctl start docker"},
		{"no permission", "DOCKER_PROBLEM=permission denied while trying to connect", "sim", "usermod -aG docker"},
		{"no compose", "NO_COMPOSE=1", "sim", "Compose v2 is missing|docker-compose-plugin"},
		{"old compose", "COMPOSE_VERSION=v2.17.3", "sim", "2.17.3; want 2.24"},
		{"few GPUs", "GPUS=4", "baseline", "4 GPUs; baseline wants 8|deploy.sh sim"},
		{"no GPU to share", "GPUS=0", "shared-gpu", "0 GPUs; shared-gpu wants 1"},
		{"no runtime", `RUNTIMES={"runc":{}}`, "managed", "no nvidia runtime|nvidia-ctk runtime configure"},
		{"the other environment", "RUNNING=managed", "baseline", "managed is running|scripts/teardown.sh managed"},
		{"the simulation", "RUNNING=sim", "baseline", "sim is running|scripts/teardown.sh sim"},
		{"other processes", "APPS=4711, python3", "managed", "other processes are on the GPUs: 4711, python3"},
		{"port", "TAKEN=8005", "baseline", "port 8005 is taken|ss -tlnp"},
		{"port of a container", "TAKEN=8080 HOLDER=nginx", "sim", "port 8080 is taken by the container nginx|docker stop nginx"},
		{"token refused", "HUB_CODE=403", "baseline", "may not read meta-llama/Llama-3.1-8B-Instruct (HTTP 403)|accept its licence"},
		{"disk", "FREE_GB=100", "managed", "100 GB are free in /var/lib/docker; want 155|LBD_MIN_DISK_GB=100"},
		{"disk for images", "FREE_GB=20 CACHE=1", "managed", "want 30"},
		{"pull", "UP_FAILS=1", "sim", "pull access denied"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := gpuMachine(t, healthy)
			m.env = append(m.env, splitEnv(c.env)...)
			m.expect(1, strings.Split(c.want, "|"), "deploy.sh", strings.Fields(c.args)...)
			if up := m.called("up --detach"); len(up) > 0 && c.name != "pull" {
				t.Errorf("started all the same: %q", up)
			}
		})
	}
}

// splitEnv parts "A=x y B=z" before each name.
func splitEnv(s string) (vars []string) {
	for _, word := range strings.Fields(s) {
		if name, _, ok := strings.Cut(word, "="); ok && name == strings.ToUpper(name) {
			vars = append(vars, word)
		} else {
			vars[len(vars)-1] += " " + word
		}
	}
	return vars
}

func TestDeployWithoutDocker(t *testing.T) {
	newMachine(t).expect(1, []string{"docker is missing", "docs.docker.com"}, "deploy.sh", "sim")
}

func TestDeployWithoutDriver(t *testing.T) {
	m := gpuMachine(t, healthy)
	if err := os.Remove(filepath.Join(m.bin, "nvidia-smi")); err != nil {
		t.Fatal(err)
	}
	m.expect(1, []string{"nvidia-smi is missing", "scripts/deploy.sh sim"}, "deploy.sh", "baseline")
}

func TestDeployToken(t *testing.T) {
	m := gpuMachine(t, healthy)
	m.write("compose/.env", "#HF_TOKEN=old\nHF_TOKEN=\n", 0o600)
	m.expect(1, []string{"HF_TOKEN is not set", "cp compose/.env.example compose/.env"}, "deploy.sh", "baseline")
	m.env = append(m.env, "HF_TOKEN=hf_other")
	out := m.expect(0, []string{"baseline is up"}, "deploy.sh", "baseline")
	m.write("compose/.env", "HF_TOKEN=\"hf_quoted\"\n", 0o600)
	out += m.expect(0, nil, "deploy.sh", "baseline")
	if seen := append(m.called("hf_"), out); strings.Contains(strings.Join(seen, "\n"), "hf_") {
		t.Errorf("the token shows in a command line or in the output: %q", seen)
	}
}

func TestDeployWaits(t *testing.T) {
	m := gpuMachine(t, starting, loading, healthy)
	out := m.expect(0, []string{
		"vllm-llama-8b-1", "starting", "unhealthy", "healthy", "baseline is up", "http://localhost:8080", "scripts/test_env.sh baseline",
	}, "deploy.sh", "baseline")
	if n := strings.Count(out, "starting\n"); n != 2 {
		t.Errorf("each state is told once; starting is told %d times:\n%s", n, out)
	}
	if up := m.called("compose -f " + m.root + "/compose/baseline.yml up --detach"); len(up) != 1 {
		t.Errorf("calls: %q", m.called("docker"))
	}
}

// A second time the ports are taken and the GPUs busy: by the environment itself.
func TestDeployTwice(t *testing.T) {
	m := gpuMachine(t, healthy)
	m.env = append(m.env, "RUNNING=baseline", "TAKEN=8080", "APPS=4711, python3", "CACHE=1")
	m.expect(0, []string{"baseline is up"}, "deploy.sh", "baseline")
}

func TestDeployMonitoring(t *testing.T) {
	m := gpuMachine(t, monitor)
	m.expect(0, []string{"http://localhost:3000"}, "deploy.sh", "--monitoring", "baseline")
	if len(m.called("--profile monitoring up")) != 1 {
		t.Errorf("calls: %q", m.called("docker"))
	}
}

func TestDeployReplicaFails(t *testing.T) {
	for name, c := range map[string]struct{ page, want string }{
		"crash":     {crashing, "does not stay up (restarting, 3 restarts)"},
		"unhealthy": {unwell, "vllm-llama-8b-1 is unhealthy"},
	} {
		t.Run(name, func(t *testing.T) {
			gpuMachine(t, starting, c.page).expect(1, []string{c.want, "torch.cuda.OutOfMemoryError"}, "deploy.sh", "baseline")
		})
	}
}

func TestDeployTimeout(t *testing.T) {
	gpuMachine(t, starting).expect(1, []string{"these are not healthy: vllm-llama-8b-1 baseline-lb", "docker logs -f"},
		"deploy.sh", "baseline", "--timeout", "0")
}

func TestTeardown(t *testing.T) {
	m := gpuMachine(t)
	m.write("compose/.env", "", 0o600)
	m.env = append(m.env, "RUNNING=managed")
	m.expect(0, []string{"stopping managed", "baseline is not there"}, "teardown.sh", "all", "--volumes")
	down := m.called(" down")
	if len(down) != 1 || !strings.Contains(down[0], "managed.yml") || strings.Contains(down[0], "--volumes") {
		t.Errorf("down: %q", down)
	}
	for _, call := range m.called("volume rm") {
		if strings.Contains(call, "huggingface") {
			t.Errorf("the models are removed: %q", call)
		}
	}
	m.expect(1, []string{`environment "prod"`}, "teardown.sh", "prod")
	m.expect(1, []string{"Usage:"}, "teardown.sh")
}

func TestHelp(t *testing.T) {
	m := newMachine(t)
	for _, script := range []string{"deploy.sh", "teardown.sh", "test_env.sh", "benchmark_all_models.sh"} {
		m.expect(0, []string{"Usage: scripts/" + script}, script, "--help")
		m.expect(1, []string{"Usage: scripts/" + script}, script)
	}
}

// Every other script tells what it is for before it does anything, and where a wrong
// argument would cost a while.
func TestHelpOfTheOthers(t *testing.T) {
	for _, script := range []string{"fuzz.sh", "release.sh", "openai_sdk.sh", "../bench/azure.sh", "../bench/compare.sh"} {
		out, err := exec.Command("bash", script, "--help").CombinedOutput()
		name := filepath.Base(filepath.Dir(filepath.Join("scripts", script))) + "/" + filepath.Base(script)
		if err != nil || !strings.Contains(string(out), "\n  "+name) || strings.Contains(string(out), "set -euo") || strings.HasPrefix(string(out), "#") {
			t.Errorf("%s --help: %v\n%s", script, err, out)
		}
	}
	for _, command := range [][]string{{"fuzz.sh", "soon"}, {"../bench/azure.sh", "README.md", "fast"}} {
		out, err := exec.Command("bash", command...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), `"`+command[len(command)-1]+`"; want `) {
			t.Errorf("%q: %v\n%s", command, err, out)
		}
	}
}

func TestShellcheck(t *testing.T) {
	shellcheck, err := exec.LookPath("shellcheck")
	if err != nil {
		t.Skip("shellcheck is not installed")
	}
	files, err := filepath.Glob("*.sh")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(shellcheck, append([]string{"-x", "-P", ".."}, files...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("shellcheck: %v\n%s", err, out)
	}
}
