#!/usr/bin/env bash
# Makes a site of README's pages, docs/, in build/site/: open build/site/index.html in a browser.
#
#   scripts/site.sh [DIRECTORY]
#
# A link that leads nowhere, a picture that is missing, or a page that is in no list of docs/index.md is
# an error; all that are found are shown. Nothing in the site is fetched from elsewhere.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

site=${1:-build/site}
[ ! -e "$site" ] || [ -e "$site/.buildinfo" ] || die "$site is there, and is no site: name another"
[ -x .venv/bin/sphinx-build ] || need_venv
rm -rf "$site" # a page that is no more must not stay
.venv/bin/sphinx-build --builder html --nitpicky --fail-on-warning --keep-going --quiet \
  --doctree-dir "$site/.doctrees" docs "$site"
rm -r "$site/.doctrees"
say "made the site $site/index.html"
