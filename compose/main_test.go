package compose

import (
	"os"
	"slices"
	"strconv"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"go.uber.org/goleak"
)

// scratch is a directory for what all tests use.
var scratch string

func TestMain(m *testing.M) {
	var err error
	if scratch, err = os.MkdirTemp("", "compose"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(scratch)
		os.Exit(code)
	}))
}

// load reads a compose file as `docker compose --profile monitoring` does, with
// these variables and no other.
func load(t *testing.T, file string, env ...string) *types.Project {
	t.Helper()
	p, err := loadError(t, file, env...)
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return p
}

func loadError(t *testing.T, file string, env ...string) (*types.Project, error) {
	t.Helper()
	o, err := cli.NewProjectOptions([]string{file}, cli.WithEnv(env), cli.WithProfiles([]string{"monitoring"}))
	if err != nil {
		t.Fatal(err)
	}
	return o.LoadProject(t.Context())
}

const token = "HF_TOKEN=hf_test"

// environments are the files a user starts.
var environments = []string{"baseline.yml", "managed.yml", "shared-gpu.yml", "sim.yml"}

func service(t *testing.T, p *types.Project, name string) types.ServiceConfig {
	t.Helper()
	s, ok := p.Services[name]
	if !ok {
		t.Fatalf("%s has no service %q; it has %q", p.Name, name, p.ServiceNames())
	}
	return s
}

// published lists the ports of a service as "host:container".
func published(s types.ServiceConfig) (ports []string) {
	for _, p := range s.Ports {
		ports = append(ports, p.Published+":"+strconv.FormatUint(uint64(p.Target), 10))
	}
	return ports
}

// gpus lists the devices that a service reserves.
func gpus(t *testing.T, s types.ServiceConfig) []string {
	t.Helper()
	if s.Deploy == nil || s.Deploy.Resources.Reservations == nil {
		return nil
	}
	var ids []string
	for _, d := range s.Deploy.Resources.Reservations.Devices {
		if d.Driver != "nvidia" || !slices.Equal(d.Capabilities, []string{"gpu"}) {
			t.Errorf("%s reserves a device of driver %q with %q; want nvidia with gpu", s.Name, d.Driver, d.Capabilities)
		}
		ids = append(ids, d.IDs...)
	}
	return ids
}

// env is the value of a variable of a service, "" when it is not set.
func env(s types.ServiceConfig, name string) string {
	if v := s.Environment[name]; v != nil {
		return *v
	}
	return ""
}

// flags reads a command line of the form "words... --flag value --switch".
func flags(command []string) (words []string, set map[string]string) {
	set = map[string]string{}
	for i := 0; i < len(command); i++ {
		name := command[i]
		if len(name) < 2 || name[:2] != "--" {
			words = append(words, name)
			continue
		}
		set[name] = ""
		if i+1 < len(command) && (len(command[i+1]) < 2 || command[i+1][:2] != "--") {
			i++
			set[name] = command[i]
		}
	}
	return words, set
}
