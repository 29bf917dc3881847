#!/usr/bin/env bash
# Runs the benchmarks, on a machine that may have nothing of what they need:
#
#   scripts/bench.sh volumes|mirror [--quick] [--json FILE]
#
# volumes measures mdvp beside the engine's own driver and `rclone serve docker`, on a Docker Engine
# of its own, in some 25 minutes. mirror measures mdvp-sync beside a watchdog script and a loop of
# inotifywait, each with a Redis server of its own, in some 15. Both write their tables into
# docs/benchmarks.md. With --quick, in a minute once the plugin is built, they print them: that shows
# that all works, not how fast it is.
exec "$(dirname "$0")/test.sh" bench "$@"
