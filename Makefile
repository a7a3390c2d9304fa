# Everything here needs Go only; the tools are pinned in tools.mod. Tests that need PostgreSQL, MariaDB or Node are
# skipped where these are missing; ci installs them.
comma := ,
tool := go tool -modfile=tools.mod

.PHONY: release test-release run build profile test test-short test-race ci generate lint fuzz simulate chaos bulk \
	drills pictures bench bench-growth bench-rivals bench-sdk

run: ## a throw-away patd with lines to paste
	go run ./cmd/patd dev

# Libraries need tools of their languages, which docs/packages.md lists; JAVA=false leaves out that for Java, and so on.
libraries = -java=$(or $(JAVA),$(LIBRARIES),true) -typescript=$(or $(TYPESCRIPT),$(LIBRARIES),true) \
	-python=$(or $(PYTHON),$(LIBRARIES),true) -csharp=$(or $(CSHARP),$(LIBRARIES),true)

# ARCH=amd64 makes one architecture, LIBRARIES=false leaves the libraries out.
release: ## dist/: image, packages, chart, libraries, and what proves them
	go run -C deploy/release . -out "$(CURDIR)/dist" -arch $(or $(ARCH),amd64$(comma)arm64) $(libraries)

test-release: ## the image, the packages, the chart and the compose files, as in CI
	go test -C deploy/release ./...

# The profile by which the compiler optimizes bin/patd and releases. It is not the default of the package: `go run` and
# `go build ./cmd/patd` would compile everything twice.
pgo := cmd/patd/patd.pgo

build: ## bin/patd, one static binary
	CGO_ENABLED=0 go build -trimpath -pgo=$(pgo) -o bin/patd ./cmd/patd

profile: ## the profile that bin/patd and releases are compiled by, anew: where the bench's rows spend their CPU time
	rm -rf bin/profiled && mkdir -p bin/profiled
	CGO_ENABLED=0 go build -trimpath -tags profile -o bin/profiled/patd ./cmd/patd
	CPU_PROFILES=$(CURDIR)/bin/profiled go run ./cmd/patbench -patd bin/profiled/patd -tokens 100000 \
		-rounds 3 -period 2s -inflight 64,16 -rows unary,stream,batch,rest,oauth,revoke
	go tool pprof -symbolize=none -proto -output $(pgo) bin/profiled/*.pprof

test: ## the README's test command; LONG_TESTS=1 adds what .ci/run adds
	go test ./...

test-short: ## within a minute, for the loop of an edit: no databases, few processes
	go test -short ./...

# As in .ci/run, which says why.
race := -race -gcflags=modernc.org/sqlite/lib=-race=false

test-race: ## all tests under the race detector, the long ones too, as in CI
	LONG_TESTS=1 go test $(race) -timeout 30m ./...

ci: ## all that a change must pass, with what it needs from apt and npm
	.ci/run

generate: ## gen/ and the imports of the annotations, out of proto/
	go generate ./gen/openapi

lint: ## what CI asks of the text
	test -z "$$(gofmt -l . | tee /dev/stderr)"
	go vet ./...
	$(tool) golangci-lint run ./...
	$(tool) buf lint

fuzz: ## each fuzz target for FUZZTIME
	.ci/fuzz $(or $(FUZZTIME),10s)

chaos: ## replicas and PostgreSQL killed, frozen and cut off at random for CHAOS, ten minutes
	PATD_CHAOS=$(or $(CHAOS),10m) go test ./internal/replicatest -run Chaos -count=1 -v -timeout 4h

bulk: ## the revocation of BULK tokens, 100,000, while a server is killed, and the p99 of introspection meanwhile
	LONG_TESTS=1 PATD_BULK=$(or $(BULK),100000) go test ./internal/replicatest \
		-run BulkRevocation -count=1 -v -timeout 1h

# The versions of PostgreSQL come from npm, Litestream from PyPI, arm64 needs Debian's qemu-user, and it and a disk that
# fills need root. DRILL=name runs one of TestDrill…
postgres := internal/dbtest/testdata/postgres
litestream := internal/replicatest/testdata/litestream
drills: ## bad days practised with real processes, with figures; DRILL=SynchronousStandby for one
	cd $(postgres) && npm ci --no-audit --no-fund --ignore-scripts
	for v in $(postgres)/node_modules/postgres-*; do (cd $$v && node scripts/hydrate-symlinks.js); done
	[ -x $(litestream)/venv/bin/pip ] || python3 -m venv $(litestream)/venv
	$(litestream)/venv/bin/pip install --quiet --disable-pip-version-check --require-hashes \
		-r $(litestream)/requirements.txt
	LONG_TESTS=drills go test ./internal/replicatest ./store -p 1 -run 'TestDrill$(DRILL)' -count=1 -v -timeout 4h
	LONG_TESTS=drills go test -C deploy/release -run 'TestDrill$(DRILL)' -count=1 -v -timeout 4h .

pictures: ## those of docs/page.md, by Chromium
	go test ./internal/browsertest -run Pictures -count=1 -pictures

simulate: ## a million steps of the cache against a model, which takes some minutes; CHECKS=n runs n times 200
	go test ./store -run TestSimulationOfTheCache -count=1 -v -timeout 4h \
		-rapid.checks=$(or $(CHECKS),6000) -rapid.steps=200

# It needs what .ci/run installs for the tests of the libraries. One runs after another.
bench-sdk: ## all libraries: checks from memory, a million different tokens, 300 revocations under load, cut feeds
	LONG_TESTS=1 PATD_TOKENS=$(or $(TOKENS),1000000) PATD_REVOCATIONS=$(or $(REVOCATIONS),300) go test \
		./client ./sdk/conformance ./sdk/typescript ./sdk/python ./sdk/java ./sdk/csharp \
		-run '^Test(MemoryIsFastAndBounded|DifferentTokensLeaveNothing|RevokedTokensAreRefusedUnderLoad)$$' \
		-p 1 -parallel 1 -count=1 -v -timeout 6h

bench: ## the table of figures beside their baselines; BENCH=path keeps the generated stores, TOKENS=n sizes them
	go run ./cmd/patbench -tokens $(or $(TOKENS),1000000) $(if $(BENCH),-dir $(BENCH)) $(BENCHFLAGS)
	PATD_BENCH_TOKENS=$(or $(TOKENS),1000000) $(if $(BENCH),PATD_BENCH_DIR=$(BENCH)) \
		go test ./store -run '^$$' -bench 'Mint$$|BesideDriver|Size' -benchtime 1x -v
	go test ./client -run '^$$' -bench Verify -cpu 2 -benchmem

bench-growth: ## a store of TOKENS, 10,000,000, and their records in memory, beside smaller ones; BENCH=path keeps it
	PATD_BENCH_RECORDS=$(or $(TOKENS),10000000) go test ./store/cache/internal/reclog \
		-run '^$$' -bench Growth -benchtime 1x -v
	PATD_BENCH_TOKENS=$(or $(TOKENS),10000000) go test ./store/cache -run '^$$' -bench CacheHit/1
	PATD_BENCH_TOKENS=$(or $(TOKENS),10000000) $(if $(BENCH),PATD_BENCH_DIR=$(BENCH)) \
		go test ./store -run '^$$' -bench 'BesideDriver|Size' -benchtime 1x -v -timeout 4h
	go run ./cmd/patbench -tokens $(or $(TOKENS),10000000) -working 1000000 \
		$(if $(BENCH),-dir $(BENCH)) -rows start $(BENCHFLAGS)

# A rival is measured where OPENBAO=, HYDRA=, UNKEY= or REDIS= names its binary.
bench-rivals: build ## patd beside OpenBao, Ory Hydra, Unkey and Redis, and beside JWTs
	go run ./cmd/patbench -patd bin/patd -rows rivals,local -rounds 7 -inflight 64 \
		-tokens $(or $(TOKENS),1000000) $(if $(BENCH),-dir $(BENCH)) \
		$(if $(OPENBAO),-openbao $(OPENBAO)) $(if $(HYDRA),-hydra $(HYDRA)) \
		$(if $(UNKEY),-unkey $(UNKEY)) $(if $(REDIS),-redis $(REDIS)) $(BENCHFLAGS)
