# Run the gate.
check:
    ./.ci/run

# Run all tests; arguments go to `cargo test`.
test *ARGS:
    ./scripts/test {{ARGS}}

# Sync a simulated account into ./demo-lake.
demo:
    cargo run --release -- demo

# Measure which share of the rate limit a busy run uses.
budget *ARGS:
    ./scripts/budget {{ARGS}}

# Run every DAG of deploy/airflow on Airflow, against the simulated account.
airflow-test:
    ./scripts/airflow-test

# Replay on a Spark cluster of two workers, of which one is killed, and through Spark Connect.
spark-cluster-test:
    ./scripts/spark-cluster-test

# Build the image on bases of Debian packages, and run it against the simulated account.
image-test *ARGS:
    ./scripts/image-test {{ARGS}}

# Build the wheel and test it in an empty virtual environment.
wheel PROFILE="dist":
    ./scripts/wheel {{PROFILE}}

# Build and tag the version in Cargo.toml: wheel, binary, SBOM, image and checksums in target/release-files.
release *ARGS:
    ./scripts/release {{ARGS}}

# Fuzz the tables with summaries, starting from the fixtures; needs `cargo install cargo-fuzz`.
# RUSTC_BOOTSTRAP lets the stable compiler accept the fuzzer's flags.
fuzz SECONDS="300":
    mkdir -p fuzz/corpus/summary
    RUSTC_BOOTSTRAP=1 cargo fuzz run --sanitizer none summary fuzz/corpus/summary fixtures/summaries -- \
        -max_total_time={{SECONDS}} -max_len=20000 -timeout=20

# Benchmark the parts of `replay` on one core: parser, tables, Parquet.
bench *ARGS:
    cargo bench --profile dist --bench parts -- {{ARGS}}

# Count the instructions of the derive path with callgrind; part of the gate.
bench-instructions *ARGS:
    ./benches/instructions.py {{ARGS}}

# Compare with DuckDB, Polars and dlt, and measure start-up. See benches/README.md for arguments.
bench-peers *ARGS:
    ./benches/run peers.py {{ARGS}}

# Measure how time, memory and requests grow with executions and with the age of a lake.
bench-growth *ARGS:
    ./benches/run growth.py {{ARGS}}

# Measure how fast analysts read a lake, in DuckDB and Spark: three years, or 30 busy days.
bench-read *ARGS:
    ./benches/run read.py {{ARGS}}
