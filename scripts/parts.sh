# shellcheck shell=bash
# The steps that building for this engine and releasing for others are made of. To be sourced from
# the root of the repository, after scripts/lib.sh.

build_image() { # build_image TARGET IMAGE [OPTION...]: redis-sync or sync, under the name IMAGE
  build sync/image/Dockerfile "$2" --target "$1" "${@:3}"
}

plugin_config() { # plugin_config [--sys-admin]: what the engine is told of the plugin
  local config
  config=$(cat plugin/config.json)
  if [ "${1:-}" = --sys-admin ]; then
    config=${config/+sys_ptrace/+sys_ptrace,+sys_admin}
    config=${config/'["CAP_SYS_PTRACE"]'/'["CAP_SYS_PTRACE", "CAP_SYS_ADMIN"]'}
    # Without the first it may not do what it was asked for, without the second it does not start.
    case $config in
      *+sys_admin*CAP_SYS_ADMIN*) ;;
      *) die "plugin/config.json does not name its capabilities as it did: see plugin_config" ;;
    esac
  fi
  printf '%s\n' "$config"
}

# What the engine makes a plugin of. All files get one time, so that the same content is the same
# plugin whenever it is made.
fill_plugin() ( # fill_plugin DIRECTORY STAMP [--sys-admin]: the file system with STAMP, and config.json
  rm -rf "$1/rootfs"
  mkdir -p "$1/rootfs"
  [ "$1" -ef plugin ] || plugin_config "${@:3}" >"$1/config.json"
  # It is never started, so it needs no command; but docker wants one.
  container=$(docker create "$ROOTFS_IMAGE" true)
  trap 'docker rm "$container" >/dev/null' EXIT
  docker export "$container" | tar --extract --directory "$1/rootfs" ||
    die "the plugin's files cannot be put into $1/rootfs: is there room on the disk?"
  # The engine makes no second plugin of the very same content, under whatever name.
  printf '%s\n' "$2" >"$1/rootfs/etc/mdvp-plugin"
  find "$1/rootfs" -exec touch --no-dereference --date=2000-01-01T00:00:00Z {} +
)
