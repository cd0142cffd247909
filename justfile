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
