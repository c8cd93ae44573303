# The menu. Every line is one command that can be typed by hand; continuous integration calls the same targets.

.PHONY: build demo test load check-invariants check-forgetful fuzz bless lint bench compare install

build:      ## one self-contained binary: target/release/memcheck
	cargo build --release

demo: build ## compile a buggy C program and look at its report
	sed 's, *//~.*,,' fixtures/access/demo.c >target/demo.c # what the tests expect is not part of the example
	cc -w -g -O0 -o target/demo target/demo.c
	-target/release/memcheck --leak-check=full target/demo

test: build ## everything: units, fixtures, command line, real programs, order of the house, a few seconds of fuzzing
	cargo test --release --workspace
	@$(MAKE) --no-print-directory fuzz FUZZ_SECONDS=5

check-invariants: ## the fixtures with a runtime that checks itself: shadow of blocks and stacks, links of translated code, overflows, alignment
	MEMCHECK_INVARIANTS=1 cargo build --release --target-dir target/invariants
	MEMCHECK=$(CURDIR)/target/invariants/release/memcheck cargo test --release --test fixtures

check-forgetful: ## the fixtures with so little room for translated code that it is made anew again and again
	MEMCHECK_OPTIONS=--code-cache=131072 cargo test --release --test fixtures

LOAD = 50
load: ## threads, signals, processes, changing code and mappings, each LOAD=50 times as long as in the tests
	LOAD=$(LOAD) cargo test --release --test fixtures -- load

FUZZ_SECONDS = 60
# What cargo-fuzz passes to rustc, without its sanitizer (which stable Rust does not have): coverage, comparisons, overflow checks.
FUZZ_FLAGS = --cfg fuzzing -Cdebug-assertions -Ccodegen-units=1 -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
	-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares
# What was read of an object is kept for the rest of a run, so the process grows; a single huge allocation is still a failure.
FUZZ_MEMORY = -rss_limit_mb=0 -malloc_limit_mb=1024
FUZZ = target/fuzz

fuzz:       ## coverage-guided fuzzing of what reads strangers' bytes: FUZZ_SECONDS=60 each; needs a C++ compiler
	@command -v c++ >/dev/null || { echo "skipped: fuzzing (no C++ compiler for libFuzzer)"; exit 0; }; \
	set -e; mkdir -p $(FUZZ)/objects; \
	cc -g -O1 -o $(FUZZ)/objects/hello fixtures/clean/hello.c; cc -gdwarf-4 -no-pie -o $(FUZZ)/objects/hello4 fixtures/clean/hello.c; \
	for target in objects suppressions options translator; do \
		mkdir -p $(FUZZ)/$$target; \
		RUSTFLAGS="$(FUZZ_FLAGS)" cargo build -q --release --manifest-path tests/fuzz/Cargo.toml --target-dir $(FUZZ)/build \
			--target x86_64-unknown-linux-gnu --bin $$target; \
		echo "fuzz $$target, $(FUZZ_SECONDS) s"; \
		$(FUZZ)/build/x86_64-unknown-linux-gnu/release/$$target -max_total_time=$(FUZZ_SECONDS) -timeout=60 $(FUZZ_MEMORY) \
			-artifact_prefix=$(FUZZ)/found- $(FUZZ)/$$target >$(FUZZ)/$$target.log 2>&1 || { tail -30 $(FUZZ)/$$target.log; exit 1; }; \
	done

bless:      ## rewrite the expected texts; review the difference before committing
	BLESS=1 cargo test --release --workspace

lint:
	cargo fmt --all --check
	cargo clippy --release --workspace --all-targets -- -D warnings

bench: build ## costs against native and Valgrind; see benches/bench.rs for arguments
	cargo bench --bench bench -- $(BENCH)

compare: build ## where reports differ from Valgrind's, over all fixtures; COMPARE="dir word…": over others
	python3 benches/compare.py $(COMPARE)

install:
	cargo install --path .
