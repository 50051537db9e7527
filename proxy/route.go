package proxy

import (
	"bytes"
	"net/url"
	"strings"

	"github.com/valyala/fasthttp"

	"lbd/metrics"
	"lbd/proxy/internal/inbound"
)

// ownPages are answered by lbd itself, on GET and HEAD.
var ownPages = map[string]func(*Server, *fasthttp.RequestCtx){
	"/health":    (*Server).healthPage,
	"/ready":     (*Server).readyPage,
	"/version":   (*Server).versionPage,
	"/metrics":   (*Server).metricsPage,
	"/v1/models": (*Server).modelsPageAll,
}

const modelPagePrefix = "/v1/models/"

// relayedRoot are vLLM's paths outside /v1 whose body names a model (v0.19,
// vllm/entrypoints).
var relayedRoot = map[string]bool{
	"/tokenize": true, "/detokenize": true, "/score": true, "/rerank": true, "/v2/rerank": true, "/v2/embed": true,
	"/pooling": true, "/classify": true, "/invocations": true, "/inference/v1/generate": true,
	"/cohere/v2/chat": true, "/generative_scoring": true,
}

// postOnly are the paths that every vLLM takes POST on and nothing else: a wrong
// method is answered here. Others below /v1 are the replica's business.
var postOnly = map[string]bool{
	"/v1/chat/completions": true, "/v1/completions": true, "/v1/embeddings": true, "/v1/score": true, "/v1/rerank": true,
	"/v1/audio/transcriptions": true, "/v1/audio/translations": true, "/v1/responses": true,
	messagesPath: true, messagesPath + "/count_tokens": true,
}

// controlPaths act on one replica or tell of one. Through a balancer they would
// hit a random one, so they are refused here; the admin listener has them.
var controlPaths = map[string]bool{
	"/sleep": true, "/wake_up": true, "/is_sleeping": true, "/pause": true, "/resume": true, "/is_paused": true,
	"/start_profile": true, "/stop_profile": true, "/reset_prefix_cache": true, "/reset_mm_cache": true,
	"/reset_encoder_cache": true, "/collective_rpc": true, "/server_info": true, "/load": true, "/tokenizer_info": true,
	"/scale_elastic_ep": true, "/is_scaling_elastic_ep": true, "/abort_requests": true,
	"/v1/load_lora_adapter": true, "/v1/unload_lora_adapter": true,
}

// relayedMethods are passed on; what else HTTP knows has no meaning here.
var relayedMethods = map[string]bool{
	"GET": true, "HEAD": true, "POST": true, "PUT": true, "PATCH": true, "DELETE": true, "OPTIONS": true,
}

// route answers one request. It returns whether the connection may go on.
func (s *Server) route(c *inbound.Conn) (keep bool) {
	req, cfg := c.Request(), s.cfg.Load()
	if string(req.Method) == "POST" && straight(req.Target) { // as nearly always: nothing below would stop it
		return s.relay(c)
	}
	if cfg.preflight(req) {
		return s.own(c, true, func(ctx *fasthttp.RequestCtx) { answerPreflight(req, ctx) })
	}
	path, err := cleanPath(req.Target)
	if err == nil && path == "/metrics" && cfg.MetricsAccess == MetricsOff {
		err = clientError(404, "unknown_path", "/metrics is on the admin listener only")
	}
	if err == nil {
		err = permitted(string(req.Method), path)
	}
	if err != nil {
		err.id = requestID(req)
		s.logRefused(c, err)
		s.opt.Metrics.Model(metrics.Other).Answered(err.status)
		return s.own(c, true, err.write)
	}
	if o, ok := c.Owner.(*owner); ok && o.key != nil && o.key.Restricted() && strings.HasPrefix(path+"/", modelPagePrefix) {
		return s.own(c, true, func(ctx *fasthttp.RequestCtx) { s.modelsFor(o.key, path, ctx) })
	}
	if page := ownPage(path); page != nil {
		return s.own(c, true, func(ctx *fasthttp.RequestCtx) { page(s, ctx) })
	}
	return s.relay(c)
}

// straight says that a POST to the target is relayed: the path is one of those, in its
// plain spelling. Some clients send a query (Claude Code asks for /v1/messages?beta=true);
// a fragment is for cleanPath to refuse.
func straight(target []byte) bool {
	path, query, _ := bytes.Cut(target, []byte("?"))
	return (postOnly[string(path)] || relayedRoot[string(path)]) && bytes.IndexByte(query, '#') < 0
}

// permitted refuses what lbd neither answers nor relays.
func permitted(method, path string) *apiError {
	switch {
	case ownPage(path) != nil:
		if method != "GET" && method != "HEAD" {
			return wrongMethod("GET, HEAD", "%s takes GET or HEAD", shortPath(path))
		}
	case isControl(path):
		return clientError(403, "forbidden", "%s acts on a single replica; it is not balanced but offered on the admin listener as /replicas/{id}%s and /fleet%s",
			shortPath(path), shortPath(path), shortPath(path))
	case !isRelayed(path):
		return clientError(404, "unknown_path", "%s is not a path of the OpenAI or vLLM API", shortPath(path))
	case (postOnly[path] || relayedRoot[path]) && method != "POST" && method != "OPTIONS":
		return wrongMethod("POST, OPTIONS", "%s takes POST", path)
	case !relayedMethods[method]:
		return wrongMethod("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS", "method %s is not relayed", shortPath(method))
	}
	return nil
}

func wrongMethod(allow, format string, args ...any) *apiError {
	e := clientError(405, "method_not_allowed", format, args...)
	e.allow = allow
	return e
}

func ownPage(path string) func(*Server, *fasthttp.RequestCtx) {
	if strings.HasPrefix(path, modelPagePrefix) {
		return (*Server).modelPage
	}
	return ownPages[path]
}

// isControl also covers other spellings: a trailing slash (starlette redirects, and
// /metrics/ is a page of one replica as well), and repeated slashes, which a proxy
// in front of the replica may merge (nginx does by default).
func isControl(path string) bool {
	path = strings.TrimRight(path, "/")
	for strings.Contains(path, "//") {
		path = strings.ReplaceAll(path, "//", "/")
	}
	return controlPaths[path] || path == "/metrics" || strings.HasPrefix(path, "/fault_tolerance/")
}

func isRelayed(path string) bool {
	return strings.HasPrefix(path, "/v1/") || relayedRoot[path]
}

// cleanPath returns the path as a replica will understand it: percent escapes
// decoded once. Refused is what replicas and proxies understand differently: dot
// segments, a backslash, and a fragment, which RFC 9112 section 3.2 does not allow
// and httptools, uvicorn's parser, cuts off without a word.
func cleanPath(uri []byte) (string, *apiError) {
	if bytes.IndexByte(uri, '#') >= 0 {
		return "", badRequest("invalid_path", "the request target holds a fragment")
	}
	if len(uri) == 0 || (uri[0] != '/' && !bytes.Contains(uri, []byte("://"))) { // "*"
		return "", badRequest("invalid_path", "the request target is not a path")
	}
	raw, _, _ := bytes.Cut(originForm(uri), []byte("?"))
	if plainPath(raw) {
		return string(raw), nil
	}
	path, err := url.PathUnescape(string(raw))
	if err != nil || !strings.HasPrefix(path, "/") {
		return "", badRequest("invalid_path", "the request target is not a path")
	}
	if strings.IndexByte(path, '\\') >= 0 {
		return "", badRequest("invalid_path", "backslashes in a path are not accepted")
	}
	if strings.Contains(path, "/../") || strings.Contains(path, "/./") || strings.HasSuffix(path, "/..") || strings.HasSuffix(path, "/.") {
		return "", badRequest("invalid_path", "dot segments in a path are not accepted")
	}
	return path, nil
}

// plainPath says that a path means to everyone what it says: nothing in it is
// escaped, a dot segment or a backslash.
func plainPath(path []byte) bool {
	if len(path) == 0 || path[0] != '/' {
		return false
	}
	for _, c := range path {
		if c == '%' || c == '.' || c == '\\' {
			return false
		}
	}
	return true
}

// maxPath bounds what an error says of a path.
const maxPath = 2048

func shortPath(path string) string { return path[:min(len(path), maxPath)] }
