#!/usr/bin/env bash
# A mirror in a few lines, as people write it: inotifywait_loop.sh DIRECTORY REDIS-SOCKET
inotifywait --quiet --monitor --event close_write,moved_to,moved_from,delete \
  --format '%e %f' "$1" |
  while read -r event name; do
    case $event in
      CLOSE_WRITE* | MOVED_TO*) redis-cli -s "$2" -x set "$name" <"$1/$name" ;;
      *) redis-cli -s "$2" del "$name" ;;
    esac
  done
