#!/usr/bin/env bash
# Builds the image mdvp/redis-sync: a Redis server that mirrors the directory /foo.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

need_engine
scripts/base_image.sh
build sync/image/Dockerfile "$SYNC_IMAGE"
say "built the image $SYNC_IMAGE"
