# make test      everything under -race, on real git, redis-server and sshd (installed when missing)
# make lint      golangci-lint with .golangci.yml
# make build     bin/git-gitops, as released
# make snapshot  dist/ as a release has it, without publishing, signing or a container engine
# make release-test  what dist/ holds: installs, upgrades and unpacks it
# make demo      the main job in twenty seconds, with Go and git only
# make bench     figures against git and other locks, as ratios within one run (docs/performance.md); a quarter of an hour
# make chaos     1,000 pipelines under faults; make test runs a short form
# make git-suite git's own tests through the PATH shim; git-suite-quick is the part that CI runs

BIN := bin/git-gitops
VERSION := $(patsubst v%,%,$(shell git describe --tags --always --dirty))
GOFLAGS_BUILD = -trimpath -tags urfave_cli_no_docs -ldflags "-s -w -X github.com/git-gitops/git-gitops/internal/cli.version=$(VERSION)"
GOLANGCI := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
GORELEASER := github.com/goreleaser/goreleaser/v2@v2.16.0

.PHONY: build test lint demo bench chaos git-suite git-suite-quick snapshot release-test

build:
	CGO_ENABLED=0 go build $(GOFLAGS_BUILD) -o $(BIN) ./cmd/git-gitops

test:
	sh scripts/test-deps.sh
	go test -race ./...

lint:
	go vet ./...
	GOOS=darwin go vet ./...
	GOOS=windows go vet ./cmd/... ./internal/cli
	@command -v golangci-lint >/dev/null || go install $(GOLANGCI)
	PATH="$$PATH:$$(go env GOPATH)/bin" golangci-lint run ./...
	sh scripts/test-deps.sh
	shellcheck scripts/*.sh hooks/scripts/*
	shellcheck -x scripts/examples/*/*

demo: build
	go run ./scripts/demo -binary bin/git-gitops

bench: build
	go run ./scripts/bench passthrough
	go run ./scripts/bench uncontended
	go run ./scripts/bench handoff
	cd scripts/bench/rivals && go run .
	go run ./scripts/bench waiters -n 1000
	go run ./scripts/bench pipelines
	go run ./scripts/bench pipelines -queued -strategies gitops,gitops-inside
	go run ./scripts/bench pipelines -n 30 -mb 1 -over file -edit 0s -strategies gitops,gitops-names,retry

chaos:
	go test -race -count=1 -timeout 60m -v ./internal/chaos -run TestChaos -args -chaos.pipelines=1000

git-suite: build
	sh scripts/git-suite.sh bin/git-gitops

git-suite-quick: build
	sh scripts/git-suite.sh --quick bin/git-gitops

snapshot:
	@command -v goreleaser >/dev/null || go install $(GORELEASER)
	PATH="$$PATH:$$(go env GOPATH)/bin" goreleaser release --snapshot --clean --skip=docker,sign,sbom

release-test:
	sh scripts/release-test.sh
