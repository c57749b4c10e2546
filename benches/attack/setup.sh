#!/usr/bin/env bash
# Installs the pinned attackers that are not our own into <repo>/target/attack: slowhttptest, and h2load of nghttp2.
set -Eeuo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
there=$(cd "$here/../.." && pwd)/target/attack
. "$here/../common/debian.sh"

debian=(
  slowhttptest=1.8.2-1+b1
  nghttp2-client=1.52.0-1+deb12u3 libnghttp2-14=1.52.0-1+deb12u3 libev4=1:4.33-1 libjemalloc2=5.3.0-1
)

stamp=$(printf '%s\n' "${debian[@]}")
[ "$(cat "$there/.stamp" 2> /dev/null)" = "$stamp" ] && exit

rm -rf "$there"
unpack_debian "$there" "${debian[@]}"
printf '%s' "$stamp" > "$there/.stamp"
