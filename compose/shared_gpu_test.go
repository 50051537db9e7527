package compose

import (
	"slices"
	"strings"
	"testing"
)

// Every tenant's engine is on the one GPU, and lbd knows that they share it.
func TestSharedGPU(t *testing.T) {
	p := load(t, "shared-gpu.yml", token, "SHARED_GPU=3")
	lb := service(t, p, "shared-gpu-lb")
	got := inForce(t, lbd(t), lb)
	if got.Listen != ":8082" || !slices.Equal(published(lb), []string{"8082:8082"}) {
		t.Errorf("lbd listens on %s and publishes %q", got.Listen, published(lb))
	}
	if len(got.Models) < 3 {
		t.Errorf("%d models; want those of several tenants", len(got.Models))
	}
	tenants := map[string]bool{}
	for _, m := range got.Models {
		if len(m.Aliases) != 1 || tenants[m.Aliases[0]] {
			t.Errorf("%s has aliases %q; want a tenant of its own", m.Name, m.Aliases)
			continue
		}
		tenants[m.Aliases[0]] = true
		for _, r := range m.Replicas {
			host := strings.TrimSuffix(strings.TrimPrefix(r.URL, "http://"), ":8000")
			s := service(t, p, host)
			if s.Command[2] != m.Name {
				t.Errorf("%s serves %q; lbd takes it for %q", host, s.Command[2], m.Name)
			}
			if r.Device != "gpu0" || !slices.Equal(gpus(t, s), []string{"3"}) {
				t.Errorf("%s is on GPU %q, device %q", host, gpus(t, s), r.Device)
			}
			if !strings.HasPrefix(env(s, "KVCACHED_IPC_NAME"), m.Aliases[0]) {
				t.Errorf("%s: IPC name %q; want the tenant %q before it", host, env(s, "KVCACHED_IPC_NAME"), m.Aliases[0])
			}
			if env(s, "VLLM_HTTP_TIMEOUT_KEEP_ALIVE") != "120" {
				t.Errorf("%s: keep-alive %q", host, env(s, "VLLM_HTTP_TIMEOUT_KEEP_ALIVE"))
			}
			checkServer(t, s)
		}
	}
}
