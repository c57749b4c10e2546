# A static binary in an empty image. The bases can be pinned by digest:
#   docker build --build-arg RUST_IMAGE=rust:1.95-alpine@sha256:… -t patgate .
ARG RUST_IMAGE=rust:1.95-alpine

FROM ${RUST_IMAGE} AS build
RUN apk add --no-cache musl-dev ca-certificates
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY src ./src
# on musl, Rust links statically by default
RUN cargo build --release --locked --bin patgate

FROM scratch
LABEL org.opencontainers.image.title="patgate" \
      org.opencontainers.image.description="An authentication sidecar that puts a lock on any MCP server" \
      org.opencontainers.image.licenses="Apache-2.0"
# the certificate authorities that an https upstream is checked against
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /src/target/release/patgate /patgate
USER 65532:65532
# the proxy; health is told on 9090
EXPOSE 8080 9090
# a sidecar is reached from outside its pod, so it listens on every address; health stays reachable for probes
ENV PATGATE_LISTEN=0.0.0.0:8080 PATGATE_ADMIN=0.0.0.0:9090
ENTRYPOINT ["/patgate"]
# settings come by PATGATE_CONFIG, PATGATE_UPSTREAM and PATGATE_TOKENS, or as arguments
CMD ["serve"]
