package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/spf13/cobra"
)

// healthTimeout is how long a running lbd may take to answer; container
// engines kill a check after 30 s by default.
const healthTimeout = 3 * time.Second

// newHealthCommand returns `lbd health`, the health check of the container
// image, which has no curl in it.
func newHealthCommand() *cobra.Command {
	var url string
	cmd := &cobra.Command{
		Use:   "health [flags]",
		Short: "Ask a running lbd for its health; exit 0 when it can serve",
		Long: `Ask a running lbd for /health and print the answer. Exits with 0 when a replica is
healthy, else with 1. In a container lbd's own flags are not seen: set LBD_LISTEN or
LBD_CONFIG there, or give the same --config, or --url.`,
		Example: `  lbd health
  lbd health --config lbd.yml
  lbd health --url http://127.0.0.1:8081/ready`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			own := url == ""
			if own {
				if err := readable(cmd); err != nil {
					return err
				}
				listen, secure := ownListen(cmd)
				url = ownHealthURL(listen, secure)
			}
			return askHealth(cmd.Context(), cmd.OutOrStdout(), url, own)
		},
	}
	cmd.Flags().StringVar(&url, "url", "", "URL to ask (default: /health of the lbd that this file and environment configure)")
	cmd.Flags().StringP("config", "c", "", "configuration `file` of the lbd to ask (default: $LBD_CONFIG)")
	return cmd
}

// readable refuses a file that was named here and cannot be read: the answer would be
// that of another lbd. What else may be wrong in it is told by lbd check.
func readable(cmd *cobra.Command) error {
	path := cmd.Flags().Lookup("config")
	if !path.Changed {
		return nil
	}
	if _, err := os.ReadFile(path.Value.String()); err != nil {
		return usagef("--config: cannot read the configuration: %w", err)
	}
	return nil
}

// ownListen is where an lbd with this file and environment listens. Without a
// valid configuration, since the flags of that lbd are not known here, the
// variable alone is the best guess.
func ownListen(cmd *cobra.Command) (listen string, secure bool) {
	if cfg, err := loadConfig(cmd); err == nil {
		return cfg.Listen, cfg.TLSCertFile != ""
	}
	return os.Getenv("LBD_LISTEN"), os.Getenv("LBD_TLS_CERT_FILE") != ""
}

// ownHealthURL turns a listen address into the URL of its health page.
func ownHealthURL(listen string, secure bool) string {
	host, port, err := net.SplitHostPort(cmp.Or(listen, ":8080"))
	if err != nil {
		host, port = "", "8080"
	}
	if ip := net.ParseIP(host); host == "" || (ip != nil && ip.IsUnspecified()) {
		host = "127.0.0.1"
	}
	scheme := "http://"
	if secure {
		scheme = "https://"
	}
	return scheme + net.JoinHostPort(host, port) + "/health"
}

// askHealth asks one URL. own says that it is the lbd beside this command: the name
// in its certificate is that of the service and not of this address, and nothing
// secret is sent or believed.
func askHealth(ctx context.Context, out io.Writer, url string, own bool) error {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil || req.URL.Host == "" || req.URL.Scheme != "http" && req.URL.Scheme != "https" {
		return usagef("--url %q is not a URL; want http://host:port/health", url)
	}
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: own}, DisableKeepAlives: true,
	}}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("no answer: %w", err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	fmt.Fprintf(out, "%s\n", body)
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("unhealthy: %s from %s", resp.Status, url)
	}
	return nil
}
