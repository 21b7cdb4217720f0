# `make help` lists what there is.

BIN := bin/git-gitops
VERSION := $(patsubst v%,%,$(shell git describe --tags --match 'v*.*.*' --always --dirty))
TAGS := -tags urfave_cli_no_docs
GOFLAGS_BUILD = -trimpath $(TAGS) -ldflags "-s -w -X github.com/git-gitops/git-gitops/internal/cli.version=$(VERSION)"
GOLANGCI := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
ACTIONLINT := github.com/rhysd/actionlint/cmd/actionlint@v1.7.12
GORELEASER := github.com/goreleaser/goreleaser/v2@v2.16.0

.PHONY: help build test test-bare lint kits demo screenshots bench chaos chaos-batches git-suite git-suite-quick tool-suites snapshot release-test

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## bin/git-gitops, as released
	CGO_ENABLED=0 go build $(GOFLAGS_BUILD) -o $(BIN) ./cmd/git-gitops

# Without vet, which make lint runs.
test: ## everything under -race, on real git, redis-server and sshd (installed when missing)
	sh scripts/test-deps.sh
	TMPDIR=$$(sh scripts/test-tmp.sh) go test -race $(TAGS) -vet=off -timeout 60m ./...

test-bare: ## the same in a bare Debian, as root (BARE="--suite sid --valkey")
	sh scripts/test-bare.sh $(BARE)

lint: ## golangci-lint, vet for two more systems, shellcheck, actionlint
	GOOS=darwin go vet ./...
	GOOS=windows go vet ./cmd/... ./internal/cli
	@command -v golangci-lint >/dev/null || go install $(GOLANGCI)
	PATH="$$PATH:$$(go env GOPATH)/bin" golangci-lint run ./...
	sh scripts/test-deps.sh
	shellcheck scripts/*.sh hooks/scripts/*
	shellcheck -x scripts/examples/*/*
	go run $(ACTIONLINT)

kits: ## the kits of scripts/ci, and what their pages say to paste, against the schemas of their systems; downloads them
	cd scripts/ci/check && go run .

demo: build ## the main job in twenty seconds, with Go and git only
	go run ./scripts/demo -binary bin/git-gitops

screenshots: ## the page in all sizes and colours (bin/screenshots), and the two pictures of the documents
	sh scripts/test-deps.sh
	go test -count=1 ./internal/serve -run TestScreenshots -args -shots "$(CURDIR)/bin/screenshots"
	cp bin/screenshots/list-docs-light.png docs/page.png
	cp bin/screenshots/lock-docs-dark.png docs/page-lock.png

bench: build ## figures against git and other locks, as ratios within one run; half an hour
	go run ./scripts/bench passthrough
	go run ./scripts/bench uncontended
	go run ./scripts/bench hook
	go run ./scripts/bench handoff
	cd scripts/bench/rivals && go run .
	go run ./scripts/bench waiters -n 1000
	go run ./scripts/bench pipelines
	go run ./scripts/bench pipelines -queued -strategies gitops,gitops-inside
	go run ./scripts/bench pipelines -n 30 -mb 1 -over file -edit 0s -strategies gitops,gitops-names,retry
	go run ./scripts/bench pipelines -n 10,30,100 -mb 1 -edit 0s -delay 50ms -strategies gitops,gitops-names,gitops-batch,retry
	go run ./scripts/bench pipelines -n 10,30,100 -mb 1 -edit 0s -delay 50ms -ready -strategies gitops-names,gitops-batch,retry

chaos-batches: ## 1,000 pipelines that push together, and 250 others, under faults
	go test -race -count=1 -timeout 120m -v ./internal/chaos -run 'TestChaos_batches' -args -chaos.pipelines=1250

chaos: chaos-batches ## and 1,000 pipelines of all kinds, 200 restarts and 50 failovers under living holders; make test runs short forms
	go test -race -count=1 -timeout 120m -v ./internal/chaos -run 'TestChaos$$|TestChaos_fence|TestMutations' -args -chaos.pipelines=1000 -chaos.mutations
	go test -race -count=1 -timeout 120m -v ./internal/chaos -run 'TestPresence$$' -args -chaos.restarts=200 -chaos.failovers=25 -chaos.holders=100 -chaos.busy
	go test -count=1 -timeout 30m -v ./internal/chaos -run 'TestPresence$$' -args -chaos.restarts=10 -chaos.failovers=1 -chaos.holders=1000

git-suite: build ## git's own tests through the PATH shim
	sh scripts/git-suite.sh bin/git-gitops

git-suite-quick: build ## the part of them that CI runs
	TMPDIR=$$(sh scripts/test-tmp.sh) sh scripts/git-suite.sh --quick bin/git-gitops

tool-suites: build ## the integration tests of git-lfs and git-spice through the PATH shim
	sh scripts/tool-suites.sh bin/git-gitops

snapshot: ## dist/ as a release has it, without publishing, signing or a container engine
	@command -v goreleaser >/dev/null || go install $(GORELEASER)
	PATH="$$PATH:$$(go env GOPATH)/bin" goreleaser release --snapshot --clean --skip=docker,sign,sbom

release-test: ## installs, upgrades and unpacks what dist/ holds
	sh scripts/release-test.sh
