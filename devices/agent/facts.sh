# What a device is: `facts`, one JSON line. Sourced by agent.sh; the readings in it come from device.sh.
# shellcheck shell=sh disable=SC2154 # folder, sys, proc, line, ...: agent.sh and device.sh

# the first of what cpuinfo says under the name $1 or $2
cpuinfo() { sed -n -e "s/^$1[^:]*: *//p" -e "s/^$2[^:]*: *//p" "$proc/cpuinfo" 2>/dev/null | sed -n 1p; }

# a property of Android, or nothing
property() { if has getprop; then getprop "$1" 2>/dev/null; fi; }

# Why times taken here are no times of a device, or nothing. A program of another architecture than the kernel's is
# emulated; so are boards that only QEMU makes, unless the firmware says that KVM runs them on the processor itself
# (hw/arm/virt.c of QEMU names them so). A virtual machine on a processor of its own kind is not emulated.
emulated() {
  _machine=$(uname -m)
  _kernel=
  if grep -q '^vendor_id' "$proc/cpuinfo" 2>/dev/null; then _kernel=x86-64; fi
  if grep -q '^CPU implementer' "$proc/cpuinfo" 2>/dev/null; then _kernel=arm; fi
  case $_machine:$_kernel in
    a*:x86-64 | i?86:arm | x86_64:arm) printf 'qemu-user: %s on an %s kernel' "$_machine" "$_kernel" && return ;;
  esac
  case $(readlink "/proc/$$/exe" 2>/dev/null) in # newer ones show a cpuinfo of their own
    */qemu-*) printf 'qemu-user: %s' "$_machine" && return ;;
  esac
  if [ "$(property ro.kernel.qemu)$(property ro.boot.qemu)" != '' ]; then
    printf 'the Android emulator' && return
  fi
  read_line "$sys/class/dmi/id/product_name"
  case $line:$({ tr '\000' ' ' <"$proc/device-tree/compatible"; } 2>/dev/null):$(cpuinfo 'model name' Hardware) in
    'KVM Virtual Machine'*) ;;
    'QEMU Virtual Machine'* | *:*linux,dummy-virt*:* | *:*QEMU\ TCG*) printf 'a machine that QEMU emulates' ;;
  esac
}

processor_name() {
  _name=$(cpuinfo 'model name' Hardware)
  if [ -z "$_name" ] || [ -n "$1" ]; then _name=$(uname -m); fi
  printf '%s' "$_name"
}

board_name() {
  if [ -r "$proc/device-tree/model" ]; then
    tr -d '\000' <"$proc/device-tree/model"
  else
    read_line "$sys/class/dmi/id/product_name"
    printf '%s' "$line"
  fi
}

os_name() {
  if has getprop; then
    printf 'Android %s' "$(property ro.build.version.release)"
  elif [ -r /etc/os-release ]; then
    sed -n 's/^PRETTY_NAME="*\([^"]*\)"*$/\1/p' /etc/os-release | sed -n 1p
  else
    uname -s
  fi
}

cores_json() {
  _list=
  for _id in $1; do
    _of=$sys/devices/system/cpu/cpu$_id
    read_number "$_of/cpufreq/cpuinfo_max_freq"
    _entry="{\"core\":$_id,\"max_khz\":${line:-null},"
    read_number "$_of/cpu_capacity"
    _entry="$_entry\"capacity\":${line:-null},"
    read_line "$_of/cpufreq/scaling_governor"
    _list="$_list${_list:+,}$_entry\"governor\":\"$line\"}"
  done
  printf '[%s]' "$_list"
}

# the version of Python 3, or nothing
python_version() { if has python3; then python3 --version 2>/dev/null | sed -n 's/^Python //p'; fi; }

memory_kib() { sed -n 's/^MemTotal:[^0-9]*\([0-9]*\) kB.*/\1/p' "$proc/meminfo" 2>/dev/null; }

facts() {
  _ids=$(core_ids)
  _emulated=$(emulated)
  begin_readings "$_ids"
  read_temp
  printf '{"event":"facts","machine":%s,"kernel":%s,"os":%s,"processor":%s,"board":%s,"emulated":%s,' \
    "$(json_string "$(uname -m)")" "$(json_string "$(uname -sr)")" "$(json_string "$(os_name)")" \
    "$(json_string "$(processor_name "$_emulated")")" "$(json_string "$(board_name)")" "$(json_text "$_emulated")"
  case $_emulated in qemu-user*) _features= ;; *) _features=$(cpuinfo Features flags) ;; esac
  read_line /proc/sys/kernel/random/boot_id
  printf '"features":%s,"memory_kib":%s,"free_kib":%s,"clock":%s,"boot_id":%s,"python":%s,' \
    "$(json_text "$_features")" "$(json_number "$(memory_kib)")" "$(json_number "$(free_kib)")" \
    "$(date +%s)" "$(json_text "$line")" "$(json_string "$(python_version)")"
  printf '"model":%s,"abi":%s,"sdk":%s,"temp_c":%s,"battery":%s,"throttled":%s,' \
    "$(json_text "$(property ro.product.model)")" "$(json_text "$(property ro.product.cpu.abi)")" \
    "$(json_number "$(property ro.build.version.sdk)")" "$temp" "$battery" "$(json_text "$word")"
  read_line /proc/loadavg
  printf '"load":%s,"pinning":%s,"cores":%s}\n' \
    "$(json_string "$line")" "$(has taskset && printf true || printf false)" "$(cores_json "$_ids")"
}

# what the private folder's file system has free
free_kib() { df -Pk "$folder" 2>/dev/null | sed -n '2s/^.* \([0-9][0-9]*\)  *[0-9]*% .*/\1/p'; }
