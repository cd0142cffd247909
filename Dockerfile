# docker build --tag harness-lake .                     the binary with libc and certificates only
# docker build --tag harness-lake-shell --target shell . the same with a shell, for deploy/kubernetes/replay
FROM rust:1.95-slim-trixie AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock README.md LICENSE ./
COPY analytics/sql analytics/sql
COPY benches benches
COPY schemas schemas
COPY sim sim
COPY src src
RUN cargo build --profile dist --locked --no-default-features --bin harness-lake

FROM gcr.io/distroless/cc-debian13:debug-nonroot AS shell
COPY --from=build /src/target/dist/harness-lake /usr/local/bin/harness-lake
ENTRYPOINT ["/usr/local/bin/harness-lake"]

FROM gcr.io/distroless/cc-debian13:nonroot
COPY --from=build /src/target/dist/harness-lake /usr/local/bin/harness-lake
ENTRYPOINT ["/usr/local/bin/harness-lake"]
