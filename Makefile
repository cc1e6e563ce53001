# Tapehouse needs Go, gcc/g++ and make; nothing else.
GO      ?= go
BIN     := bin
DEMO    ?= --data tapehouse-data/demo
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -X main.version=$(VERSION)

.DEFAULT_GOAL := build
.PHONY: build demo test check lint fmt race bench fuzz interop alerts modules clean bench-peers

build: ## build bin/tapehouse
	@mkdir -p $(BIN)
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/tapehouse ./cmd/tapehouse

demo: build ## one simulated trade date, end to end; SABOTAGE=kill|gap|bust|reject|silent-source
	$(BIN)/tapehouse demo $(DEMO) $(if $(SABOTAGE),--sabotage $(SABOTAGE)) $(ARGS)

test: ## every test that needs only Go, gcc/g++ and make
	$(GO) vet ./...
	$(GO) test -timeout 20m ./...
	@sh tools/missing.sh

interop: ## clients that are fetched first (PyPI, npm, Maven, Go, apt), into .interop/; what cannot be had is skipped
	GO=$(GO) $(if $(RUN),RUN='$(RUN)') bash tools/interop.sh

alerts: ## the alert rules, evaluated by Prometheus's own library (a module of its own; what it reads lies outside, so no cache)
	cd tools/alerts && $(GO) test -count=1 ./...

modules: ## the benchmarks' peers, which live in a module of their own, build and read what we write
	cd bench && $(GO) vet ./... && $(GO) test ./...

race: ## the same under the race detector
	$(GO) test -race -timeout 40m ./internal/...

fmt:
	@out=$$(gofmt -l .); if [ -n "$$out" ]; then echo "gofmt: $$out"; exit 1; fi

lint: ## linters, pinned in tools/go.mod
	$(GO) tool -modfile=tools/go.mod golangci-lint run ./...

check: fmt lint race alerts ## format, lint, architecture and unit tests with -race

bench: build ## the numbers of docs/BENCHMARKS.md
	$(BIN)/tapehouse bench all

bench-peers: build ## beside NATS JetStream and the AWS SDK, which live in a module of their own
	cd bench && $(GO) run . log && $(GO) run . sdk --seconds 30

fuzz: ## each fuzz target for FUZZTIME (default 20s)
	@sh tools/fuzz.sh $(or $(FUZZTIME),20s)

clean:
	rm -rf $(BIN)
