#!/usr/bin/env bash
# Runs the benchmarks, on a machine that may have nothing of what they need:
#
#   scripts/bench.sh volumes [--quick] [--json FILE]
#
# Measures mdvp beside the engine's own driver and `rclone serve docker`, on a Docker Engine of its
# own, in some 25 minutes, and writes the tables of docs/benchmarks.md. With --quick, in a minute
# once the plugin is built, it prints them: that shows that all works, not how fast it is.
exec "$(dirname "$0")/test.sh" bench "$@"
