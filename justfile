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
