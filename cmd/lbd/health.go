package main

import (
	"cmp"
	"context"
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
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if url == "" {
				url = ownHealthURL(os.Getenv("LBD_LISTEN"))
			}
			return askHealth(cmd.Context(), cmd.OutOrStdout(), url)
		},
	}
	cmd.Flags().StringVar(&url, "url", "", "URL to ask (default: /health at LBD_LISTEN, or at :8080 on this machine)")
	return cmd
}

// ownHealthURL turns a listen address into the URL of its health page.
func ownHealthURL(listen string) string {
	host, port, err := net.SplitHostPort(cmp.Or(listen, ":8080"))
	if err != nil {
		host, port = "", "8080"
	}
	if ip := net.ParseIP(host); host == "" || (ip != nil && ip.IsUnspecified()) {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, port) + "/health"
}

func askHealth(ctx context.Context, out io.Writer, url string) error {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return usagef("--url %q is not a URL; want http://host:port/health", url)
	}
	resp, err := http.DefaultClient.Do(req)
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
