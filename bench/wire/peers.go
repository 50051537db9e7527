//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// place is where a proxy runs: what its configuration is made from.
type place struct {
	dir      string
	port     int
	admin    int // lbd's second listener
	replicas []int
	cores    int
	files    int // descriptors a process may have
}

// peer is a proxy, or a way to configure one.
type peer struct {
	name   string
	binary string // as exec.LookPath takes it; empty: nothing is started
	// command writes the configuration and returns the arguments.
	command func(p place) ([]string, error)
	version []string // arguments that print it
	lbd     bool
	head    string // as in variant
	tls     bool
}

// direct is the client talking to a replica: what latency is added to.
const direct = "direct"

// rivals are the peers beside lbd, in the order of the tables.
var rivals = []peer{
	{name: direct},
	{name: "relay", binary: "/proc/self/exe", command: relay},
	{name: "haproxy-tcp", binary: "haproxy", command: haproxy("tcp"), version: []string{"-v"}},
	{name: "haproxy", binary: "haproxy", command: haproxy("http"), version: []string{"-v"}},
	{name: "nginx", binary: "nginx", command: nginx, version: []string{"-v"}},
	{name: "caddy", binary: "caddy", command: caddy, version: []string{"version"}},
}

// lbdPeer is one build of lbd with some flags.
func lbdPeer(name, binary string, args []string) peer {
	return peer{name: name, binary: binary, lbd: true, version: []string{"version"}, command: func(p place) ([]string, error) {
		var urls []string
		for _, r := range p.replicas {
			urls = append(urls, fmt.Sprintf("http://127.0.0.1:%d", r))
		}
		return append([]string{
			"--listen", fmt.Sprintf("127.0.0.1:%d", p.port),
			"--admin-listen", fmt.Sprintf("127.0.0.1:%d", p.admin),
			"--endpoints", strings.Join(urls, ","),
			"--strategy", "least-waiting",
		}, inDir(args, p.dir)...), nil
	}}
}

func inDir(args []string, dir string) (out []string) {
	for _, a := range args {
		out = append(out, strings.ReplaceAll(a, "$dir", dir))
	}
	return out
}

// servers repeats a line for each replica.
func servers(format string, replicas []int) string {
	var b strings.Builder
	for i, port := range replicas {
		b.WriteString(strings.NewReplacer("$i", strconv.Itoa(i+1), "$port", strconv.Itoa(port)).Replace(format))
	}
	return b.String()
}

func write(dir, name, text string) (string, error) {
	path := filepath.Join(dir, name)
	return path, os.WriteFile(path, []byte(text), 0o644)
}

// nginx as its manual says for streams: buffering off, connections to the
// replicas kept. A body of 100 KB stays in memory, which is nginx's best.
func nginx(p place) ([]string, error) {
	path, err := write(p.dir, "nginx.conf", fmt.Sprintf(`daemon off;
worker_processes %[1]d;
worker_rlimit_nofile %[2]d;
pid %[3]s/nginx.pid;
error_log stderr error;
events { worker_connections %[2]d; }
http {
	access_log off;
	client_body_temp_path %[3]s/nginx-body;
	proxy_temp_path %[3]s/nginx-proxy;
	fastcgi_temp_path %[3]s/nginx-fastcgi;
	uwsgi_temp_path %[3]s/nginx-uwsgi;
	scgi_temp_path %[3]s/nginx-scgi;
	keepalive_requests 1000000000;
	client_max_body_size 256m;
	client_body_buffer_size 128k;
	upstream replicas {
%[4]s		keepalive 1024;
		keepalive_requests 1000000000;
	}
	server {
		listen 127.0.0.1:%[5]d backlog=4096;
		location / {
			proxy_pass http://replicas;
			proxy_http_version 1.1;
			proxy_set_header Connection "";
			proxy_buffering off;
			proxy_read_timeout 1h;
		}
	}
}
`, p.cores, p.files, p.dir, servers("\t\tserver 127.0.0.1:$port;\n", p.replicas), p.port))
	return []string{"-p", p.dir, "-c", path}, err
}

func haproxy(mode string) func(p place) ([]string, error) {
	return func(p place) ([]string, error) {
		reuse := ""
		if mode == "http" {
			// Without http-no-delay HAProxy holds an event back up to 200 ms, waiting
			// for more of the body to fill a packet with.
			reuse = "	http-reuse always\n	option http-no-delay\n"
		}
		path, err := write(p.dir, "haproxy-"+mode+".cfg", fmt.Sprintf(`global
	nbthread %d
	maxconn %d
defaults
	mode %s
	timeout connect 5s
	timeout client 1h
	timeout server 1h
%sfrontend front
	bind 127.0.0.1:%d backlog 4096
	default_backend replicas
backend replicas
	balance roundrobin
%s`, p.cores, (p.files-100)/2, mode, reuse, p.port, servers("\tserver r$i 127.0.0.1:$port\n", p.replicas)))
		return []string{"-db", "-f", path}, err
	}
}

func caddy(p place) ([]string, error) {
	path, err := write(p.dir, "Caddyfile", fmt.Sprintf(`{
	admin off
	auto_https off
}
http://:%d {
	bind 127.0.0.1
	reverse_proxy%s {
		flush_interval -1
		lb_policy round_robin
		transport http {
			keepalive_idle_conns_per_host 1024
			max_conns_per_host 0
		}
	}
}
`, p.port, servers(" 127.0.0.1:$port", p.replicas)))
	return []string{"run", "--adapter", "caddyfile", "--config", path}, err
}

var versionNumber = regexp.MustCompile(`v?\d+\.\d+(\.\d+)?[-+.\w]*`)

// find returns where the program is and what version.
func (p peer) find() (path, version string, err error) {
	if p.binary == "" {
		return "", "", nil
	}
	if p.binary == "/proc/self/exe" {
		path, err = self()
		return path, "own", err
	}
	if path, err = exec.LookPath(p.binary); err != nil {
		return "", "", errors.Unwrap(err)
	}
	out, _ := exec.Command(path, p.version...).CombinedOutput()
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	if v := versionNumber.FindString(line); v != "" {
		line = v
	}
	return path, line, nil
}
