# Whether this device can carry a program out: `judge_program` before its start, `judge_end` after. Sourced by agent.sh.
#
# It is looked at before, since the start itself tells it badly: what the kernel refuses is read as a shell script by some
# shells and by the C library's execvp, which taskset uses, and ends with any status after any harm.
# shellcheck shell=sh disable=SC2034,SC2154 # refused is for launch.sh; proc, status: agent.sh and launch.sh

# the processor that an ELF program is made for, by its number there, in `made_for`; nothing of scripts and of what
# cannot be read
read_machine() {
  made_for=
  # shellcheck disable=SC2046 # one word a byte
  set -- $(od -An -v -tu1 -N20 "$1" 2>/dev/null)
  [ $# -eq 20 ] && [ "$1 $2 $3 $4 $6" = '127 69 76 70 1' ] || return 0
  made_for=$((${19} + 256 * ${20}))
}

machine_name() {
  case $1 in 3) printf x86 ;; 40) printf arm ;; 62) printf x86-64 ;; 183) printf aarch64 ;; *) printf 'machine %s' "$1" ;; esac
}

# processors of 64 bits mostly run programs of their 32 bits too, and a shell may be of either
family() { case $1 in 62) printf 3 ;; 183) printf 40 ;; *) printf '%s' "$1" ;; esac; }

# whether the kernel was told of an emulator for programs of this number
has_emulator() {
  grep -qs "^magic 7f454c46.\{28\}$(printf '%02x%02x' $(($1 % 256)) $(($1 / 256)))" "$proc"/sys/fs/binfmt_misc/*
}

# why the program $1 (a path, or a name to look for) is not to be started here, in `refused`; else nothing
judge_program() {
  refused=
  program=$1
  case $1 in */*) ;; *) program=$(command -v "$1") ;; esac
  read_machine "$(command -v sh)"
  own=$made_for
  read_machine "$program"
  [ -n "$own" ] && [ -n "$made_for" ] || return 0
  case $made_for:$(uname -m) in
    62:i?86 | 183:armv[67]*) ;; # a kernel of 32 bits
    *) [ "$(family "$own")" != "$(family "$made_for")" ] || return 0 ;;
  esac
  has_emulator "$made_for" || refuse_machine
}

refuse_machine() { refused="wrong architecture: it is made for $(machine_name "$made_for"), and this is $(uname -m)"; }

# why a program that ended with $status was never started, in `refused`; else nothing
judge_end() {
  case $status in 126 | 127) ;; *) return 0 ;; esac
  [ -z "$refused" ] && [ -n "$own" ] && [ -n "$made_for" ] && [ -x "$program" ] || return 0
  [ "$made_for" = "$own" ] || refuse_machine
  for _loader in $(head -c 4096 "$program" | tr -c '\041-\176' '\n' | grep -E '^/.*/(ld[-.][^/]*|linker(64)?)$'); do
    [ -e "$_loader" ] || refused="its loader $_loader is not there"
  done
}
