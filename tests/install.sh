# Sourced by the setup scripts: installs pinned packages from npm and PyPI into $there, the pins being
# $here/package.json with its lock, and $here/requirements.txt. Run again, it installs only what changed.

say() { echo "$(basename "$there"): $*" >&2; }
trap 'say "failed at line $LINENO of $(basename "${BASH_SOURCE[0]}")"' ERR

# is_current NAME FILE...: whether NAME was installed from just these files.
checksum() { cat "$@" | sha256sum; }
is_current() { [ "$(cat "$there/.$1.stamp" 2>/dev/null)" = "$(checksum "${@:2}")" ]; }
mark_current() { checksum "${@:2}" > "$there/.$1.stamp"; }

install_npm() {
  local pins=("$here/package.json" "$here/package-lock.json")
  is_current npm "${pins[@]}" && return
  rm -f "$there/.npm.stamp"
  say "installing npm packages (Node $(node --version), npm $(npm --version))"
  cp "${pins[@]}" "$there/"
  # The packages are meant for Node 22: the Node that runs npm here may be older.
  (cd "$there" && npm ci --no-audit --no-fund --loglevel=error >&2)
  mark_current npm "${pins[@]}"
}

install_python() {
  is_current python "$here/requirements.txt" && return
  rm -f "$there/.python.stamp"
  say "installing Python packages ($(python3 --version))"
  python3 -m venv --clear "$there/venv"
  "$there/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --requirement "$here/requirements.txt" >&2
  mark_current python "$here/requirements.txt"
}

# One at a time.
mkdir -p "$there"
exec 9> "$there/.lock"
flock 9
