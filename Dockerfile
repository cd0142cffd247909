# docker build --tag harness-lake .                     the binary with libc and certificates only
# docker build --tag harness-lake-shell --target shell . the same with a shell, for deploy/kubernetes/replay
# Build arguments name other bases, such as those of a private registry. A base needs glibc, libgcc and CA certificates.
ARG RUST=rust:1.95-slim-trixie
ARG BASE=gcr.io/distroless/cc-debian13:nonroot
ARG SHELL_BASE=gcr.io/distroless/cc-debian13:debug-nonroot

FROM ${RUST} AS build
ARG PROFILE=dist
WORKDIR /src
COPY Cargo.toml Cargo.lock README.md LICENSE ./
COPY analytics/sql analytics/sql
COPY benches benches
COPY schemas schemas
COPY sim sim
COPY src src
RUN cargo install --path . --root /out --no-track --profile ${PROFILE} --locked --no-default-features --bin harness-lake

FROM ${SHELL_BASE} AS shell
COPY --from=build /out/bin/harness-lake /usr/local/bin/harness-lake
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/harness-lake"]

FROM ${BASE}
COPY --from=build /out/bin/harness-lake /usr/local/bin/harness-lake
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/harness-lake"]
