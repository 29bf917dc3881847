#!/usr/bin/env bash
# Makes the manual pages and the completions in share/ anew, from the parsers and the settings:
#
#   scripts/pages.sh
#
# To be run after a change to a command, an option or a setting; a test says when it was forgotten.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

[ -x .venv/bin/shtab ] || die "there is no .venv yet: scripts/test.sh lint makes it"
PYTHONPATH=. exec .venv/bin/python scripts/pages.py share
