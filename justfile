# Everything that the gate checks.
check:
    ./.ci/run

# Every test.
test *ARGS:
    ./scripts/test {{ARGS}}

# A simulated account, synced into ./demo-lake.
demo:
    cargo run --release -- demo
