#!/usr/bin/env bash
# Runs the benchmarks, on a machine that may have nothing of what they need:
#
#   scripts/bench.sh volumes|mirror|trees [--quick] [--json FILE]
#   scripts/bench.sh volumes|mirror|trees [--only PART...] [--quick]
#   scripts/bench.sh trees [--only PART...] [--share SHARE]
#
# volumes measures mdvp beside the engine's own driver and `rclone serve docker`, on a Docker Engine
# of its own, in some 25 minutes; then a volume with 1,000,000 files on btrfs, XFS and ext4, beside
# `cp -a`, for which it needs 40 GB below build/. mirror measures mdvp-sync beside a watchdog script
# and a loop of inotifywait, and from Redis to the directory beside a script with keyspace
# notifications, each with a Redis server of its own; then with a cluster and by Sentinel beside one
# server: in some 30. trees measures mdvp-sync with whole trees, beside watchdog, inotifywait,
# watchman and lsyncd. All write their tables into docs/benchmarks.md. With --quick, in a minute once
# the plugin is built, they print them: that shows that all works, not how fast it is.
#
# volumes has the parts operations and life (the million files), each with its own tables; mirror
# files, keys (in Redis, that become files) and existing (a cluster, Sentinels, the stream of changes,
# `mdvp-sync wait`, failovers: in some 8 minutes); trees reconcile, burst, visible, rename and memory.
# With --only those are measured that are named, with --share 0.1 a tenth of the files of trees. Of
# mirror and trees it prints what came of it, then, too.
exec "$(dirname "$0")/test.sh" bench "$@"
