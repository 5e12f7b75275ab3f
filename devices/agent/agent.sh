#!/bin/sh
# The agent: what runs on a device beside a worker. POSIX sh (dash, busybox, toybox/mksh), no root, nothing installed.
#
#   agent.sh facts                            one JSON line: what this device is
#   agent.sh run CORES PROGRAM [ARGUMENT...]  start PROGRAM pinned to CORES ("0,2", or "-" for any), hand it the lines of
#                                             stdin, let its stdout through, and end it when stdin ends
#
# Lines of `run` that are not the program's own:
#   {"event":"started","pid":P,"cores":[..]|null}            pinned to these cores; null where nothing could pin
#   {"event":"reading","uptime_s":T,"temp_c":..,"clock_hz":[..],"throttled":..}   about once a second, from other cores
#   {"event":"exit","status":S}                              last; S above 128 is a signal
#
# The end of stdin, however it comes (quit, a cut link, a killed laptop), stops everything within 2 s: TERM at once, KILL a
# second later. Start reading at `run`.
set -u
umask 077

# --- small things -----------------------------------------------------------------------------------------------------

# first line of a file, or nothing
first_line() { [ -r "$1" ] && { IFS= read -r _line <"$1" || [ -n "${_line:-}" ]; } 2>/dev/null && printf '%s' "$_line"; _line=; }

# $1 as a JSON string: quotes and backslashes escaped, control characters dropped
json_string() { printf '"%s"' "$(printf '%s' "$1" | tr -d '\000-\037' | sed 's/\\/\\\\/g; s/"/\\"/g')"; }

# $1 if it is a whole number, else null
json_number() { case "${1:-}" in '' | *[!0-9]*) printf null ;; *) printf '%s' "$1" ;; esac; }

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

# --- what a device can read of itself ---------------------------------------------------------------------------------

# the hottest processor sensor in thousandths of a degree; zones that are not the processor's (battery, charger) are left out
read_temp() {
  _hot=
  for _z in /sys/class/thermal/thermal_zone*; do
    case "$(first_line "$_z/type")" in *batt* | *charg* | *pmic* | *wifi* | *modem*) continue ;; esac
    _t=$(first_line "$_z/temp")
    case "$_t" in '' | *[!0-9]*) continue ;; esac
    if [ -z "$_hot" ] || [ "$_t" -gt "$_hot" ]; then _hot=$_t; fi
  done
  printf '%s' "$_hot"
}

temp_json() {
  _t=$(read_temp)
  if [ -z "$_t" ]; then printf null; else printf '%d.%03d' $((_t / 1000)) $((_t % 1000)); fi
}

clocks_json() {
  _list=
  for _id in $(core_ids); do
    _khz=$(first_line "/sys/devices/system/cpu/cpu$_id/cpufreq/scaling_cur_freq")
    case "$_khz" in '' | *[!0-9]*) continue ;; esac
    _list="$_list${_list:+,}${_khz}000"
  done
  if [ -z "$_list" ]; then printf null; else printf '[%s]' "$_list"; fi
}

# how often the cores were throttled so far (x86), or nothing
throttle_count() {
  _sum=
  for _f in /sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/core_throttle_count; do
    _n=$(first_line "$_f")
    case "$_n" in '' | *[!0-9]*) continue ;; esac
    _sum=$((${_sum:-0} + _n))
  done
  printf '%s' "$_sum"
}

uptime_s() { _u=$(first_line /proc/uptime); _u=${_u%% *}; printf '%s' "${_u:-0}"; }

memory_kib() { json_number "$(sed -n 's/^MemTotal:[^0-9]*\([0-9]*\) kB.*/\1/p' /proc/meminfo 2>/dev/null)"; }

processor_name() {
  _p=$(sed -n 's/^model name[^:]*: *//p; s/^Hardware[^:]*: *//p' /proc/cpuinfo 2>/dev/null | sed -n 1p)
  [ -n "$_p" ] || _p=$(uname -m)
  printf '%s' "$_p"
}

board_name() {
  if [ -r /proc/device-tree/model ]; then tr -d '\000' </proc/device-tree/model; else first_line /sys/class/dmi/id/product_name; fi
}

os_name() {
  if [ -r /etc/os-release ]; then sed -n 's/^PRETTY_NAME="*\([^"]*\)"*$/\1/p' /etc/os-release | sed -n 1p; else uname -s; fi
}

cores_json() {
  _list=
  for _id in $(core_ids); do
    _cpu=/sys/devices/system/cpu/cpu$_id
    _entry="{\"core\":$_id,\"max_khz\":$(json_number "$(first_line "$_cpu/cpufreq/cpuinfo_max_freq")"),"
    _entry="$_entry\"capacity\":$(json_number "$(first_line "$_cpu/cpu_capacity")"),"
    _entry="$_entry\"governor\":$(json_string "$(first_line "$_cpu/cpufreq/scaling_governor")")}"
    _list="$_list${_list:+,}$_entry"
  done
  printf '[%s]' "$_list"
}

facts() {
  printf '{"event":"facts","machine":%s,"kernel":%s,"os":%s,"processor":%s,"board":%s,' \
    "$(json_string "$(uname -m)")" "$(json_string "$(uname -sr)")" "$(json_string "$(os_name)")" \
    "$(json_string "$(processor_name)")" "$(json_string "$(board_name)")"
  printf '"memory_kib":%s,"temp_c":%s,"load":%s,"pinning":%s,"cores":%s}\n' \
    "$(memory_kib)" "$(temp_json)" "$(json_string "$(first_line /proc/loadavg)")" \
    "$(command -v taskset >/dev/null 2>&1 && printf true || printf false)" "$(cores_json)"
}

# --- running a worker -------------------------------------------------------------------------------------------------

# keep the sampler off the worker's cores: pin this shell to the others, where there are others
leave_cores() {
  command -v taskset >/dev/null 2>&1 || return 0
  _others=
  for _id in $(core_ids); do
    case ",$1," in *",$_id,"*) ;; *) _others="$_others${_others:+,}$_id" ;; esac
  done
  [ -n "$_others" ] && taskset -p "$(mask_of "$_others")" "$(exec sh -c 'echo $PPID')" >/dev/null 2>&1
  return 0
}

# whether there is anything to read; a device with nothing costs nothing
has_sensors() { [ -n "$throttled_before" ] || [ -n "$(read_temp)" ] || [ "$(clocks_json)" != null ]; }

reading() {
  _throttled=null
  if [ -n "$throttled_before" ]; then
    if [ "$(throttle_count)" -gt "$throttled_before" ]; then _throttled=true; else _throttled=false; fi
  fi
  printf '{"event":"reading","uptime_s":%s,"temp_c":%s,"clock_hz":%s,"throttled":%s}\n' \
    "$(uptime_s)" "$(temp_json)" "$(clocks_json)" "$_throttled"
}

# a reading a second
sample() {
  leave_cores "$1"
  while :; do
    reading
    sleep 1 >/dev/null
  done
}

# (whatever may outlive the agent for a moment holds no end of its stdout, so that the laptop sees the end at once)
# hand the lines of stdin (descriptor 3) on to the worker (descriptor 4); when they end, end the worker
relay() {
  while IFS= read -r _request <&3; do printf '%s\n' "$_request" >&4 || break; done
  exec 4>&-
  kill -TERM "$1" 2>/dev/null && sleep 1
  kill -KILL "$1" 2>/dev/null
}

run() {
  cores=$1
  shift
  folder=$(mktemp -d "${TMPDIR:-.}/edgeprune.XXXXXX") || exit 125
  trap 'rm -rf "$folder"' EXIT
  mkfifo "$folder/requests" || exit 125
  throttled_before=$(throttle_count)
  exec 3<&0
  if [ "$cores" != - ] && command -v taskset >/dev/null 2>&1; then
    (exec taskset "$(mask_of "$cores")" "$@" <"$folder/requests" 3<&-) &
    pinned="[$cores]"
  else
    (exec "$@" <"$folder/requests" 3<&-) &
    pinned=null
  fi
  worker=$!
  exec 4>"$folder/requests"
  # the relay comes first: from here on the worker ends with stdin, whatever happens to this shell
  relay "$worker" >/dev/null 2>&1 &
  relay=$!
  exec 4>&- 3<&-
  rm -rf "$folder"
  printf '{"event":"started","pid":%s,"cores":%s}\n' "$worker" "$pinned"
  sampler=
  if has_sensors; then
    sample "$cores" &
    sampler=$!
  fi
  trap 'kill -TERM "$worker" 2>/dev/null' HUP INT TERM
  wait "$worker"
  status=$?
  while kill -0 "$worker" 2>/dev/null; do wait "$worker"; status=$?; done
  # shellcheck disable=SC2086 # no sampler is no word
  kill -KILL $sampler "$relay" 2>/dev/null
  # shellcheck disable=SC2086
  wait $sampler "$relay" 2>/dev/null
  [ -n "$sampler" ] && reading
  printf '{"event":"exit","status":%s}\n' "$status"
}

case "${1:-}" in
  facts) facts ;;
  run) [ $# -ge 3 ] || { echo "usage: agent.sh run CORES PROGRAM [ARGUMENT...]" >&2; exit 64; }; shift; run "$@" ;;
  *) echo "usage: agent.sh facts | run CORES PROGRAM [ARGUMENT...]" >&2; exit 64 ;;
esac
