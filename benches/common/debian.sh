# Sourced by the setup scripts of benches: installs pinned Debian packages without being root. Needs Debian 12
# (x86-64).

# unpack_debian FOLDER PACKAGE=VERSION...: unpacks them into FOLDER, with nothing that belongs to the system.
unpack_debian() {
  local folder=$1 packages
  shift
  packages=$(mktemp -d)
  mkdir -p "$folder"
  (
    cd "$packages"
    apt-get update -qq || echo "apt-get update failed: going on with the package lists as they are" >&2
    # root's apt complains of a folder that its own user cannot write
    apt-get download -qq -o APT::Sandbox::User=root "$@"
    for package in *.deb; do dpkg-deb --extract "$package" "$folder"; done
  )
  rm -r "$packages"
}
