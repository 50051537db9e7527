package main

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"lbd/balancer/strategy"
	"lbd/cmd/lbd/internal/config"
	"lbd/cmd/lbd/internal/daemon"
)

const kubernetes = "../../deploy/kubernetes/"

// manifest reads one; deploy/kubernetes/check holds all of it against Kubernetes' types.
func manifest[T any](t *testing.T, file string) (m T) {
	t.Helper()
	b, err := os.ReadFile(kubernetes + file)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(b, &m); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return m
}

// deployment is what the tests look at of a Deployment.
type deployment struct {
	Spec struct {
		Template struct {
			Spec struct {
				Grace    int `yaml:"terminationGracePeriodSeconds"`
				Security struct {
					RunAsUser int `yaml:"runAsUser"`
				} `yaml:"securityContext"`
				Containers []container
				Volumes    []struct {
					Name      string
					ConfigMap struct{ Name string } `yaml:"configMap"`
				}
			}
		}
	}
}

type container struct {
	Args []string
	Env  []struct{ Name, Value string }
	// Ports is what it listens on.
	Ports []struct {
		Name          string
		ContainerPort int `yaml:"containerPort"`
	}
	Startup   probe `yaml:"startupProbe"`
	Readiness probe `yaml:"readinessProbe"`
	Liveness  probe `yaml:"livenessProbe"`
	Lifecycle struct {
		PreStop struct{ Sleep struct{ Seconds int } } `yaml:"preStop"`
	}
	Mounts []struct {
		Name string
		Path string `yaml:"mountPath"`
	} `yaml:"volumeMounts"`
}

type probe struct {
	HTTPGet   struct{ Path, Port string } `yaml:"httpGet"`
	TCPSocket struct{ Port string }       `yaml:"tcpSocket"`
}

type service struct {
	Spec struct {
		ClusterIP       string `yaml:"clusterIP"`
		PublishNotReady bool   `yaml:"publishNotReadyAddresses"`
		Ports           []struct {
			Port       int
			TargetPort string `yaml:"targetPort"`
		}
	}
	Metadata struct{ Name string }
}

func (w *deployment) only(t *testing.T) (*container, time.Duration) {
	t.Helper()
	if len(w.Spec.Template.Spec.Containers) != 1 || len(w.Spec.Template.Spec.Containers[0].Ports) != 1 {
		t.Fatalf("%+v; want one container with one port", w.Spec.Template.Spec)
	}
	return &w.Spec.Template.Spec.Containers[0], time.Duration(w.Spec.Template.Spec.Grace) * time.Second
}

func (c *container) preStop() time.Duration {
	return time.Duration(c.Lifecycle.PreStop.Sleep.Seconds) * time.Second
}

// kubernetesConfig is the configuration of the ConfigMap, as `lbd check` takes it.
func kubernetesConfig(t *testing.T) *config.Config {
	t.Helper()
	c, err := config.Load(config.Options{
		Environ: []string{"LBD_CONFIG=" + kubernetes + "lbd/lbd.yml"}, Strategies: strategy.Names(), ReadFile: os.ReadFile,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := daemon.Check(c); err != nil {
		t.Fatal(err)
	}
	return c
}

// afterDrain is how long lbd may take from the end of its drain to its own: the log gets
// 5 s twice.
const afterDrain = 10 * time.Second

// What the Deployment says of lbd is what its configuration says.
func TestKubernetesDeployment(t *testing.T) {
	cfg := kubernetesConfig(t)
	w := manifest[deployment](t, "lbd/deployment.yaml")
	c, grace := w.only(t)
	_, port, err := net.SplitHostPort(cfg.Listen)
	if err != nil || port != strconv.Itoa(c.Ports[0].ContainerPort) {
		t.Errorf("the container has port %d, lbd listens on %q", c.Ports[0].ContainerPort, cfg.Listen)
	}
	if at, err := netip.ParseAddrPort(cfg.AdminListen); err != nil || !at.Addr().IsLoopback() {
		t.Errorf("admin_listen is %q; want loopback", cfg.AdminListen)
	}
	if want := c.preStop() + cfg.DrainTimeout + afterDrain; c.preStop() == 0 || grace < want {
		t.Errorf("a grace period of %v, of which preStop takes %v; want %v at least, and a preStop", grace, c.preStop(), want)
	}
	if c.Readiness.HTTPGet.Path != "/health" || c.Readiness.HTTPGet.Port != c.Ports[0].Name {
		t.Errorf("readiness by %+v; want /health of port %s", c.Readiness, c.Ports[0].Name)
	}
	if c.Liveness.HTTPGet.Path != "" || c.Liveness.TCPSocket.Port != c.Ports[0].Name || c.Startup != (probe{}) {
		t.Errorf("liveness by %+v, startup by %+v; want that it listens, and nothing", c.Liveness, c.Startup)
	}
	docker, err := os.ReadFile("../../Dockerfile")
	if user := w.Spec.Template.Spec.Security.RunAsUser; err != nil || !strings.Contains(string(docker), "USER "+strconv.Itoa(user)+":") {
		t.Errorf("it runs as %d, %v; want the image's user", user, err)
	}
}

// The file of the ConfigMap is where lbd looks for it.
func TestKubernetesConfigMap(t *testing.T) {
	w := manifest[deployment](t, "lbd/deployment.yaml")
	c, _ := w.only(t)
	k := manifest[struct {
		ConfigMaps []struct {
			Name  string
			Files []string
		} `yaml:"configMapGenerator"`
	}](t, "lbd/kustomization.yaml")
	volumes := w.Spec.Template.Spec.Volumes
	if len(k.ConfigMaps) != 1 || len(volumes) != 1 || len(c.Mounts) != 1 || len(c.Env) < 1 {
		t.Fatalf("config maps %+v, volumes %+v, mounts %+v; want one of each", k.ConfigMaps, volumes, c.Mounts)
	}
	m := k.ConfigMaps[0]
	if volumes[0].ConfigMap.Name != m.Name || c.Mounts[0].Name != volumes[0].Name || !slices.Equal(m.Files, []string{"lbd.yml"}) {
		t.Errorf("config map %+v in volume %+v at %+v", m, volumes[0], c.Mounts[0])
	}
	if want := filepath.Join(c.Mounts[0].Path, "lbd.yml"); c.Env[0].Name != "LBD_CONFIG" || c.Env[0].Value != want {
		t.Errorf("%+v; want LBD_CONFIG to be %s", c.Env[0], want)
	}
}

// dnsCache is how long the DNS server of a cluster keeps an answer, as kubeadm sets it up
// (cache 30).
const dnsCache = 30 * time.Second

// lbd finds the replicas under the name and the port that they have, and they wait for it
// to have noticed before they end.
func TestKubernetesReplicas(t *testing.T) {
	cfg := kubernetesConfig(t)
	w := manifest[deployment](t, "vllm/deployment.yaml")
	c, grace := w.only(t)
	s, top := manifest[service](t, "vllm/service.yaml"), manifest[struct{ Namespace string }](t, "kustomization.yaml")
	if s.Spec.ClusterIP != "None" || s.Spec.PublishNotReady {
		t.Errorf("%+v; want a headless Service of pods that are ready", s.Spec)
	}
	if len(cfg.Endpoints) != 1 || len(s.Spec.Ports) != 1 {
		t.Fatalf("endpoints %v, ports %v; want one of each", cfg.Endpoints, s.Spec.Ports)
	}
	port := strconv.Itoa(c.Ports[0].ContainerPort)
	if want := "dns+http://" + s.Metadata.Name + "." + top.Namespace + ".svc.cluster.local:" + port; cfg.Endpoints[0].String() != want {
		t.Errorf("the endpoint is %s; want %s", cfg.Endpoints[0], want)
	}
	if s.Spec.Ports[0].TargetPort != c.Ports[0].Name || !slices.Contains(c.Args, "--port="+port) {
		t.Errorf("port %s of the container, %+v of the Service, arguments %q", port, s.Spec.Ports, c.Args)
	}
	for _, p := range []probe{c.Startup, c.Readiness, c.Liveness} {
		if p.HTTPGet.Path != cfg.HealthPath || p.HTTPGet.Port != c.Ports[0].Name {
			t.Errorf("probe %+v; want %s of port %s, as lbd", p, cfg.HealthPath, c.Ports[0].Name)
		}
	}
	if noticed := dnsCache + cfg.DNSRefreshInterval; c.preStop() < 2*noticed {
		t.Errorf("preStop of %v; want twice the %v until lbd has noticed", c.preStop(), noticed)
	}
	i := slices.IndexFunc(c.Args, func(a string) bool { return strings.HasPrefix(a, "--shutdown-timeout=") })
	if i < 0 {
		t.Fatalf("arguments %q; want --shutdown-timeout", c.Args)
	}
	seconds, err := strconv.Atoi(strings.TrimPrefix(c.Args[i], "--shutdown-timeout="))
	if want := c.preStop() + time.Duration(seconds)*time.Second + afterDrain; err != nil || grace < want {
		t.Errorf("a grace period of %v, %v; want %v at least", grace, err, want)
	}
}
