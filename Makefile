# Everything here needs Go and make only, but for the race detector: it needs cgo,
# and so a C compiler. Without one the tests run without it, which unit says.

GO       ?= go
FUZZTIME ?= 2s
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS  := -s -w -X main.version=$(VERSION)
ARGS     ?=
RACE     ?= $(if $(filter 1,$(shell $(GO) env CGO_ENABLED)),-race)

.DEFAULT_GOAL := help
WIRE     ?=
SOAK     ?=

.PHONY: help build run demo test vet lint unit fuzz fuzz-hour faults bench gobench soak compare cover manifests docker release clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build the static binary ./lbd
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o lbd ./cmd/lbd

run: build ## run the proxy; ARGS='--endpoints http://...'
	./lbd $(ARGS)

demo: build ## two simulated environments side by side; ARGS=--once measures and exits
	./lbd demo $(ARGS)

test: vet lint unit fuzz ## what CI runs: vet, lint, tests with the race detector, a few seconds of each fuzz target

vet:
	$(GO) vet ./...
	@unformatted=$$(gofmt -l .); test -z "$$unformatted" || { echo "not gofmt-clean:"; echo "$$unformatted"; exit 1; }

lint: ## staticcheck, at the version go.mod pins
	$(GO) tool staticcheck ./...

unit: ## all tests, with the race detector; those that count allocations again without it
	@test -n "$(RACE)" || echo "no C compiler (CGO_ENABLED=0): the tests run without the race detector"
	$(GO) test $(RACE) -timeout 10m ./...
	$(GO) test -run 'Alloc' ./...

fuzz: ## FUZZTIME (2s) of each fuzz target; FUZZTIME=1h is an hour of each
	@scripts/fuzz.sh $(FUZZTIME)

fuzz-hour: ## an hour over all fuzz targets, findings kept
	@scripts/fuzz.sh total 1h

faults: ## the fault matrix under every strategy, twenty rounds, about half an hour
	FAULTS_ROUNDS=20 FAULTS_ALL=1 $(GO) test $(RACE) -timeout 1h ./cmd/lbd/internal/faults

bench: ## lbd beside nginx, HAProxy and Caddy, about half an hour; WIRE='-cells post,sse256' or WIRE=-features
	$(GO) run ./bench/wire -o bench/results $(WIRE)

soak: ## streams, faults and reloads at once, for ten minutes and a lull (SOAK="-duration 1h")
	$(GO) run ./bench/soak -o bench/results $(SOAK)

compare: ## both environments on simulated replicas, three repeats, a report to open
	bench/compare.sh

manifests: ## the Kubernetes manifests against Kubernetes' own types, which a module of its own brings
	cd deploy/kubernetes/check && $(GO) test -count=1 ./...

release: ## vulnerabilities, licences, SBOM, reproducible build
	scripts/release.sh

gobench: ## Go benchmarks of the request path, six runs each
	$(GO) test -run='^$$' -bench=. -benchmem -count=6 ./balancer/... ./proxy/... ./cmd/lbd/internal/daemon

cover: ## test coverage by function
	$(GO) test -coverprofile=cover.out ./... && $(GO) tool cover -func=cover.out | tail -n 1

docker: ## build the container image lbd:$(VERSION)
	docker build --build-arg VERSION=$(VERSION) -t lbd:$(VERSION) .

clean: ## remove what build, cover and release made; results/ stays
	rm -rf lbd cover.out dist
