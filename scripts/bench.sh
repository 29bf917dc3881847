#!/usr/bin/env bash
# Runs the benchmarks, on a machine that may have nothing of what they need:
#
#   scripts/bench.sh volumes|mirror|trees [--quick] [--json FILE]
#   scripts/bench.sh trees [--only PART...] [--share SHARE]
#
# volumes measures mdvp beside the engine's own driver and `rclone serve docker`, on a Docker Engine
# of its own, in some 25 minutes. mirror measures mdvp-sync beside a watchdog script and a loop of
# inotifywait, and from Redis to the directory beside a script with keyspace notifications, each
# with a Redis server of its own, in some 20. trees measures mdvp-sync with whole trees, beside
# watchdog, inotifywait, watchman and lsyncd. All write their tables into docs/benchmarks.md. With
# --quick, in a minute once the plugin is built, they print them: that shows that all works, not
# how fast it is.
#
# trees has the parts reconcile, burst, visible, rename and memory. With --only it measures those
# that are named, with --share 0.1 a tenth of the files. It prints what came of it, then, too.
exec "$(dirname "$0")/test.sh" bench "$@"
