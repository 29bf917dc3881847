#!/usr/bin/env bash
# Makes the manual pages and the completions in share/ anew, from the parsers and the settings:
#
#   scripts/manual.sh
#
# To be run after a change to a command, an option or a setting; a test says when it was forgotten.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

[ -x .venv/bin/shtab ] || need_venv
PYTHONPATH=. exec .venv/bin/python scripts/manual.py share
