package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// tool skips a test on machines without a program, which Go and make do not bring.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed", name)
	}
	return path
}

// output runs a program without the network and without anybody's settings.
func output(t *testing.T, dir, path string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "CHECKPOINT_DISABLE=1", "TF_IN_AUTOMATION=1"}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestTerraformFormat(t *testing.T) {
	if out, err := output(t, "terraform", tool(t, "terraform"), "fmt", "-check", "-diff", "-recursive"); err != nil {
		t.Errorf("terraform fmt: %v\n%s", err, out)
	}
}

// block is the text of a top-level block of a Terraform file.
func block(t *testing.T, file, head string) string {
	t.Helper()
	m := regexp.MustCompile(`(?ms)^` + regexp.QuoteMeta(head) + ` \{$(.*?)^\}$`).FindStringSubmatch(read(t, "terraform/"+file))
	if m == nil {
		t.Fatalf("%s has no %s", file, head)
	}
	return m[1]
}

func TestFirewall(t *testing.T) {
	wall := block(t, "main.tf", `resource "google_compute_firewall" "lbd"`)
	for _, want := range []string{`ports = ["22", "8001-8006", "8080", "8081"]`, `source_ranges = var.allowed_addresses`, `protocol = "tcp"`, `target_tags   = [var.name]`} {
		if !strings.Contains(wall, want) {
			t.Errorf("the firewall lacks %s:\n%s", want, wall)
		}
	}
	if strings.Count(read(t, "terraform/main.tf"), `"google_compute_firewall"`) != 1 {
		t.Error("want one firewall")
	}
	if regexp.MustCompile(`(?m)^\s*default`).MatchString(block(t, "variables.tf", `variable "allowed_addresses"`)) {
		t.Error("allowed_addresses has a default; want whoever applies this to say who may come in")
	}
	machine := block(t, "main.tf", `resource "google_compute_instance" "lbd"`)
	if !strings.Contains(machine, `machine_type = "a3-highgpu-8g"`) || !strings.Contains(machine, "tags         = [var.name]") {
		t.Errorf("the machine is no a3-highgpu-8g, or is outside the firewall:\n%s", machine)
	}
	block(t, "outputs.tf", `output "instance_ip"`)
}

// TestVariables lets terraform itself judge values, in a module without resources:
// those would need Google's provider.
func TestVariables(t *testing.T) {
	terraform := tool(t, "terraform")
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "variables.tf"), []byte(read(t, "terraform/variables.tf")), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := output(t, dir, terraform, "init", "-no-color", "-input=false"); err != nil {
		t.Fatalf("terraform init: %v\n%s", err, out)
	}
	if out, err := output(t, dir, terraform, "validate", "-no-color"); err != nil {
		t.Errorf("terraform validate: %v\n%s", err, out)
	}
	for _, c := range []struct{ addresses, more, want string }{
		{`["203.0.113.7/32"]`, "", ""},
		{`["203.0.113.0/24","10.0.0.0/8","2001:db8::/32"]`, "", ""},
		{`["0.0.0.0/0"]`, "", "none wider than /8"},
		{`["203.0.113.7/32","::/0"]`, "", "none wider than /8"},
		{`["203.0.113.7"]`, "", "want networks like"},
		{`["home"]`, "", "want networks like"},
		{`[]`, "", "want at least your own"},
		{"", "", "No value for required variable"},
		{`["203.0.113.7/32"]`, "zone=us-central1", "want a zone like"},
		{`["203.0.113.7/32"]`, "disk_size_gb=100", "want 250 or more"},
	} {
		args := []string{"plan", "-no-color", "-input=false", "-var=project=p"}
		if c.addresses != "" {
			args = append(args, "-var=allowed_addresses="+c.addresses)
		}
		if c.more != "" {
			args = append(args, "-var="+c.more)
		}
		out, err := output(t, dir, terraform, args...)
		// Terraform breaks long lines and draws a frame around errors.
		text := strings.Join(strings.Fields(strings.ReplaceAll(out, "│", " ")), " ")
		if (err == nil) != (c.want == "") || !strings.Contains(text, c.want) {
			t.Errorf("%s %s: %v; want %q\n%s", c.addresses, c.more, err, c.want, out)
		}
	}
}

func TestStartupScript(t *testing.T) {
	if out, err := output(t, "terraform", tool(t, "shellcheck"), "startup.sh"); err != nil {
		t.Errorf("shellcheck: %v\n%s", err, out)
	}
	script := read(t, "terraform/startup.sh")
	for _, want := range []string{"nvidia-driver-", "docker-compose-plugin", "nvidia-container-toolkit", "nvidia-ctk runtime configure"} {
		if !strings.Contains(script, want) {
			t.Errorf("startup.sh does not install %s", want)
		}
	}
}

// exposed is the worst that systemd-analyze may say of the unit: its scale ends at
// 10, and 2 is the end of what it calls OK.
const exposed = "20"

func TestSystemdUnit(t *testing.T) {
	analyze := tool(t, "systemd-analyze")
	dir := t.TempDir()
	for _, name := range []string{"lbd.service", "lbd.socket", "lbd-admin.socket"} {
		// verify looks for the program, which is not installed here.
		text := strings.ReplaceAll(read(t, "systemd/"+name), "/usr/local/bin/lbd --", "/bin/true --")
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	unit := filepath.Join(dir, "lbd.service")
	for _, name := range []string{"lbd.service", "lbd.socket", "lbd-admin.socket"} {
		if out, err := output(t, "", analyze, "verify", "--man=no", filepath.Join(dir, name)); err != nil || out != "" {
			t.Errorf("systemd-analyze verify %s: %v\n%s", name, err, out)
		}
	}
	if out, err := output(t, "", analyze, "security", "--offline=true", "--no-pager", "--threshold="+exposed, unit); err != nil {
		t.Errorf("systemd-analyze security: %v\n%s", err, out)
	}
}

// The sockets carry the names that lbd knows them by, for the service that takes them.
func TestSystemdSockets(t *testing.T) {
	for file, wants := range map[string][]string{
		"lbd.socket":       {"ListenStream=8080", "FileDescriptorName=" + "listen", "Service=lbd.service", "Accept=no"},
		"lbd-admin.socket": {"ListenStream=127.0.0.1:9901", "FileDescriptorName=" + "admin_listen", "Service=lbd.service", "Accept=no"},
		"lbd.service":      {"Type=notify", "NotifyAccess=main", "KillMode=control-group"},
	} {
		text := read(t, "systemd/"+file)
		for _, want := range wants {
			if !strings.Contains(text, "\n"+want+"\n") {
				t.Errorf("%s lacks %s", file, want)
			}
		}
	}
}

// Every part of the Kubernetes manifests builds, alone and together.
func TestKustomize(t *testing.T) {
	kubectl := tool(t, "kubectl")
	dir, err := filepath.Abs("kubernetes")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ part, kinds string }{
		{"resources: [base]", "Deployment Deployment Namespace PodDisruptionBudget Service Service ServiceAccount ConfigMap"},
		{"resources: [base]\ncomponents: [base/servicemonitor, base/networkpolicy]",
			"Deployment Deployment Namespace NetworkPolicy NetworkPolicy PodDisruptionBudget Service Service ServiceAccount ServiceMonitor ConfigMap"},
		{"resources: [base/lbd]", "Deployment PodDisruptionBudget Service ServiceAccount ConfigMap"},
		{"resources: [base/vllm]", "Deployment Service"},
	} {
		over := t.TempDir() // as somebody's overlay; kustomize follows no link out of it
		if err := os.CopyFS(filepath.Join(over, "base"), os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(over, "kustomization.yaml"), []byte("namespace: llm\n"+c.part+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := output(t, over, kubectl, "kustomize", ".")
		if err != nil {
			t.Errorf("%s: %v\n%s", c.part, err, out)
			continue
		}
		got := regexp.MustCompile(`(?m)^kind: (\w+)$`).FindAllStringSubmatch(out, -1)
		var kinds []string
		for _, m := range got {
			kinds = append(kinds, m[1])
		}
		want := strings.Fields(c.kinds)
		slices.Sort(kinds)
		slices.Sort(want)
		if !slices.Equal(kinds, want) {
			t.Errorf("%s: %v; want %v", c.part, kinds, want)
		}
		if n := strings.Count(out, "namespace: llm"); n < len(want)-1 {
			t.Errorf("%s: %d of %d objects are in the namespace", c.part, n, len(want))
		}
	}
}
