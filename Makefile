# Bare `make` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
export CGO_ENABLED ?= 0

RUN_DIR ?= $(CURDIR)/var/run
STEP = @printf '\n== %s  (%s)\n' "$(1)" "$$(date +%T)"

.PHONY: help build run test check unit race e2e bench bench-quick bench-peers bench-micro bench-cmp bench-codec fuzz model deps deps-run deps-bench clean

help:
	@echo "make run          build, install what is missing, start a deployment with a vDisk 'demo' (foreground)"
	@echo "make test         install what the tests need, run everything that CI runs"
	@echo "make build        bin/vstor"
	@echo "make check        formatting, vet, staticcheck, policy tests"
	@echo "make unit race e2e    parts of make test"
	@echo "make model        the model test on new seeds, MODEL_TIME=10m"
	@echo "make fuzz         every fuzz target, FUZZ_TIME=30s each"
	@echo "make bench        measure against qemu-nbd and nbdkit (about 55 minutes); make bench-quick takes 4"
	@echo "make bench-peers  the same against tgt and Ceph too, which it installs"
	@echo "make bench-micro  each hot path alone; bench-cmp: against BASE=HEAD~1, with benchstat; bench-codec: against ISA-L"
	@echo "make clean        remove bin and var"

build:
	go build -trimpath -buildvcs=auto -o bin/vstor ./tools/vstor

deps-run:
	@tools/install fio qemu-utils libnbd-bin

deps:
	@tools/install fio qemu-utils libnbd-bin nbdkit gcc libc6-dev \
	  qemu-system-x86 nbd-client e2fsprogs xfsprogs busybox-static fuse3 libvirt-clients libxml2-utils systemd gnutls-bin python3-libnbd

run: deps-run build
	@tools/demo bin/vstor $(RUN_DIR)

test: deps check unit race e2e
	$(call STEP,all passed)

check:
	$(call STEP,gofmt)
	@out=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$out" || { echo "gofmt would change: $$out"; exit 1; }
	$(call STEP,vet)
	go vet -tags invariants ./...
	$(call STEP,staticcheck)
	go tool staticcheck -tags invariants ./...

unit:
	$(call STEP,unit tests with invariants on)
	go test -tags invariants -timeout 30m ./...
	$(call STEP,allocation tests in the shipped build)
	go test -run Alloc $$(grep -rl --include='*_test.go' '^func Test.*Alloc' . | xargs dirname | sort -u)

SHORT ?= -short
race:
	$(call STEP,race detector)
	CGO_ENABLED=1 go test -race $(SHORT) -tags invariants -timeout 30m ./dataplane/... ./pracc/... ./asd/... ./blockcache/... ./fragcache/...

E2E_PARALLEL ?= 3
e2e: build
	$(call STEP,end to end)
	VSTOR=$(CURDIR)/bin/vstor go test -count=1 -timeout 60m -tags e2e -parallel $(E2E_PARALLEL) -v ./tools/e2e

model:
	go test -tags invariants -run TestModel -timeout 24h ./dataplane/node -model.time $(or $(MODEL_TIME),10m)

FUZZ_TIME ?= 30s
fuzz:
	@for f in $$(grep -rl '^func Fuzz' --include=*_test.go .); do for t in $$(grep -o '^func Fuzz[A-Za-z0-9]*' $$f | sed 's/func //'); do \
	  echo "== $$t in $$(dirname $$f)"; go test -run '^$$' -fuzz "^$$t\$$" -fuzztime $(FUZZ_TIME) $$(dirname $$f); done; done

deps-bench:
	@tools/install fio qemu-utils libnbd-bin nbdkit

bench: deps-bench build
	bin/vstor bench --dir $(CURDIR)/var/bench --out var/bench.json --html var/bench.html --markdown BENCHMARKS.md

bench-quick: deps-bench build
	bin/vstor bench --quick --dir $(CURDIR)/var/bench --out var/bench-quick.json --html var/bench-quick.html

bench-peers: deps-bench build
	@tools/install tgt qemu-block-extra ceph-mon ceph-mgr ceph-osd ceph-common
	bin/vstor bench --peers --dir $(CURDIR)/var/bench --out var/bench.json --html var/bench.html --markdown BENCHMARKS.md

bench-micro:
	bench/micro/run

BASE ?= HEAD~1
bench-cmp:
	COUNT=$(or $(COUNT),6) bench/micro/run $(BASE)

bench-codec:
	@tools/install gcc libc6-dev libisal-dev
	@mkdir -p bin
	gcc -O2 -Wall -o bin/isal bench/micro/isal/isal.c -lisal
	go run ./bench/micro -isal bin/isal

clean:
	rm -rf bin var
