package poll

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"lbd/balancer"
)

// modelsState is guarded by target.mu.
type modelsState struct {
	underWay bool
	failing  failing
	// wanted: somebody asked for a new reading.
	wanted bool
	// began is when the last reading was sent, zero before the first.
	began time.Time
}

// due says whether to read now; at once leaves out the gap between readings that
// were asked for.
func (m *modelsState) due(cfg *Config, now time.Time, unlearned, atOnce bool) bool {
	age := now.Sub(m.began)
	return m.began.IsZero() || age >= cfg.ModelsInterval || (unlearned || m.wanted) && (age >= relearnGap || unlearned && atOnce)
}

// startLearn begins a reading of /v1/models if one is due.
func (p *Poller) startLearn(t *target, cfg *Config, unlearned, atOnce bool) {
	now := p.opts.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	m := &t.models
	if !m.due(cfg, now, unlearned, atOnce) {
		return
	}
	if m.underWay {
		m.wanted = m.wanted || atOnce // what is under way was asked before the change
		return
	}
	m.underWay, m.wanted, m.began = true, false, now
	r := t.replica
	p.wg.Go(func() {
		p.slot(cfg.Timeout, func(ctx context.Context) { p.learn(ctx, t, r, cfg.key(r.Listed)) })
		t.mu.Lock()
		t.models.underWay = false
		t.mu.Unlock()
	})
}

func (p *Poller) learn(ctx context.Context, t *target, r *balancer.Replica, key string) {
	models, err := p.readModels(ctx, r, key)
	if p.ctx.Err() != nil {
		return
	}
	if err == nil {
		p.fleet.SetModels(r.ID, models)
	} else {
		t.modelFailures.Add(1)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch was := t.models.failing; {
	case t.models.failing.news(err):
		p.tellFailed(ModelsFailed, t, err)
	case err == nil && was != answering:
		p.tell(ModelsRecovered, t, "")
	}
}

func (p *Poller) readModels(ctx context.Context, r *balancer.Replica, key string) ([]balancer.ModelInfo, error) {
	status, body, err := p.opts.Fetcher.Fetch(ctx, r, modelsPath, key, nil)
	switch {
	case err != nil:
		return nil, err
	case status == http.StatusUnauthorized:
		return nil, refusal{errors.New(modelsPath + ": status 401; want the replica's API key as upstream_api_key or replica_api_key")}
	case status == http.StatusNotFound && strings.HasSuffix(r.Endpoint.String(), "/v1"): // as in base URLs of OpenAI's clients
		return nil, refusal{fmt.Errorf("%s: status 404 at %q; want the endpoint without /v1, which the paths of requests have",
			modelsPath, r.Endpoint.String()+modelsPath)}
	case status >= 500:
		return nil, fmt.Errorf("%s: status %d", modelsPath, status) // it may be loading
	case status != http.StatusOK:
		return nil, refusal{fmt.Errorf("%s: status %d", modelsPath, status)}
	}
	models, err := parseModels(body)
	if err != nil {
		return nil, refusal{err}
	}
	return models, nil
}

// Bounds of what a replica may list. Each model costs series in lbd's own metrics and
// a place in its answers; servers of LoRA adapters list thousands. A name may be a path,
// which Linux bounds at 4096 bytes (PATH_MAX).
const (
	maxModels = 10_000
	maxName   = 4096
)

// parseModels reads OpenAI's list of models. An entry that makes no sense spoils
// the list: half a list would take models out of service.
func parseModels(body []byte) ([]balancer.ModelInfo, error) {
	var list struct {
		Data *[]json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, fmt.Errorf("%s is no list of models: %w", modelsPath, err)
	}
	if list.Data == nil {
		return nil, errors.New(modelsPath + ` has no "data"; want a list of models`)
	}
	if n := len(*list.Data); n > maxModels {
		return nil, fmt.Errorf("%s lists %d models; want at most %d", modelsPath, n, maxModels)
	}
	models := make([]balancer.ModelInfo, 0, len(*list.Data))
	seen := make(map[string]bool, len(*list.Data))
	for i, raw := range *list.Data {
		var entry struct {
			ID string `json:"id"`
		}
		if err := json.Unmarshal(raw, &entry); err != nil {
			return nil, fmt.Errorf("%s: entry %d: %w", modelsPath, i, err)
		}
		if err := checkName(entry.ID); err != nil {
			return nil, fmt.Errorf("%s: entry %d has %w", modelsPath, i, err)
		}
		if !seen[entry.ID] {
			seen[entry.ID] = true
			models = append(models, balancer.ModelInfo{ID: entry.ID, Raw: raw})
		}
	}
	return models, nil
}

// checkName refuses names that no operator has given.
func checkName(id string) error {
	switch {
	case id == "":
		return errors.New("no id")
	case len(id) > maxName:
		return fmt.Errorf("an id of %d bytes, %.40q...; want at most %d", len(id), id, maxName)
	case strings.ContainsFunc(id, unicode.IsControl), strings.ContainsRune(id, utf8.RuneError):
		return fmt.Errorf("the id %.80q; want text", id)
	}
	return nil
}
