# Needs Go, make and git; the race detector also needs gcc. Everything else is
# fetched by the Go tool itself.

# Nothing of ours or that we use needs C: the binaries are static, and all memory
# is that of Go's runtime, which keeps it within its limit.
export CGO_ENABLED := 0

VERSION   := $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS   := -X main.version=$(VERSION)
FUZZTIME  ?= 10s
TESTFLAGS ?=
SEED      ?= 1
SEEDS     ?= 1000
SIMFLAGS  ?=
JEPSENFLAGS ?=
SCALEFLAGS ?=

# staticcheck must be at least as new as the Go that go.mod names.
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
# The packages in which goroutines share memory.
RACE := ./fsm ./log ./index ./cluster ./snapshot ./httpapi

.DEFAULT_GOAL := help
.PHONY: help build run test readmodel race lint fuzz bench bench-scale jepsen sim check clean

help: ## show this list
	@echo 'make TARGET'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build bin/cairn-node and bin/cairn
	go build -ldflags '$(LDFLAGS)' -o bin/cairn-node ./cmd/node
	go build -ldflags '$(LDFLAGS)' -o bin/cairn ./cmd/cairn

run: ## start three nodes on this machine, until Ctrl-C
	@scripts/cluster.sh run 3

test: ## run all tests (TESTFLAGS=-short for fewer rounds)
	go test -timeout 5m $(TESTFLAGS) ./...

race: export CGO_ENABLED := 1
readmodel: ## test examples/readmodel, a module of its own
	cd examples/readmodel && go vet ./... && go test -timeout 5m $(TESTFLAGS) ./...

race: ## run the tests of what is concurrent with the race detector
	go test -race -timeout 10m $(TESTFLAGS) $(RACE)

lint: ## check format, vet, staticcheck, dependency arrows, scripts
	@scripts/lint.sh '$(STATICCHECK)'

fuzz: ## run every fuzz target for FUZZTIME (default 10s) each
	@scripts/fuzz.sh '$(FUZZTIME)'

bench: ## measure a local cluster on disk, three nodes with fsync
	@scripts/bench.sh

bench-scale: build ## measure 20 million events: SCALEFLAGS='-nodes 3 -rows 1000000' for less
	go run ./bench-scale $(SCALEFLAGS)

jepsen: ## break five real nodes for two minutes and judge (JEPSENFLAGS=… for more)
	@scripts/jepsen.sh $(JEPSENFLAGS)

sim: ## simulate failures in virtual time: SEEDS clusters, from seed SEED on
	go test -c -o bin/sim.test ./sim
	cd sim && GOGC=400 ../bin/sim.test -test.run '^TestSim$$' -test.timeout 60m -seed $(SEED) -seeds $(SEEDS) $(SIMFLAGS)

check: lint test race ## lint, test and race: what CI runs

clean: ## delete bin/ and what tests and benchmarks left behind
	rm -rf bin .cairn-bench .cairn-bench-scale .cairn-bench-scale-report .cairn-smoke jepsen-report
	go clean -testcache
