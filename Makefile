# ISK: the commands of a working copy. `make demo` and `make test` do all their own set-up.

CARGO ?= cargo
DEMO_FLAGS ?=
BENCH_FLAGS ?=
SOAK_FLAGS ?=
ifeq ($(ONCE),1)
override DEMO_FLAGS += --once
endif

.PHONY: lint-deploy help setup build demo test test-code test-downloads test-rust test-setup test-clients test-kafka lint deny audit fmt bench soak fuzz fuzz-http differential clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: ## Install the system packages a build needs (Debian, Ubuntu); says what is missing elsewhere
	@deploy/setup.sh

build: setup ## Build target/release/isk
	$(CARGO) build --release --locked --bin isk

demo: build ## Live topics and a lake as Iceberg tables, all embedded (ONCE=1: verify and exit)
	deploy/demo/engine --setup
	target/release/isk demo --engine deploy/demo/engine $(DEMO_FLAGS)

lint: setup ## Formatting and lints; warnings are errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	tests/tidy.sh

deny: ## Licences, bans and sources of the dependencies
	tests/deny.sh

audit: ## What is known against the dependencies: RustSec's database (needs the internet; not part of `make test`)
	tests/deny.sh advisories

# There are no tests in documentation; rustdoc would look for them in every library. Examples are compiled by `lint`.
test-rust: setup ## Unit and property tests
	$(CARGO) test --workspace --locked --lib --bins --tests

test-setup: setup ## Install and download what the clients' tests need
	@deploy/setup.sh --tests
	tests/stack/run setup

test-clients: build test-setup ## Real clients against a real broker and registry
	tests/stack/run test

test-kafka: ## The Kafka crate's own tests against a real broker (not part of `make test`)
	tests/stack/run test tests/kafka_crate.py

# What the clients' tests need is downloaded beside what only computes, which goes on in its order (and without make's
# job server, of which Cargo would take its share). Where that fails, `test-clients` does it again, and says at the end why.
test: setup ## Everything CI runs
	$(MAKE) -j2 test-downloads test-code
	$(MAKE) test-clients

test-downloads:
	-$(MAKE) test-setup

test-code:
	$(MAKE) -j1 lint deny test-rust build

bench: build ## ISK beside what one would use without it; docs/benchmarks.md (BENCH_FLAGS, tests/bench/run --help)
	@deploy/setup.sh --tests
	tests/bench/run --docs $(BENCH_FLAGS)

soak: build ## 32 clients for 20 minutes while servers go and come; docs/RELIABILITY.md (SOAK_FLAGS, tests/soak/run --help)
	@deploy/setup.sh --tests
	tests/soak/run --docs $(SOAK_FLAGS)

fuzz: setup ## Ten minutes of fuzzing for each target, decoders, parsers and HTTP; docs/RELIABILITY.md (FUZZ_SECONDS)
	fuzz/run

fuzz-http: build ## A million requests, bent in many ways, over both ports; the descriptions in openapi/ held against a service (FUZZ_REQUESTS, FUZZ_EXAMPLES, FUZZ_SEED)
	@deploy/setup.sh --tests
	tests/stack/run setup
	$(CARGO) build --release --locked -p isk-fuzz-http
	tests/stack/run python tests/fuzz_http.py target/release/fuzz-http --requests $${FUZZ_REQUESTS:-1000000} --seed $${FUZZ_SEED:-1}
	tests/stack/run python tests/fuzz_openapi.py --examples $${FUZZ_EXAMPLES:-200} --seed $${FUZZ_SEED:-1}

differential: setup ## Records of 1,500 random schemas against the producers' own libraries
	@deploy/setup.sh --tests
	tests/stack/run setup
	tests/stack/run python tests/differential.py $(CURDIR)/target/differential.jsonl
	ISK_TEST_DIFFERENTIAL=$(CURDIR)/target/differential.jsonl $(CARGO) test --locked --workspace --test differential -- --nocapture

lint-deploy: ## Render and check what lies in deploy/ (needs Go; not part of `make test`)
	deploy/lint.sh

fmt: ## Format the code
	$(CARGO) fmt --all

clean: ## Remove build output
	$(CARGO) clean
