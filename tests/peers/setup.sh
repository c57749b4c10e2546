#!/usr/bin/env bash
# Installs the pinned MCP peers into <repo>/target/peers and copies the scripts of this directory
# beside them. Needs Node 20 with npm, and Python 3.11. Run again, it installs only what changed.
set -Eeuo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
peers=$(cd "$here/../.." && pwd)/target/peers

say() { echo "peers: $*" >&2; }
trap 'say "failed at line $LINENO of setup.sh"' ERR

# is_current NAME FILE...: whether NAME was installed from just these files.
checksum() { cat "$@" | sha256sum; }
is_current() { [ "$(cat "$peers/.$1.stamp" 2>/dev/null)" = "$(checksum "${@:2}")" ]; }
mark_current() { checksum "${@:2}" > "$peers/.$1.stamp"; }

install_npm() {
  local version
  rm -f "$peers/.npm.stamp"
  say "installing npm packages (Node $(node --version), npm $(npm --version))"
  cp "$here/package.json" "$here/package-lock.json" "$peers/"
  # The packages are meant for the Node 22 among them: the Node that runs npm here may be older.
  (cd "$peers" && npm ci --no-audit --no-fund --loglevel=error >&2)
  version=$("$peers/node_modules/.bin/node" --version)
  say "Node for the peers: $version"
}

install_python() {
  rm -f "$peers/.python.stamp"
  say "installing Python packages ($(python3 --version))"
  python3 -m venv --clear "$peers/venv"
  "$peers/venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$here/requirements.txt" >&2
}

# Modules are looked up from where a script really is, so the scripts are copied, not linked.
# A copy replaces the old one in one step, because another test may be starting it.
copy_scripts() {
  local file
  for file in clients/*.mjs clients/*.py servers/*.mjs servers/*.py conformance/*.mjs; do
    cmp -s "$file" "$peers/$file" && continue
    mkdir -p "$peers/$(dirname "$file")"
    cp "$file" "$peers/$file.new"
    mv "$peers/$file.new" "$peers/$file"
  done
}

cd "$here"
mkdir -p "$peers"
exec 9> "$peers/.lock"
flock 9

npm_pins=(package.json package-lock.json)
python_pins=(requirements.txt)
is_current npm "${npm_pins[@]}" || { install_npm; mark_current npm "${npm_pins[@]}"; }
is_current python "${python_pins[@]}" || { install_python; mark_current python "${python_pins[@]}"; }
copy_scripts
say "ready in $peers"
