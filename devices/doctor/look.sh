#!/bin/sh
# What the doctor asks of a device beyond the agent's facts: may its private folder (the working directory) be used, are
# its programs of 32 or 64 bits, and what else is busy there? POSIX sh (dash, busybox, toybox/mksh). One JSON line:
#
#   {"ok":"look","user":"pi","mode":"drwx------","runs":true,"bits":64,"busy":[["chromium",93],..]}
#
# runs: whether a program copied into the folder may be started; busy: processes and the percent of a core they took
# during one second, the busiest first, those under 5 % left out.
set -u
umask 077

# utime and stime of every process but this one, by the second pass what they grew by; a kernel's tick is 1/100 s
look_at_processes() {
  for _stat in /proc/[0-9]*/stat; do
    { IFS= read -r _line <"$_stat"; } 2>/dev/null || continue
    _pid=${_line%% *}
    [ "$_pid" = "$$" ] && continue
    _name=${_line#*\(}
    _name=${_name%\)*}
    case $_name in '' | *[!A-Za-z0-9._/:@+-]*) _name=$_pid ;; esac
    # after the name: state, 10 fields, utime, stime
    # shellcheck disable=SC2086 # fields
    set -- ${_line##*\) }
    [ $# -gt 12 ] || continue
    _ticks=$((${12} + ${13}))
    if [ "$pass" = 1 ]; then
      eval "ticks_$_pid=$_ticks"
    else
      eval "_grown=\$((_ticks - \${ticks_$_pid:-_ticks}))"
      [ "$_grown" -lt 5 ] || printf '%s %s\n' "$_grown" "$_name"
    fi
  done
}

runs=false
if mkdir "look.$$" && cp "$(command -v sh)" "look.$$/sh"; then
  "look.$$/sh" -c 'exit 7' 2>/dev/null
  [ $? = 7 ] && runs=true
fi 2>/dev/null
rm -rf "look.$$"

mode=$(ls -ld . 2>/dev/null)
case $(od -An -tx1 -j4 -N1 "/proc/$$/exe" 2>/dev/null) in *01*) bits=32 ;; *02*) bits=64 ;; *) bits=null ;; esac

pass=1
look_at_processes
sleep 1
pass=2
busy=$(look_at_processes | sort -rn | head -n 5 | while read -r _grown _name; do printf '["%s",%s],' "$_name" "$_grown"; done)

printf '{"ok":"look","user":"%s","mode":"%s","runs":%s,"bits":%s,"busy":[%s]}\n' \
  "$(id -un 2>/dev/null || id -u)" "${mode%% *}" "$runs" "$bits" "${busy%,}"
