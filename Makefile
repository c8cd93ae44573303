# The menu. Every line is one command that can be typed by hand; continuous integration calls the same targets.

.PHONY: build demo test bless lint bench compare install

build:      ## one self-contained binary: target/release/memcheck
	cargo build --release

demo: build ## compile a buggy C program and look at its report
	cc -g -O0 -o target/demo fixtures/access/demo.c
	-target/release/memcheck --leak-check=full target/demo

test: build ## everything: units, fixtures, command line, real programs, order of the house
	cargo test --release --workspace

bless:      ## rewrite the expected texts; review the difference before committing
	BLESS=1 cargo test --release --workspace

lint:
	cargo fmt --all --check
	cargo clippy --release --workspace --all-targets -- -D warnings

bench: build ## costs against native and Valgrind; see benches/bench.rs for arguments
	cargo bench --bench bench -- $(BENCH)

compare: build ## where reports differ from Valgrind's, over all fixtures
	python3 benches/compare.py $(COMPARE)

install:
	cargo install --path .
