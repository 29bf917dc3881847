#!/usr/bin/env bash
# Makes the wheel and the sdist, and checks what a package index would:
#
#   scripts/packages.sh [DIRECTORY]
#
# DIRECTORY (build/dist) is where they are put. The wheel is built from the sdist, as an installation
# without a wheel would do it. The same sources give the same wheel.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

[ -x .venv/bin/pyproject-build ] || need_venv
dist=$(realpath -m "${1:-build/dist}")
python=$PWD/.venv/bin/python
copy=$(mktemp --directory)
trap 'rm -rf "$copy"' EXIT
# setuptools puts into a wheel what it finds of earlier builds in the directory: it gets a clean one.
cp --recursive CHANGELOG.md LICENSE MANIFEST.in pyproject.toml mdvp sync share systemd "$copy"
# The times of files in the wheel; before 1980 the format cannot say them.
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-315532800}
mkdir -p "$dist"
(cd "$copy" && "$python" -m build --no-isolation --outdir "$dist" >"$copy/log" 2>&1) ||
  { cat "$copy/log"; die "building the packages failed; the reason is above"; }
"$python" -m twine check --strict "$dist"/mdvp-*
