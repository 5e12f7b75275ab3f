# One launch of a program: started by `run`, kept by `keep`, taken over by `attach`. Sourced by agent.sh.
#
#   link's stdin -> relay \                       / worker -> spool (a file, which never waits) \
#                          > inbox -> clerk -> pipe                                              > tail -> link's stdout
#      (run, attach: they end with the link)      \ pulse: reading, tick a second     -> spool   /
#
# `keep` has the clerk, the worker and the pulse in a session of their own, which outlives the link. Its inbox is a pipe
# without a name, which others open as /proc/PID/fd/3: Android's rules need not allow its shell to make named ones. What
# comes in is put in one order there, so that "the owner's stdin has ended" and "another has taken over" never race.
#
# Requests are numbered in the order of the laptop's sending. The clerk hands on number N+1 after N and drops all others:
# one that a slow, lost link delivers late has come by the new link already, or will.
# A file of a launch is made by `true >`: `:` is a special built-in, and where one's redirection fails, since another
# holder removed the launch, the shell ends.
# shellcheck shell=sh disable=SC2119,SC2120,SC2154 # here, folder, line, now, detach: agent.sh; $1: lease.sh

SILENCE_S=${EDGEPRUNE_SILENCE_S:-90} # without a sign of life from the laptop for so long the link is dead
_LONG=3000                           # longer requests go by file: a pipe takes 4096 bytes in one piece

usable_id() { case $1 in '' | *[!A-Za-z0-9_-]*) return 1 ;; esac; }

# an event of the agent: one line, written in one piece, to the end of the spool
tell() { say "$1" >>"$launch/spool"; }

# --- the side of the link ---------------------------------------------------------------------------------------------

run() {
  usable_id "$1" || usage
  launch=$folder/launches/$1
  mark_client run "$@"
  shift
  forget_told
  mkdir -p "$folder/launches" && mkdir "$launch" || exit 125
  true >"$launch/spool" || exit 125
  # shellcheck disable=SC2086 # no setsid is no word, and a shell may be two: busybox sh
  : | EDGEPRUNE_CLIENT='' $detach ${EDGEPRUNE_SHELL:-sh} "$here/agent.sh" keep "$$" "$@" \
    >/dev/null 2>"$launch/stderr" &
  owned=true
  serve 1 0
}

# the launch $1, from line $2 + 1 of its spool on; $3 requests were sent so far
attach() {
  launch=$folder/launches/$1
  mark_client attach "$@"
  if ! usable_id "$1" || ! [ -e "$launch/spool" ] || { ! keeper_lives && ! has_exit; }; then
    say '{"event":"gone"}'
    return
  fi
  owned=false
  if keeper_lives; then say "own $$" 1<>"/proc/$keeper/fd/3"; fi
  taken=0
  [ -e "$launch/taken" ] && taken=$(($(wc -l <"$launch/taken")))
  [ "$taken" -le "$3" ] || taken=$3
  say "{\"event\":\"attached\",\"requests\":$taken}"
  serve "$((taken + 1))" "$2"
}

# start this process anew with the launch in its environment, by which `clean` finds all that it has started
mark_client() {
  [ "${EDGEPRUNE_CLIENT:-}" != "$$." ] || return 0
  export EDGEPRUNE_CLIENT="$$." EDGEPRUNE_LAUNCH="$launch"
  # shellcheck disable=SC2086 # a shell may be two words: busybox sh
  exec ${EDGEPRUNE_SHELL:-sh} "$here/agent.sh" "$@"
}

# whether the `keep` of the launch (or of $1) runs, in this process of that number and no later one; it is in `keeper`
keeper_lives() {
  read_number "${1:-$launch}/keeper"
  keeper=$line
  [ -n "$keeper" ] && grep -qF "EDGEPRUNE_LAUNCH=${1:-$launch}" "/proc/$keeper/environ" 2>/dev/null
}

has_exit() { case $(tail -n 1 "$launch/spool" 2>/dev/null) in '{"event":"exit",'*) ;; *) return 1 ;; esac; }

# Launches whose end has been told are of no use any more once the next begins.
forget_told() {
  for _launch in "$folder"/launches/*; do
    if [ -e "$_launch/told" ]; then rm -rf "$_launch"; fi
  done
}

# let the spool from line $2 + 1 on through and number the lines of stdin from $1 on, until the program has ended or
# another has taken over
serve() {
  exec 3<&0 0</dev/null
  relay "$1" >/dev/null 2>&1 &
  relay=$!
  exec 3<&-
  trap 'kill "$relay" 2>/dev/null; exit 129' HUP INT TERM
  sh -c 'echo $$; exec tail -n "+$1" -f "$2"' sh "$(($2 + 1))" "$launch/spool" 2>/dev/null | show
  kill -PIPE "$relay" 2>/dev/null
  return 0
}

# the lines of the spool to the link
show() {
  trap '' PIPE # a link that has gone is a failing word, not the end of this shell before it has ended the tail
  IFS= read -r tail || return
  while IFS= read -r line; do
    case $line in
      "{\"event\":\"taken\",\"by\":$$}") owned=true ;;
      '{"event":"taken",'*) [ "$owned" = false ] || break ;; # before this one's own: an earlier owner, not a later
    esac
    say "$line" 2>/dev/null || break
    case $line in '{"event":"exit",'*) true >"$launch/told" && break ;; esac
  done
  kill -PIPE "$tail" 2>/dev/null # of this death no shell makes words
}

# the lines of stdin (descriptor 3) to the clerk, then see to it that all comes to its end; whatever holds stdin holds no
# stdout
relay() {
  tries=0
  until read_number "$launch/keeper" && [ -n "$line" ] || [ "$tries" -ge 500 ]; do
    kill -0 "$$" 2>/dev/null || exit # who would end this is gone, and so may the launch be
    sleep 0.02 || sleep 1
    tries=$((tries + 1))
  done
  # no keeper (a full disk), or one that was killed, has no inbox; without `command` a shell would end here
  if command exec 4<>"/proc/$line/fd/3"; then pass_on "$1"; fi
  exec 3<&-
  # the end of the program ends this too; where its keeper is gone nothing does
  for _ in 1 2 3 4 5; do
    sleep 1
    [ ! -e "$launch/told" ] || kill -0 "$$" 2>/dev/null || exit
  done
  if ! keeper_lives; then
    for _pid in $(marked "EDGEPRUNE_WORKER=$launch"); do kill -KILL "$_pid" 2>/dev/null; done
  fi
  trap '' TERM
  for _pid in $(marked "EDGEPRUNE_CLIENT=$EDGEPRUNE_CLIENT"); do
    kill -TERM "$_pid" 2>/dev/null
    kill -CONT "$_pid" 2>/dev/null # one that was stopped hears it only now
  done
}

# the lines of stdin, numbered from $1 on, to the clerk's inbox (descriptor 4)
pass_on() {
  number=$1
  while IFS= read -r request <&3; do
    if [ "$request" = '{"op":"alive"}' ]; then
      say "alive $$" >&4
      continue
    elif [ ${#request} -gt $_LONG ]; then
      say "$request" >"$launch/request.$$.$number"
      say "file $number request.$$.$number" >&4
    else
      say "ask $number $request" >&4
    fi
    number=$((number + 1))
  done
  say "eof $$" >&4
}

# --- the side of the program ------------------------------------------------------------------------------------------

# the process $1, which made the launch, owns it first; the inbox is this process's stdin, a pipe
keep() {
  launch=$EDGEPRUNE_LAUNCH
  owner=$1
  shift
  [ -n "$detach" ] || trap '' HUP
  exec 3<>/proc/self/fd/0 0</dev/null
  cd "$folder" || exit 125
  all_cores=$(core_ids)
  [ "$1" = - ] || leave_cores "$1"
  say "$$" >"$launch/keeper" || exit 125
  clerk | work "$@"
}

# keep this shell and all that it starts, and the governor's guard, off the worker's cores, where there are others
leave_cores() {
  has taskset || return 0
  _others=
  for _id in $all_cores; do
    case ",$1," in *",$_id,"*) ;; *) _others="$_others${_others:+,}$_id" ;; esac
  done
  [ -n "$_others" ] || return 0
  _others=$(mask_of "$_others")
  taskset -p "$_others" "$$" >/dev/null 2>&1
  ! guard_lives || taskset -p "$_others" "$keeper" >/dev/null 2>&1
}

# read the inbox; hand requests to the worker (stdout) and decide when it has to end
clerk() {
  taken=0 worker='' stopping='' misses=0
  read_uptime
  heard=$now
  while IFS= read -r message <&3; do
    rest=${message#* }
    case $message in
      'ask '*) hand_on "${rest%% *}" "${rest#* }" ;;
      'file '*)
        read_line "$launch/${rest#* }"
        hand_on "${rest%% *}" "$line"
        ;;
      "alive $owner") tell '{"event":"alive"}' ;;
      'alive '*) continue ;; # held up in a lost link
      'own '*)
        owner=$rest misses=0
        tell "{\"event\":\"taken\",\"by\":$owner}"
        ;;
      "eof $owner") stop_worker stdin ;;
      tick) listen ;;
      'worker '*)
        worker=$rest
        [ -z "$stopping" ] || end_worker
        ;;
      exit) break ;;
    esac
    case $message in tick | eof*) ;; *) read_uptime && heard=$now ;; esac
  done
}

# the request $2, whose number is $1, to the worker if it is the next
hand_on() {
  [ "$1" -eq $((taken + 1)) ] || return 0
  taken=$1
  say "$taken" >>"$launch/taken"
  say "$2"
}

# once a second: is the laptop there? An owner that vanished without a word (killed with all its processes) is given
# a second, so that another can take over. Who removed the launch wants none of it to run.
listen() {
  [ -e "$launch/spool" ] || stop_worker removed
  if kill -0 "$owner" 2>/dev/null; then misses=0; else misses=$((misses + 1)); fi
  [ "$misses" -lt 2 ] || stop_worker stdin
  read_uptime
  [ $((now - heard)) -lt "$SILENCE_S" ] || stop_worker silence
}

stop_worker() {
  [ -z "$stopping" ] || return 0
  stopping=$1
  say "$1" >"$launch/stopped"
  [ -z "$worker" ] || end_worker
}

# TERM at once, KILL a second later
end_worker() {
  signal_worker TERM
  { sleep 1; [ -e "$launch/ended" ] || signal_worker KILL; } >/dev/null 2>&1 &
}

# to the worker with all its children
signal_worker() { kill -"$1" "${detach:+-}$worker" 2>/dev/null; }

# carry the program out with the clerk's words as its stdin, if this device can, and say how it ended
work() {
  exec 4<&0
  begin_readings "$all_cores"
  judge_program "$2"
  status=126
  [ -n "$refused" ] || carry_out "$@"
  judge_end
  finish
  say exit >&3
}

# the program on the cores $1, until it and all that it started has ended
carry_out() {
  cores=$1 pinned=null
  shift
  if [ "$cores" != - ] && has taskset; then
    pinned="[$cores]"
    set -- taskset "$(mask_of "$cores")" "$@"
  fi
  export EDGEPRUNE_WORKER="$launch"
  # its own first line says that it has started, so that none of its others can come before
  # shellcheck disable=SC2016 # for the shell that becomes the program
  _start='echo "{\"event\":\"started\",\"pid\":$$,\"cores\":$0}" && exec "$@"'
  # shellcheck disable=SC2086 # no setsid is no word
  (exec $detach sh -c "$_start" "$pinned" "$@" 3<&- 4<&-) <&4 >>"$launch/spool" &
  worker=$!
  unset EDGEPRUNE_WORKER
  say "worker $worker" >&3
  pulse &
  pulse=$!
  wait "$worker" 2>/dev/null
  status=$?
  true >"$launch/ended"
  kill_strays
  kill -KILL "$pulse" 2>/dev/null
  wait "$pulse" 2>/dev/null # nothing may be written after the last lines
}

# every second, as long as the keeper lives: a reading, where there is anything to read, and a tick for the clerk
pulse() {
  sensors=false
  has_sensors && sensors=true
  while kill -0 "$$" 2>/dev/null; do
    [ $sensors = false ] || reading >>"$launch/spool"
    say tick >&3
    sleep 1
  done
}

# what the worker left running, wherever it hides: its processes have its environment
kill_strays() {
  signal_worker KILL
  for _pid in $(marked "EDGEPRUNE_WORKER=$launch"); do kill -KILL "$_pid" 2>/dev/null; done
}

# the last lines of the spool; a line that the worker left unfinished is ended first
finish() {
  [ -z "$(tail -c 1 "$launch/spool")" ] || tell ''
  ! has_sensors || reading >>"$launch/spool"
  read_line "$launch/stopped"
  stopped=$(json_text "$line")
  _said="{\"event\":\"exit\",\"status\":$status,\"stopped\":$stopped,\"refused\":$(json_text "$refused"),"
  tell "$_said\"stderr\":$(json_string "$(tail -c 2000 "$launch/stderr")")}"
}
