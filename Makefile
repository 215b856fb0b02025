# Two commands do all set-up on a fresh machine: make up, make test.
GO      ?= go
BIN     := bin/firn
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.version=$(VERSION)

.PHONY: up build test unit integration clients verify bench image clean help

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

build: ## the static binary, in bin/firn
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN) ./cmd/firn

up: build ## build and serve: embedded NATS, file bucket, no Docker, no account
	./$(BIN) up $(ARGS)

test: ## the CI tier: vet, lint, layering, race-enabled unit tests, integration tests with containers
	./scripts/test.sh

unit: ## race-enabled unit tests only
	$(GO) test -race $$($(GO) list ./... | grep -v -e /integration -e /bench)

integration: build ## integration tests only (needs scripts/docker.sh and scripts/tools.sh to have run)
	FIRN_TEST_BINARY=$(CURDIR)/$(BIN) $(GO) test -count=1 -timeout 20m ./integration/...

clients: build ## the matrix of unmodified clients only
	./integration/clients/setup.sh
	FIRN_TEST_BINARY=$(CURDIR)/$(BIN) $(GO) test -count=1 -timeout 20m ./integration/clients

verify: build ## every full count, part by part; PARTS="kills flights" runs some; appends to docs/verification.md
	./scripts/verify.sh $(PARTS)

bench: build ## firn beside Apache Kafka on this machine, raw JSON on stdout; ARGS="compare -h" or "replay -h"
	@./scripts/bench.sh $(ARGS)

image: ## the FROM scratch container image
	./scripts/image.sh

clean:
	rm -rf bin
