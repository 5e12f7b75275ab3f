# Who has the device, what is set while he has it, and leaving nothing behind. Sourced by agent.sh.
#
# A lease is a folder leases/N with a file "BOOT UNTIL GRANTED OWNER"; the largest N counts. Taking, renewing and dropping
# each make the next folder by renaming one that is complete into its place, which only one of several can do: no lock
# that a killed process could leave behind. Times are seconds since the start of the device, so that no clock that
# anybody sets matters; a lease of an earlier start is over.
# shellcheck shell=sh disable=SC2154 # folder, sys, line, now, detach, here: agent.sh

# --- the lease --------------------------------------------------------------------------------------------------------

lease() {
  _owner=$(printf '%s' "$2" | tr -d '\000-\037')
  case $1:${3:-0} in *[!a-z:0-9]* | *: | :*) usage ;; esac
  case $1 in
    take | renew) change_lease "$1" "$_owner" "${3:-0}" ;;
    drop) change_lease drop "$_owner" 0 ;;
    *) usage ;;
  esac
}

# what is in force, in `holder`, `left` and `stale` (who had a lease that ran out)
read_lease() {
  latest=0 holder='' left=0 stale='' _seen=
  read_line /proc/sys/kernel/random/boot_id
  boot=${line:-unknown}
  read_uptime
  # a lease that is renewed meanwhile is another folder; once the list stays the same nothing is readable
  until find_state || [ "$_listed" = "$_seen" ]; do _seen=$_listed; done
  _boot=${line%% *}
  _rest=${line#* }
  _until=${_rest%% *}
  _rest=${_rest#* }
  _granted=${_rest%% *}
  case $_until$_granted in '' | *[!0-9]*) return ;; esac
  holder=${_rest#* }
  left=$((_until - now))
  # where a device does not tell its starts apart, a time left that was never granted is of an earlier one
  if [ "$_boot" != "$boot" ] || [ "$left" -le 0 ] || [ "$left" -gt "$_granted" ]; then
    stale=$holder holder='' left=0
  fi
}

# the state of the largest lease in `line`, its number in `latest`, all there are in `_listed`; false if there is none
find_state() {
  latest=0 _listed=
  for _l in "$folder"/leases/[0-9]*; do
    _n=${_l##*/}
    _listed="$_listed $_n"
    [ -e "$_l/state" ] && [ "$_n" -gt "$latest" ] && latest=$_n
  done
  read_line "$folder/leases/$latest/state"
  [ -n "$line" ]
}

# take, renew or drop ($1) for the owner $2, for $3 seconds
change_lease() {
  mkdir -p "$folder/leases" || exit 125
  while :; do
    read_lease
    if [ -n "$holder" ] && [ "$holder" != "$2" ]; then
      say_lease false "$holder" "$left" ''
      return
    fi
    _from=$stale
    [ "$_from" != "$2" ] || _from=
    _owner=$2
    [ "$1" != drop ] || _owner='' # nobody's: the next to take it takes nothing over
    if write_lease "$((latest + 1))" "$boot $((now + $3)) $3 $_owner"; then break; fi
  done
  [ "$1" = renew ] || begin_anew
  if [ "$1" = drop ]; then say_lease false '' 0 ''; else say_lease true "$2" "$3" "$_from"; fi
}

# make the lease number $1 with the state $2; false if another was quicker
write_lease() {
  _new=$folder/leases/new.$$
  rm -rf "$_new"
  if ! { mkdir "$_new" && say "$2" >"$_new/state"; }; then # a full disk
    rm -rf "$_new"
    exit 125
  fi
  mv "$_new" "$folder/leases/$1" 2>/dev/null || return 1
  if [ -e "$folder/leases/$1/${_new##*/}" ]; then # mv went into the folder that another had made
    rm -rf "$folder/leases/$1/${_new##*/}"
    return 1
  fi
  for _l in "$folder"/leases/[0-9]*; do
    [ "${_l##*/}" -le "$1" ] || { rm -rf "$folder/leases/$1"; return 1; } # several leases later already
  done
  for _l in "$folder"/leases/[0-9]*; do [ "${_l##*/}" -eq "$1" ] || rm -rf "$_l"; done
}

say_lease() {
  printf '{"event":"lease","mine":%s,"owner":%s,"left_s":%s,"taken_over_from":%s}\n' \
    "$1" "$(json_text "$2")" "$3" "$(json_text "$4")"
}

# nothing of an earlier holder runs on or stays set
begin_anew() {
  end_processes
  restore_governors
  rm -rf "$folder/launches"
}

# --- the governor -----------------------------------------------------------------------------------------------------

# set $1 on all cores where this user may; a guard puts back what was there when the lease is over
governor() {
  read_lease
  _set=
  if [ -n "$holder" ]; then
    mkdir -p "$folder/governors" || exit 125
    for _id in $(core_ids); do
      _file=$sys/devices/system/cpu/cpu$_id/cpufreq/scaling_governor
      [ -w "$_file" ] || continue
      read_line "$_file"
      # what cannot be put back, since the disk is full, is left as it is
      [ -s "$folder/governors/$_id" ] || say "$line" >"$folder/governors/$_id" || continue
      { say "$1" >"$_file"; } 2>/dev/null && _set="$_set${_set:+,}$_id"
    done
    [ -z "$_set" ] || guard_lives || start_guard
  fi
  printf '{"event":"governor","lease":%s,"cores":[%s]}\n' "$([ -n "$holder" ] && printf true || printf false)" "$_set"
}

# one guard a lease: it ends with it, or is ended by who takes the next
guard_lives() { keeper_lives "$folder/launches/guard"; }

start_guard() {
  _guard=$folder/launches/guard
  mkdir -p "$_guard" || exit 125
  # shellcheck disable=SC2086 # no setsid is no word, and a shell may be two: busybox sh
  EDGEPRUNE_LAUNCH=$_guard $detach ${EDGEPRUNE_SHELL:-sh} "$here/agent.sh" guard </dev/null >/dev/null 2>&1 &
  say "$!" >"$_guard/keeper"
  for _ in 1 2 3 4 5 6 7 8 9 10; do # it is known by its environment, which it has a moment later
    ! guard_lives || return 0
    sleep 0.1 || sleep 1
  done
}

# wait for the end of the lease; nobody else may be there to see it
guard() {
  while read_lease && [ -n "$holder" ]; do sleep 5; done
  rm -f "$folder/launches/guard/keeper"
  restore_governors
}

restore_governors() {
  for _saved in "$folder"/governors/*; do
    [ -e "$_saved" ] || continue
    read_line "$_saved"
    { say "$line" >"$sys/devices/system/cpu/cpu${_saved##*/}/cpufreq/scaling_governor"; } 2>/dev/null
    rm -f "$_saved"
  done
  rm -rf "$folder/governors"
}

# --- leaving nothing behind -------------------------------------------------------------------------------------------

# end all processes of launches in this folder: TERM, and KILL to those that are there a second later; how many, in `ended`
end_processes() {
  ended=0
  for _pid in $(marked "EDGEPRUNE_LAUNCH=$folder/launches/"); do
    kill -TERM "$_pid" 2>/dev/null && ended=$((ended + 1))
  done
  [ "$ended" -gt 0 ] || return 0
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    _left=$(marked "EDGEPRUNE_LAUNCH=$folder/launches/")
    [ -n "$_left" ] || return 0
    for _pid in $_left; do kill -TERM "$_pid" 2>/dev/null; done # one may have begun since the last look
    sleep 0.1 || sleep 1
  done
  for _pid in $(marked "EDGEPRUNE_LAUNCH=$folder/launches/"); do kill -KILL "$_pid" 2>/dev/null; done
}

# remove what was pushed; `all`: the lease, the agent and the folder too
clean() {
  case $1:$(ls -ld "$folder") in
    :drwx------* | all:drwx------*) ;;
    *) echo "agent: $folder is not private (0700): nothing removed" >&2 && exit 1 ;;
  esac
  end_processes
  restore_governors
  if [ "$1" = all ]; then
    cd / && rm -rf "$folder"
  else
    for _entry in "$folder"/* "$folder"/.[!.]*; do
      case $_entry in "$folder/leases" | "$here" | "$here"/*) continue ;; esac
      rm -rf "$_entry"
    done
  fi
  printf '{"event":"clean","ended":%s}\n' "$ended"
}
