#!/bin/sh
# The agent: what runs on a device beside a worker. POSIX sh (dash, busybox, toybox/mksh), no root, nothing installed.
#
#   agent.sh facts                                one JSON line: what this device is                      (facts.sh)
#   agent.sh run ID CORES PROGRAM [ARGUMENT...]   start PROGRAM pinned to CORES ("0,2", or "-" for any), hand it the
#                                                 lines of stdin, let its stdout through                  (launch.sh)
#   agent.sh attach ID LINES REQUESTS             take over a launch after LINES lines of its output and REQUESTS sent
#                                                 requests: the link was lost                             (launch.sh)
#   agent.sh lease take|renew|drop OWNER SECONDS  who has the device; one JSON line                       (lease.sh)
#   agent.sh governor NAME                        for as long as the lease lasts, where allowed           (lease.sh)
#   agent.sh clean [all]                          end what still runs and remove what was brought here    (lease.sh)
#
# Lines of `run` and `attach` that are not the program's own:
#   {"event":"attached","requests":K}    first, by `attach`: so many requests had reached the program; send the rest again
#   {"event":"gone"}                     only, by `attach`: no such launch (cleaned, or the device was restarted)
#   {"event":"started","pid":P,"cores":[..]|null}     pinned to these cores; null where nothing could pin
#   {"event":"reading","uptime_s":T,"temp_c":..,"clock_hz":[..],"throttled":..,..}  about once a second, from other cores
#   {"event":"taken","by":P}             another `attach` has the launch from here on
#   {"event":"alive"}                    answers a request {"op":"alive"}, which is a sign of life and nothing else
#   {"event":"exit","status":S,"stopped":null|"stdin"|"silence","refused":null|"..","stderr":".."}   last; S above 128 is
#                                        a signal; stopped says why the agent ended the program, refused why this device
#                                        cannot carry it out, stderr is the end of what it wrote there
# All but the first two are lines of the launch's spool and are counted in LINES.
#
# What it keeps lies in $EDGEPRUNE_AGENT_FOLDER (0700), else beside these files. $EDGEPRUNE_SHELL is the shell that keeps
# a launch. Start reading at `run` in launch.sh.
# shellcheck disable=SC1091,SC2034 # the other files use what is set here
set -u
umask 077

here=$(cd "$(dirname "$0")" && pwd) || exit 125
folder=${EDGEPRUNE_AGENT_FOLDER:-$here}
folder=$(mkdir -p "$folder" && cd "$folder" && pwd) || exit 125
sys=${EDGEPRUNE_SYS:-/sys}
proc=${EDGEPRUNE_PROC:-/proc}

# --- small things; what is done every second sets a variable, since each $(...) is a process ----------------------------

# the first line of a file in `line`, or nothing
read_line() {
  line=
  [ -r "$1" ] && { IFS= read -r line <"$1"; } 2>/dev/null
  return 0
}

# the same, nothing unless it is a whole number
read_number() {
  read_line "$1"
  case $line in *[!0-9]*) line= ;; esac
}

# seconds since the start of the device, whole ones in `now`: no clock that anybody sets
read_uptime() {
  read_line /proc/uptime
  uptime=${line%% *}
  uptime=${uptime:-0}
  now=${uptime%%.*}
}

# a line in one piece, since several processes write to one file or pipe: Android's shell has no printf of its own, and
# toybox's writes byte by byte
if [ "$(command -v print)" = print ]; then
  say() { print -r -- "$1"; }
else
  say() { printf '%s\n' "$1"; }
fi

# $1 divided by 10 to the power of $2, in `decimal`
divide() {
  decimal=$1
  while [ ${#decimal} -le "$2" ]; do decimal=0$decimal; done
  _places=$2
  _whole=$decimal
  while [ "$_places" -gt 0 ]; do
    _whole=${_whole%?}
    _places=$((_places - 1))
  done
  decimal=$_whole.${decimal#"$_whole"}
}

# $1 as a JSON string: quotes and backslashes escaped, line ends kept, other control characters dropped
json_string() {
  printf '"%s"' "$(printf '%s\n' "$1" | tr -d '\000-\011\013-\037' | sed 's/\\/\\\\/g; s/"/\\"/g; $!s/$/\\n/' | tr -d '\n')"
}

# $1 as a JSON string, null if it is empty
json_text() { if [ -n "$1" ]; then json_string "$1"; else printf null; fi; }

# $1 if it is a whole number, else null
json_number() { case "${1:-}" in '' | *[!0-9]*) printf null ;; *) printf '%s' "$1" ;; esac; }

has() { command -v "$1" >/dev/null 2>&1; }

# the hexadecimal mask of a comma-separated list of cores, as every taskset takes it; digit by digit, since a shell's
# numbers may have 32 bits only
mask_of() {
  _cores=$(printf '%s' "$1" | tr ',' ' ')
  _digit=0
  for _c in $_cores; do [ $((_c / 4)) -gt "$_digit" ] && _digit=$((_c / 4)); done
  _mask=
  while [ "$_digit" -ge 0 ]; do
    _bits=0
    for _c in $_cores; do [ $((_c / 4)) -eq "$_digit" ] && _bits=$((_bits | (1 << (_c % 4)))); done
    _mask=$_mask$(printf '%x' "$_bits")
    _digit=$((_digit - 1))
  done
  printf '%s' "$_mask"
}

# the cores that this process may use: neither offline ones nor those that a container or a batch system keeps back
core_ids() {
  _ranges=$(sed -n 's/^Cpus_allowed_list:[^0-9]*//p' /proc/self/status 2>/dev/null | tr ',' ' ')
  for _r in ${_ranges:-0}; do
    _id=${_r%-*}
    while [ "$_id" -le "${_r#*-}" ]; do
      printf '%s\n' "$_id"
      _id=$((_id + 1))
    done
  done
}

# numbers of the processes whose environment holds $1
marked() { grep -lF "$1" /proc/[0-9]*/environ 2>/dev/null | sed 's|^/proc/||; s|/environ$||'; }

usage() {
  sed -n 's/^#   \(agent.sh [^ ].*\)/usage: \1/p' "$0" >&2
  exit 64
}

# a program in a session of its own, so that a signal to its group reaches all its children and no other's reaches it
detach=
if has setsid; then detach=setsid; fi

. "$here/device.sh"
. "$here/facts.sh"
. "$here/launch.sh"
. "$here/program.sh"
. "$here/lease.sh"

case "${1:-} $#" in
  'facts 1') facts ;;
  'run '[4-9] | 'run '[1-9][0-9]*) shift && run "$@" ;;
  'attach 4') shift && attach "$@" ;;
  'keep '*) shift && keep "$@" ;; # by `run`
  'lease '[34]) shift && lease "$@" ;;
  'governor 2') governor "$2" ;;
  'guard 1') guard ;; # by `governor`
  'clean 1' | 'clean 2') clean "${2:-}" ;;
  *) usage ;;
esac
