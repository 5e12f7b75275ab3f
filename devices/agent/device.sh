# What a device says of itself: `facts` once, `reading` every second. Sourced by agent.sh, whose small things it uses.
# Nothing here needs root; what cannot be read is null.
# shellcheck shell=sh disable=SC2154 # here, folder, sys, proc, line, decimal, uptime: agent.sh

_cpu=$sys/devices/system/cpu

# --- heat and clocks --------------------------------------------------------------------------------------------------

# the processor's sensors; zones of others (battery, charger, modem) are left out
find_zones() {
  zones=
  for _z in "$sys"/class/thermal/thermal_zone*; do
    read_line "$_z/type"
    case $line in *batt* | *charg* | *pmic* | *wifi* | *modem*) continue ;; esac
    [ -r "$_z/temp" ] && zones="$zones ${_z##*/}"
  done
}

# the hottest of them in degrees, in `temp`
read_temp() {
  _hot=
  for _z in $zones; do
    read_number "$sys/class/thermal/$_z/temp"
    [ -n "$line" ] && [ "$line" -gt "${_hot:--1}" ] && _hot=$line
  done
  temp=null
  [ -z "$_hot" ] || { divide "$_hot" 3; temp=$decimal; }
}

# a JSON list of the clocks of the cores $1 in Hz, in `clocks`
read_clocks() {
  clocks=
  for _id in $1; do
    read_number "$_cpu/cpu$_id/cpufreq/scaling_cur_freq"
    [ -n "$line" ] && clocks="$clocks${clocks:+,}${line}000"
  done
  if [ -n "$clocks" ]; then clocks="[$clocks]"; else clocks=null; fi
}

# --- throttling -------------------------------------------------------------------------------------------------------

# where the firmware of a Raspberry Pi tells its throttle word, in `word_from`: a file of the kernel, else vcgencmd
find_throttle_word() {
  word_from=
  for _f in "$sys"/devices/platform/*/*firmware/get_throttled "$sys"/devices/platform/*firmware/get_throttled; do
    [ -r "$_f" ] && word_from=$_f
  done
  [ -n "$word_from" ] || ! has vcgencmd || word_from=vcgencmd
}

# that word in `word`, such as 0x50005: bits 0-3 are under-voltage, capped, throttled, soft limit now, 16-19 since boot
# (https://www.raspberrypi.com/documentation/computers/os.html#get_throttled)
read_throttle_word() {
  word=
  case $word_from in
    '') return ;;
    vcgencmd) line=$(vcgencmd get_throttled 2>/dev/null) && line=${line#throttled=} ;;
    *) read_line "$word_from" ;;
  esac
  line=${line#0x}
  case $line in '' | *[!0-9a-fA-F]*) ;; *) word=0x$line ;; esac
}

# how often the cores were throttled so far (x86), in `count`
read_throttle_count() {
  count=
  for _f in "$_cpu"/cpu[0-9]*/thermal_throttle/core_throttle_count; do
    read_number "$_f"
    [ -n "$line" ] && count=$((${count:-0} + line))
  done
}

# Android's own word on heat, 0 (none) to 6 (shutdown), in `android_heat`
read_android_heat() {
  android_heat=
  has dumpsys && android_heat=$(dumpsys thermalservice 2>/dev/null | sed -n 's/^ *Thermal Status: *\([0-9]\).*/\1/p' | sed -n 1p)
}

# whether the device is throttled now or was since `begin_readings`, in `throttled`
judge_throttling() {
  throttled=null
  if [ -n "$word" ] && [ -n "$first_word" ]; then
    throttled=false
    [ $((word & 0xf)) -eq 0 ] && [ $(((word >> 16) & ~(first_word >> 16) & 0xf)) -eq 0 ] || throttled=true
  elif [ -n "$first_count" ]; then
    throttled=false
    [ "$count" -le "$first_count" ] || throttled=true
  elif [ -n "$android_heat" ]; then
    throttled=false
    [ "$android_heat" -eq 0 ] || throttled=true
  fi
}

# --- the battery ------------------------------------------------------------------------------------------------------

# a JSON record of the battery in `battery`; the kernel's files cost nothing, Android's service is asked where they are shut
read_battery() {
  battery=null _level='' _heat='' _state=''
  for _s in "$sys"/class/power_supply/*; do
    read_line "$_s/type"
    [ "$line" = Battery ] || continue
    read_line "$_s/scope"
    [ "$line" = Device ] && continue # a mouse's
    read_number "$_s/capacity" && _level=$line
    read_number "$_s/temp" && _heat=$line
    read_line "$_s/status" && _state=$line
    [ -z "$_level" ] || break
  done
  if [ -z "$_level" ] && has dumpsys; then
    _told=$(dumpsys battery 2>/dev/null)
    _level=$(printf '%s\n' "$_told" | sed -n 's/^ *level: *\([0-9]*\).*/\1/p' | sed -n 1p)
    _heat=$(printf '%s\n' "$_told" | sed -n 's/^ *temperature: *\([0-9]*\).*/\1/p' | sed -n 1p)
    case $(printf '%s\n' "$_told" | sed -n 's/^ *status: *\([0-9]\).*/\1/p' | sed -n 1p) in
      2) _state=Charging ;; 3 | 4) _state=Discharging ;; 5) _state=Full ;;
    esac
  fi
  [ -n "$_level" ] || return 0
  case $_state in Charging | Full) _state=true ;; Discharging | 'Not charging') _state=false ;; *) _state=null ;; esac
  decimal=null
  [ -z "$_heat" ] || divide "$_heat" 1
  battery="{\"percent\":$_level,\"charging\":$_state,\"temp_c\":$decimal}"
}

# --- readings ---------------------------------------------------------------------------------------------------------

_SLOW=10 # readings between two questions to Android's services, which take tens of milliseconds

# look once where there is what, and remember how throttled the device is; `begin_readings CORES`
begin_readings() {
  read_cores=$1 readings=0
  find_zones
  find_throttle_word
  read_throttle_word
  [ -n "$word" ] || word_from= # vcgencmd may not: do not ask again every second
  read_throttle_count
  read_android_heat
  read_battery
  first_word=$word first_count=$count
}

# whether there is anything to read; a device with nothing costs nothing
has_sensors() {
  read_temp
  read_clocks "$read_cores"
  [ "$temp$clocks$battery" != nullnullnull ] || [ -n "$first_word$first_count$android_heat" ]
}

# one JSON line, short enough for a pipe to take it in one piece
reading() {
  readings=$((readings + 1))
  read_uptime
  read_temp
  read_clocks "$read_cores"
  read_throttle_word
  [ -z "$first_count" ] || read_throttle_count
  if [ "$battery$android_heat" != null ] && [ $((readings % _SLOW)) -eq 0 ]; then
    read_battery
    read_android_heat
  fi
  judge_throttling
  _said="{\"event\":\"reading\",\"uptime_s\":$uptime,\"temp_c\":$temp,\"clock_hz\":$clocks,\"throttled\":$throttled,"
  say "$_said\"throttle_word\":${word:+\"}${word:-null}${word:+\"},\"battery\":$battery}"
}
