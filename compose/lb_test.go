package compose

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

// lbs lists each lbd of a file.
var lbs = map[string][]string{
	"baseline.yml": {"baseline-lb"}, "managed.yml": {"managed-lb"}, "shared-gpu.yml": {"shared-gpu-lb"},
	"sim.yml": {"baseline-lb", "managed-lb"},
}

// build makes the program once, for all tests that ask it.
var build = sync.OnceValues(func() (string, error) {
	bin := filepath.Join(scratch, "lbd")
	if out, err := exec.Command("go", "build", "-o", bin, "lbd/cmd/lbd").CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return bin, nil
})

func lbd(t *testing.T) string {
	t.Helper()
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

func TestLbIsConfined(t *testing.T) {
	for file, names := range lbs {
		for _, name := range names {
			s := service(t, load(t, file, token), name)
			if s.ContainerName != name {
				t.Errorf("%s: container name %q; want %q", file, s.ContainerName, name)
			}
			confined(t, file, s)
			if s.Image != "lbd:local" || s.PullPolicy != types.PullPolicyNever {
				t.Errorf("%s: %s runs %q, pulled %q; want what is built here", file, name, s.Image, s.PullPolicy)
			}
			for _, p := range s.Ports {
				if p.Target == 9901 || len(s.Ports) > 1 {
					t.Errorf("%s: %s publishes %v; want its main listener alone", file, name, s.Ports)
				}
			}
			if s.NetworkMode == "host" {
				t.Errorf("%s: %s has the host's network, and so its admin listener has", file, name)
			}
		}
	}
}

// The engine's default seccomp profile applies to all, and nobody is privileged.
func TestNothingIsUnconfined(t *testing.T) {
	for file := range lbs {
		for name, s := range load(t, file, token).Services {
			unconfined := slices.ContainsFunc(s.SecurityOpt, func(o string) bool { return strings.Contains(o, "unconfined") })
			if unconfined || s.Privileged || !slices.Contains(s.SecurityOpt, "no-new-privileges:true") {
				t.Errorf("%s: %s: privileged %t, security_opt %q", file, name, s.Privileged, s.SecurityOpt)
			}
		}
	}
}

// One service builds the image for all of its file: two builds at once of one tag
// leave it to chance which one runs where.
func TestOneServiceBuilds(t *testing.T) {
	for _, file := range environments {
		var targets []string
		for _, s := range load(t, file, token, "LBD_TARGET=prebuilt").Services {
			if s.Build != nil {
				targets = append(targets, s.Build.Target)
			}
		}
		if !slices.Equal(targets, []string{"prebuilt"}) {
			t.Errorf("%s: services build targets %q; want one, of the target that is asked for", file, targets)
		}
	}
}

// confined holds that a container of lbd can do nothing but compute and talk.
func confined(t *testing.T, file string, s types.ServiceConfig) {
	t.Helper()
	if s.User != "65532:65532" || !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) ||
		!slices.Equal(s.SecurityOpt, []string{"no-new-privileges:true"}) || s.Privileged {
		t.Errorf("%s: %s: user %q, read-only %t, drops %q, %q", file, s.Name, s.User, s.ReadOnly, s.CapDrop, s.SecurityOpt)
	}
}

// Replicas load for minutes. lbd must not wait for that, and must be gone before
// they stop.
func TestLbStartsFirst(t *testing.T) {
	for file, names := range lbs {
		for _, name := range names {
			s := service(t, load(t, file, token), name)
			if len(s.DependsOn) != len(endpoints(t, s)) {
				t.Errorf("%s: %s depends on %d services but has %d endpoints", file, name, len(s.DependsOn), len(endpoints(t, s)))
			}
			for on, d := range s.DependsOn {
				if d.Condition != types.ServiceConditionStarted {
					t.Errorf("%s: %s waits until %s is %s", file, name, on, d.Condition)
				}
			}
		}
	}
}

// settings is what `lbd config` says is in force in a container.
type settings struct {
	Listen, Strategy string
	AdminListen      string `yaml:"admin_listen"`
	Endpoints        []string
	Models           []pinned
}

// pinned is a model whose replicas stand in the file.
type pinned struct {
	Name     string
	Aliases  []string
	Replicas []struct{ URL, Device string }
}

// inForce asks lbd itself, with the variables and the file of the container.
func inForce(t *testing.T, bin string, s types.ServiceConfig) settings {
	t.Helper()
	if out, err := ask(t, bin, s, "check"); err != nil {
		t.Errorf("%s would not start: %v\n%s", s.Name, err, out)
	}
	out, err := ask(t, bin, s, "config")
	if err != nil {
		t.Fatalf("lbd config: %v\n%s", err, out)
	}
	var got settings
	if err := yaml.Unmarshal([]byte(out), &got); err != nil {
		t.Fatalf("lbd config: %v\n%s", err, out)
	}
	return got
}

// ask runs a command of lbd on the configuration of a container. check wants a
// file, so a container without one gets an empty one.
func ask(t *testing.T, bin string, s types.ServiceConfig, command string) (string, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "lbd.yml")
	if err := os.WriteFile(file, []byte("{}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if path := env(s, "LBD_CONFIG"); path != "" {
		file = hostPath(t, s, path)
	}
	cmd := exec.Command(bin, command, "--config", file)
	cmd.Env = []string{}
	for name, v := range s.Environment {
		if v != nil && name != "LBD_CONFIG" {
			cmd.Env = append(cmd.Env, name+"="+*v)
		}
	}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// Opened to the other containers, the admin listener has a token or lbd does not
// start.
func TestAdminListenerCanBeOpened(t *testing.T) {
	for _, c := range []struct {
		env  []string
		want bool
	}{
		{[]string{token, "LBD_ADMIN_LISTEN=:9901", "LBD_ADMIN_TOKEN=0123456789abcdef0123456789abcdef"}, true},
		{[]string{token, "LBD_ADMIN_LISTEN=:9901"}, false},
	} {
		out, err := ask(t, lbd(t), service(t, load(t, "managed.yml", c.env...), "managed-lb"), "check")
		if (err == nil) != c.want {
			t.Errorf("with %q: %v\n%s", c.env, err, out)
		}
	}
}

// hostPath is the file of this folder that a container sees at path.
func hostPath(t *testing.T, s types.ServiceConfig, path string) string {
	t.Helper()
	for _, v := range s.Volumes {
		if v.Target == path && v.ReadOnly {
			return v.Source
		}
	}
	t.Fatalf("%s: nothing is mounted read-only at %s", s.Name, path)
	return ""
}

// endpoints lists the hosts an lbd knows, from its variables or its file.
func endpoints(t *testing.T, s types.ServiceConfig) (hosts []string) {
	t.Helper()
	text := env(s, "VLLM_ENDPOINTS")
	if text == "" {
		b, err := os.ReadFile(hostPath(t, s, env(s, "LBD_CONFIG")))
		if err != nil {
			t.Fatal(err)
		}
		text = string(b)
	}
	for _, part := range strings.Split(text, "http://")[1:] {
		host, _, _ := strings.Cut(part, ":")
		hosts = append(hosts, host)
	}
	return hosts
}

// What the containers are given is what lbd understands.
func TestLbConfigurations(t *testing.T) {
	bin := lbd(t)
	for _, c := range []struct{ file, lb, listen, strategy string }{
		{"baseline.yml", "baseline-lb", ":8080", "cycle"},
		{"managed.yml", "managed-lb", ":8081", "least-cost"},
		{"sim.yml", "baseline-lb", ":8080", "cycle"},
		{"sim.yml", "managed-lb", ":8081", "least-cost"},
	} {
		s := service(t, load(t, c.file, token), c.lb)
		want := settings{Listen: c.listen, Strategy: c.strategy, AdminListen: "127.0.0.1:9901", Models: []pinned{}}
		for _, r := range six {
			want.Endpoints = append(want.Endpoints, fmt.Sprintf("http://%s:8000", r.name))
		}
		if diff := cmp.Diff(want, inForce(t, bin, s)); diff != "" {
			t.Errorf("%s: %s (-want +got):\n%s", c.file, c.lb, diff)
		}
		if got, want := published(s), []string{c.listen[1:] + c.listen}; !slices.Equal(got, want) {
			t.Errorf("%s: %s publishes %q; want %q", c.file, c.lb, got, want)
		}
	}
}
