# shellcheck shell=dash
# What a container may do, and what to add where that is not enough; for the entrypoints, to be sourced.

# Of this process, and so of its children: /proc/PID/status, proc(5).
while read -r field first second _; do
  case $field in
    Uid:) USER_ID=$second ;; # the effective one
    CapEff:) EFFECTIVE=$first ;;
  esac
done </proc/self/status

say() { tell WARNING "$*"; }

die() { # die MESSAGE: one line on what is wrong and the way out
  tell ERROR "$*"
  exit 1
}

tell() { # tell LEVEL MESSAGE: as the service writes its log
  if [ "${LOG_FORMAT:-}" = json ]; then
    /opt/mdvp/bin/python3 -I -m sync.report.say "$1" "$2"
  else
    printf 'entrypoint: %s\n' "$2" >&2
  fi
}

missing() { # missing CAPABILITY...: print those that this container has not, as options that add them
  local each bit # capabilities(7)
  for each in "$@"; do
    case $each in
      CHOWN) bit=0 ;;
      DAC_OVERRIDE) bit=1 ;;
      FOWNER) bit=3 ;;
      KILL) bit=5 ;;
      SETGID) bit=6 ;;
      SETUID) bit=7 ;;
      SETPCAP) bit=8 ;;
    esac
    [ $((0x$EFFECTIVE >> bit & 1)) -eq 1 ] || printf ' --cap-add %s' "$each"
  done
}

limited() { # limited CAPABILITY...: print the command that runs another with no more than these
  local words='setpriv --no-new-privs --inh-caps=-all' each
  if [ -z "$(missing SETPCAP)" ]; then
    words="$words --bounding-set=-all"
    for each in "$@"; do
      [ -n "$(missing "$each")" ] || words="$words,+$(printf %s "$each" | tr '[:upper:]' '[:lower:]')"
    done
  fi
  printf %s "$words"
}

# What the service may: see to files whoever owns them; and where it writes files, give them their owner
# and their mode, too. SYNC_MODE is checked by the service.
service_capabilities() {
  printf DAC_OVERRIDE
  [ "${SYNC_MODE:-one-way-replica}" = one-way-replica ] || printf ' CHOWN FOWNER'
}

say_what_is_missing() {
  local options
  # shellcheck disable=SC2046 # they are words
  options=$(missing $(service_capabilities))
  if [ "$USER_ID" -ne 0 ]; then
    say "the service is user $USER_ID: what this user may not read or write stays as it is, and" \
      "\`mdvp-sync status\` lists it; add --group-add GROUP for files of a group, or --user 0 for all"
  elif [ -n "$options" ]; then
    say "root has not all rights here: what it may not read or write stays as it is, and" \
      "\`mdvp-sync status\` lists it; for all files add$options"
  fi
}

have() { # have DIRECTORY...: below /run, for this user alone to write to
  local each
  # In the image it is anybody's, so that any user can be the service.
  for each in /run "$@"; do
    mkdir -p "$each" 2>/dev/null || true
    [ -w "$each" ] ||
      die "user $USER_ID cannot write to $each: add --tmpfs /run (in Kubernetes an emptyDir at /run)" \
        "that this user can write to"
    chmod 0755 "$each" 2>/dev/null || true # somebody else's
  done
}

# Prints the server's password, or nothing if there is none. A file's last newline is its editor's.
password() {
  local words
  if [ -z "${REDIS_PASSWORD_FILE:-}" ]; then
    printf %s "${REDIS_PASSWORD:-}"
    return
  fi
  [ -z "${REDIS_PASSWORD:-}" ] ||
    die "REDIS_PASSWORD and REDIS_PASSWORD_FILE are both set: leave one of the two out"
  words=$(cat "$REDIS_PASSWORD_FILE" && echo .) ||
    die "REDIS_PASSWORD_FILE cannot be read by user $USER_ID: $REDIS_PASSWORD_FILE"
  words=${words%.}
  printf %s "${words%
}"
}
