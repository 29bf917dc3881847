#!/usr/bin/env bash
# Builds the images, both or the one that is named:
#
#   scripts/build_image.sh [--fresh] [redis-sync|sync]
#
# mdvp/redis-sync is a Redis server that mirrors the directory /foo; mdvp/sync mirrors it to a Redis
# elsewhere. With --fresh they get what Debian has today, security updates too, and not what is left
# of an earlier build.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
. scripts/parts.sh

fresh=()
[ "${1:-}" != --fresh ] || { fresh=(--no-cache); shift; }
case $#,${1:-} in
  0,) targets=(redis-sync sync) ;;
  1,redis-sync | 1,sync) targets=("$1") ;;
  *) die "unknown argument ${*: -1}: use [--fresh] [redis-sync|sync]" ;;
esac

need_engine
scripts/base_image.sh ${fresh:+--fresh}
for target in "${targets[@]}"; do
  case $target in
    redis-sync) image=$SYNC_IMAGE ;;
    sync) image=$SYNC_ALONE_IMAGE ;;
  esac
  build_image "$target" "$image" "${fresh[@]}"
  say "built the image $image"
done
