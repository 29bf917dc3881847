#!/usr/bin/env bash
# Runs a command on a fresh, minimal Debian, as one gets it from a hoster, without making one:
#
#   tests/e2e/fresh_machine.sh SUITE COMMAND [ARGUMENT...]
#   tests/e2e/fresh_machine.sh trixie scripts/quickstart.sh
#
# SUITE is a release of Debian: bookworm, trixie. The command runs as root
# in /mdvp, a copy of this repository as a clone would have it, changes that are not committed
# included. The machine is made of namespaces: files, mounts, processes, network, host name and
# cgroups of its own; the kernel, and the way out to the network, are the host's. No service manager
# runs in it. Its end is that of the command, whose exit status is ours; then nothing is left of it.
#
# Needs root, and the packages mmdebstrap, debian-archive-keyring and slirp4netns.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/lib.sh

CGROUPS=/sys/fs/cgroup
MACHINE=mdvp-fresh-$$
DIRECTORY="" UNSHARE="" SLIRP=""

# What pid 1 of the machine does; $1 is the directory of its root, $2 the name of its cgroups.
# /proc is still the host's in the first line: that pid is the one the host knows it by.
# shellcheck disable=SC2016 # for the shell in the machine
BOOT='
set -e
read -r pid _ </proc/self/stat
cgroups=$2
mount --bind "$1" "$1"
cd "$1"
shift 2
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=755 tmpfs dev
mkdir dev/pts dev/shm dev/net
for node in null zero full random urandom tty net/tun; do
    : >"dev/$node"
    mount --bind "/dev/$node" "dev/$node"
done
mount -t devpts -o newinstance,ptmxmode=666,mode=620 devpts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s fd/0 dev/stdin
ln -s fd/1 dev/stdout
ln -s fd/2 dev/stderr
if [ -e /sys/fs/cgroup/cgroup.procs ]; then
    mount --bind "/sys/fs/cgroup/$cgroups" sys/fs/cgroup
else
    mount -t tmpfs -o mode=755 tmpfs sys/fs/cgroup
    for path in "/sys/fs/cgroup/"*"/$cgroups"; do
        hierarchy=${path#/sys/fs/cgroup/}
        hierarchy=${hierarchy%%/*}
        mkdir "sys/fs/cgroup/$hierarchy"
        mount --bind "$path" "sys/fs/cgroup/$hierarchy"
    done
fi
hostname fresh
pivot_root . .
umount -l .
cd /mdvp
echo "$pid" >&3
read -r _ <&4
exec 3>&- 4<&-
exec env -i HOME=/root LANG=C.UTF-8 TERM="${TERM:-dumb}" \
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    sh -c "\"\$@\"; exit \$?" sh "$@"
'

check_machine_can_be_made() {
  local tool
  [ "$EUID" -eq 0 ] || die "a machine of namespaces needs root: run it with sudo"
  for tool in mmdebstrap slirp4netns; do
    command -v "$tool" >/dev/null || die "there is no $tool: apt-get install $tool"
  done
}

make_root() { # make_root SUITE: the file system of the machine, with the repository
  local options=() own=/usr/local/share/ca-certificates
  # On a host with certificates of its own, the way out may need them.
  if compgen -G "$own/*.crt" >/dev/null; then
    options=(--include=ca-certificates "--customize-hook=copy-in $own ${own%/*}"
      "--customize-hook=chroot \"\$1\" update-ca-certificates >/dev/null 2>&1")
  fi
  mmdebstrap --quiet --variant=minbase "${options[@]}" "$1" "$DIRECTORY/root"
  echo 'nameserver 10.0.2.3' >"$DIRECTORY/root/etc/resolv.conf"
  echo fresh >"$DIRECTORY/root/etc/hostname"
  printf '127.0.0.1 localhost\n127.0.1.1 fresh\n' >"$DIRECTORY/root/etc/hosts"
  mkdir "$DIRECTORY/root/mdvp"
  # A file that is deleted and not committed is listed, too.
  git ls-files -z --cached --others --exclude-standard |
    while IFS= read -r -d '' path; do [ ! -e "$path" ] || printf '%s\0' "$path"; done |
    tar --create --no-recursion --owner=0 --group=0 --null --files-from=- |
    tar --extract --directory "$DIRECTORY/root/mdvp"
}

hierarchies() { # the cgroup hierarchies of the host: one, or in version 1 several
  if [ -e "$CGROUPS/cgroup.procs" ]; then
    echo "$CGROUPS"
  else
    find "$CGROUPS" -mindepth 1 -maxdepth 1 -type d -exec test -e '{}/cgroup.procs' ';' -print
  fi
}

make_cgroups() {
  local hierarchy file
  for hierarchy in $(hierarchies); do
    mkdir "$hierarchy/$MACHINE"
    for file in cpuset.cpus cpuset.mems; do # in version 1 a new cgroup has none, and takes no one
      [ ! -e "$hierarchy/tasks" ] || [ ! -e "$hierarchy/$file" ] ||
        cat "$hierarchy/$file" >"$hierarchy/$MACHINE/$file"
    done
  done
}

enter_cgroups() { # by this process, before the machine's cgroup namespace makes them its root
  local hierarchy
  for hierarchy in $(hierarchies); do
    echo "$BASHPID" >"$hierarchy/$MACHINE/cgroup.procs"
  done
}

# In version 2, a cgroup with a process in it can give its children no controllers.
empty_cgroup() { # empty_cgroup PID...
  local pid
  [ -e "$CGROUPS/cgroup.procs" ] || return 0
  mkdir "$CGROUPS/$MACHINE/init"
  for pid; do echo "$pid" >"$CGROUPS/$MACHINE/init/cgroup.procs"; done
}

remove_cgroups() {
  local hierarchy attempt
  for hierarchy in $(hierarchies); do
    for attempt in {1..50}; do # busy for a moment after the end of its last process
      [ -d "$hierarchy/$MACHINE" ] || break
      [ "$attempt" -eq 1 ] || sleep 0.1
      find "$hierarchy/$MACHINE" -depth -type d -exec rmdir '{}' ';' 2>/dev/null || true
    done
  done
}

clean_up() {
  local pid
  for pid in $SLIRP $UNSHARE; do kill -KILL "$pid" 2>/dev/null || true; done
  wait 2>/dev/null # says nothing of those that were killed
  remove_cgroups
  [ -z "$DIRECTORY" ] || rm -rf "$DIRECTORY"
}

# All that we start dies with us, be it by SIGKILL; with unshare dies pid 1, so all in the machine.
run_machine() { # run_machine COMMAND...
  local pid
  mkfifo "$DIRECTORY/booted" "$DIRECTORY/go"
  exec 3<>"$DIRECTORY/booted" 4<>"$DIRECTORY/go"
  (
    enter_cgroups
    exec setpriv --pdeathsig KILL unshare --mount --uts --ipc --net --pid --cgroup --fork \
      --kill-child -- sh -c "$BOOT" sh "$DIRECTORY/root" "$MACHINE" "$@"
  ) <&0 &
  UNSHARE=$!
  read -r -t 30 pid <&3 || die "the namespaces cannot be made"
  empty_cgroup "$UNSHARE" "$pid"
  setpriv --pdeathsig KILL slirp4netns --configure --mtu=65520 --disable-host-loopback \
    --ready-fd=3 "$pid" tap0 <&- >"$DIRECTORY/slirp.log" 2>&1 4<&- &
  SLIRP=$!
  read -r -t 30 -N 1 _ <&3 || die "no way out to the network: $(tail -n 1 "$DIRECTORY/slirp.log")"
  echo >&4
  exec 3>&- 4>&-
  wait "$UNSHARE"
}

[ $# -ge 2 ] || die "usage: tests/e2e/fresh_machine.sh SUITE COMMAND [ARGUMENT...]"
check_machine_can_be_made
trap clean_up EXIT
trap 'exit 130' INT TERM HUP
DIRECTORY=$(mktemp --directory /var/tmp/mdvp-fresh.XXXXXX) # a real disk, as the engine wants it
make_root "$1"
make_cgroups
run_machine "${@:2}"
