#!/usr/bin/env bash
# Installs the pinned MCP peers into <repo>/target/peers and copies the scripts of this directory
# beside them. Needs Node 20 with npm, and Python 3.11. Run again, it installs only what changed.
set -Eeuo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
there=$(cd "$here/../.." && pwd)/target/peers
. "$here/../install.sh"

# Modules are looked up from where a script really is, so the scripts are copied, not linked.
# A copy replaces the old one in one step, because another test may be starting it.
copy_scripts() {
  local file
  for file in clients/*.mjs clients/*.py servers/*.mjs servers/*.py conformance/*.mjs; do
    cmp -s "$file" "$there/$file" && continue
    mkdir -p "$there/$(dirname "$file")"
    cp "$file" "$there/$file.new"
    mv "$there/$file.new" "$there/$file"
  done
}

cd "$here"
install_npm
install_python
copy_scripts
say "ready in $there"
