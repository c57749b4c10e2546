# A static binary in an empty image.
#
# The base has a tag here, which its publisher may move. Pin it to what you have looked at:
#   docker build --build-arg RUST_IMAGE=rust:1.95-bookworm@sha256:<digest> -t patgate .
# where the digest is what `docker buildx imagetools inspect rust:1.95-bookworm` names. The last stage has no base.
ARG RUST_IMAGE=rust:1.95-bookworm

# hadolint ignore=DL3006
FROM ${RUST_IMAGE} AS build
WORKDIR /src
COPY . .
# what is built besides the usual: otlp
ARG FEATURES=""
# twice, and the second time by a profile of the first, which some of the tests give work to
RUN FEATURES="${FEATURES}" config/program /patgate

FROM scratch
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="patgate" \
      org.opencontainers.image.description="An authentication sidecar that puts a lock on any MCP server" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# the certificate authorities that an https upstream is checked against
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /patgate /patgate
USER 65532:65532
# 8080: the proxy; 9090: health and metrics
EXPOSE 8080 9090
# a sidecar is reached from outside its pod, so it listens on every address; health stays reachable for probes
ENV PATGATE_LISTEN=0.0.0.0:8080 PATGATE_ADMIN=0.0.0.0:9090
ENTRYPOINT ["/patgate"]
# settings come by PATGATE_CONFIG, PATGATE_UPSTREAM and PATGATE_TOKENS, or as arguments; nothing is written but the
# audit log on standard output, so every mount can be read-only
CMD ["serve"]
