package load

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
)

// Models asks the target's GET /v1/models for the names it serves.
func Models(ctx context.Context, targetURL, apiKey string) ([]string, error) {
	t, err := parseTarget(targetURL)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, t.base+"/v1/models", nil)
	if err != nil {
		return nil, fmt.Errorf("cannot list models: %w", err)
	}
	if apiKey != "" {
		req.Header.Set("Authorization", "Bearer "+apiKey)
	}
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return nil, fmt.Errorf("cannot list models: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	if err != nil {
		return nil, fmt.Errorf("cannot list models: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		_, message := apiError(body)
		return nil, fmt.Errorf("cannot list models: %s: %s", resp.Status, message)
	}
	return modelNames(body)
}

func modelNames(body []byte) ([]string, error) {
	var list struct {
		Data []struct {
			ID string `json:"id"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, fmt.Errorf("cannot list models: answer %q: %w", clip(body), err)
	}
	var names []string
	for _, m := range list.Data {
		if m.ID != "" {
			names = append(names, m.ID)
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("cannot list models: the target serves none")
	}
	return names, nil
}
