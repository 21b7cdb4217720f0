# make test      everything under -race, on real git, redis-server and sshd (installed when missing)
# make lint      golangci-lint with .golangci.yml
# make build     bin/git-gitops, as released
# make demo      the main job in twenty seconds, with Go and git only
# make bench     figures, as ratios within one run

GOFLAGS_BUILD := -trimpath -tags urfave_cli_no_docs -ldflags "-s -w"
GOLANGCI := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

.PHONY: build test lint demo bench

build:
	CGO_ENABLED=0 go build $(GOFLAGS_BUILD) -o bin/git-gitops ./cmd/git-gitops

test:
	sh scripts/test-deps.sh
	go test -race ./...

lint:
	go vet ./...
	@command -v golangci-lint >/dev/null || go install $(GOLANGCI)
	PATH="$$PATH:$$(go env GOPATH)/bin" golangci-lint run ./...
	@command -v shellcheck >/dev/null && shellcheck -s sh scripts/*.sh || echo "shellcheck is missing: scripts not checked"

demo: build
	go run ./scripts/demo -binary bin/git-gitops

bench: build
	go run ./scripts/bench -binary bin/git-gitops
