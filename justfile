# Everything that the gate checks.
check:
    ./.ci/run

# Every test.
test *ARGS:
    ./scripts/test {{ARGS}}

# A simulated account, synced into ./demo-lake.
demo:
    cargo run --release -- demo

# How much of the rate budget a run uses when there is work and each answer takes 300 ms.
budget *ARGS:
    ./scripts/budget {{ARGS}}

# Every DAG of deploy/airflow on a real Airflow, against the simulated account.
airflow-test:
    ./scripts/airflow-test

# The wheel that carries the binary, built and installed into an empty virtual environment.
wheel PROFILE="release":
    ./scripts/wheel {{PROFILE}}

# Wheel, binary, SBOM and checksums, in target/release-files.
release:
    ./scripts/release

# Random summaries into the tables, from the fixtures on; needs `cargo install cargo-fuzz`. The variable lets the
# stable compiler take the flags of a fuzzer.
fuzz SECONDS="300":
    mkdir -p fuzz/corpus/summary
    RUSTC_BOOTSTRAP=1 cargo fuzz run --sanitizer none summary fuzz/corpus/summary fixtures/summaries -- \
        -max_total_time={{SECONDS}} -max_len=20000 -timeout=20

# The parts of `replay`, one core: the parser alone, the tables, Parquet.
bench *ARGS:
    cargo bench --bench parts -- {{ARGS}}

# Instructions of the derive path, counted by callgrind; part of the gate.
bench-instructions *ARGS:
    ./benches/instructions.py {{ARGS}}

# Beside DuckDB, Polars and dlt; start-up. Parts and flags: benches/README.md.
bench-peers *ARGS:
    ./benches/run peers.py {{ARGS}}

# How time, memory and requests grow with executions and with the age of a lake.
bench-growth *ARGS:
    ./benches/run growth.py {{ARGS}}
