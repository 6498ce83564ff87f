# Builds what the tests in other languages run: the Go client and grpcurl, the Node client.
# Included by the Makefile, and complete without it: the tests call it by themselves, so that they
# never run a stale build. The first run fetches what go.sum and package-lock.json pin, later ones
# nothing. Without Go or Node the tests of that language are skipped, except where CI=true.
POLYGLOT := tests/polyglot
GO_TOOLS := .tools/go/bin
GO_STUBS := $(POLYGLOT)/go/riverrunv1
GO_PACKAGE := riverrun/tests/polyglot/go
PUBLIC_PROTOS := $(wildcard proto/riverrun/v1/*.proto)
PROTO_NAMES := $(PUBLIC_PROTOS:proto/%=%)
GO_NAMES := $(PROTO_NAMES:%=M%=$(GO_PACKAGE)/riverrunv1)

.PHONY: polyglot polyglot-go polyglot-node polyglot-without-go polyglot-without-node

HAS_GO := $(shell command -v go 2>/dev/null)
HAS_NODE := $(shell command -v npm 2>/dev/null)

polyglot: ## build grpcurl and the Go and Node clients that the tests run
polyglot: $(if $(HAS_GO),polyglot-go,polyglot-without-go)
polyglot: $(if $(HAS_NODE),polyglot-node,polyglot-without-node)

polyglot-go: $(GO_TOOLS)/grpcurl $(GO_TOOLS)/riverrun-polyglot ## build grpcurl and the Go client

polyglot-node: $(POLYGLOT)/node/node_modules/.package-lock.json ## install what the Node client needs

polyglot-without-go polyglot-without-node: polyglot-without-%:
	@echo "$* is missing: install it, or go without its tests"; test "$$CI" != true

# grpcurl, and the two plugins that make the stubs; touched all, for go leaves alone what is fresh.
$(GO_TOOLS)/grpcurl: $(POLYGLOT)/tools/go.mod $(POLYGLOT)/tools/go.sum
	@mkdir -p $(GO_TOOLS)
	go -C $(POLYGLOT)/tools build -trimpath -buildvcs=false -o $(CURDIR)/$(GO_TOOLS)/ tool
	@touch $@

# The protos name no Go package, for they are not Go's alone: it is said here, file by file.
$(GO_STUBS)/.stamp: $(PUBLIC_PROTOS) $(POLYGLOT)/polyglot.mk $(GO_TOOLS)/grpcurl .tools/proto/.stamp
	@rm -rf $(GO_STUBS)
	@echo "stubs for Go into $(GO_STUBS)"
	@.tools/proto/bin/python -m grpc_tools.protoc -Iproto \
	  --plugin=$(GO_TOOLS)/protoc-gen-go --plugin=$(GO_TOOLS)/protoc-gen-go-grpc \
	  --go_out=$(POLYGLOT)/go --go_opt=module=$(GO_PACKAGE) $(GO_NAMES:%=--go_opt=%) \
	  --go-grpc_out=$(POLYGLOT)/go --go-grpc_opt=module=$(GO_PACKAGE) $(GO_NAMES:%=--go-grpc_opt=%) \
	  $(PROTO_NAMES)
	@touch $@

$(GO_TOOLS)/riverrun-polyglot: $(GO_STUBS)/.stamp $(wildcard $(POLYGLOT)/go/*.go)
$(GO_TOOLS)/riverrun-polyglot: $(POLYGLOT)/go/go.mod $(POLYGLOT)/go/go.sum
	@test -z "$$($$(go env GOROOT)/bin/gofmt -l $(POLYGLOT)/go/*.go | tee /dev/stderr)" \
	  || { echo "not formatted: run gofmt -w on these"; exit 1; }
	go -C $(POLYGLOT)/go vet ./...
	go -C $(POLYGLOT)/go build -trimpath -buildvcs=false -o $(CURDIR)/$@ .
	@touch $@

# No package of this tree needs an install script.
$(POLYGLOT)/node/node_modules/.package-lock.json: $(POLYGLOT)/node/package.json $(POLYGLOT)/node/package-lock.json
	cd $(POLYGLOT)/node && npm ci --ignore-scripts --no-audit --no-fund
	@touch $@
