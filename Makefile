# vpnd. `make help` lists what can be made.

GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.version=$(VERSION)
TOOL    := $(GO) tool -modfile=tools/go.mod
BIN     := bin

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## build vpnd, vpnctl and protected-app into bin/
	@CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/ ./cmd/vpnd ./cmd/vpnctl ./protected-app

.PHONY: run
run: build ## start vpnd and the protected app; Ctrl-C stops both
	@$(GO) build -o $(BIN)/run ./packaging/run && exec $(BIN)/run -bin $(BIN)

.PHONY: deb
deb: ## build the Debian package for amd64 and arm64 into dist/ (ARCHS=amd64: that one alone)
	@rm -f dist/*.deb
	@packaging/deb/build $(ARCHS)

.PHONY: release
release: ## build packages, archives, a container image, SBOM and checksums into dist/
	@packaging/release

.PHONY: check
check: ## the quick loop: format, vet, lint, unit tests
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo "gofmt -w these:"; gofmt -l $$(git ls-files '*.go'); exit 1; }
	$(GO) vet ./...
	$(TOOL) staticcheck ./...
	$(TOOL) buf lint
	$(GO) test -short $$($(GO) list ./... | grep -v /test/e2e)

.PHONY: test
test: ## everything that CI runs: installs Debian's test tools where it is root
	@./test/run

.PHONY: bench
bench: build ## measure what is promised; prints ratios with 10, 10,000 and 50,000 devices
	@./test/bench

.PHONY: fuzz
fuzz: ## run every fuzz target for ten seconds; prints executions a second
	@./test/fuzz

.PHONY: mutate
mutate: ## change 100 lines that decide, one at a time, and count what the tests notice (20 minutes)
	@$(GO) run ./test/mutate

.PHONY: generate
generate: ## regenerate code and tidy the modules
	$(TOOL) buf generate
	$(GO) generate ./...
	$(GO) mod tidy
	cd tools && $(GO) mod tidy

.PHONY: clean
clean: ## remove what was built
	rm -rf $(BIN) dist test/e2e/out
