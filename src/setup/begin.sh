# The machine's side of a setup: begins it if none was begun, and waits for its end. `src/setup.rs` sets limit, again,
# address and program before, and explains the states.
mask=$(umask)
base=$HOME/.local/state/labctl-ssh-proxy/setup
command -v setsid >/dev/null || { echo "setsid is not installed there" >&2; exit 5; }
mkdir -p "$HOME/.local/state" || exit 3
umask 077
mkdir -p "$base" || exit 3
boot=$(cat /proc/sys/kernel/random/boot_id 2>/dev/null)

# The time of a process's start, because its number may be another process's by now.
start_of() {
  sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20
}

own() {
  echo "$1 x$(start_of "$1") x$boot" >"$run/owner.new" && mv "$run/owner.new" "$run/owner"
}

# Finds the last run, and its state.
judge() {
  n=0
  while [ -e "$base/$((n + 1))" ]; do n=$((n + 1)); done
  run=$base/$n
  if [ "$n" = 0 ]; then
    state=none
  elif [ -e "$run/ended" ]; then
    state=ended
  elif ! read -r pid since system 2>/dev/null <"$run/owner"; then
    # Its owner's file may be about to be written.
    if [ -n "$(find "$run" -prune -mmin -1)" ]; then state=running; else state=abandoned; fi
  elif [ "$system" = "x$boot" ] && kill -0 "$pid" 2>/dev/null && [ "$since" = "x$(start_of "$pid")" ]; then
    state=running
  elif [ -e "$run/ended" ]; then
    state=ended
  else
    state=abandoned
  fi
}

# Ends an attempt that has begun nothing, so that the next one does not wait for it.
leave() {
  rm -rf "$run"
  exit "$1"
}

begin() {
  began=$(date +%s)
  [ "$n" = 1 ] || rm -rf "$base/$((n - 1))/new"
  mkdir "$run/new" && printf '%s\n' "$program" >"$run/program" && echo 1 >"$run/failing" || leave 3
  if [ -z "$address" ]; then
    echo send
    # tar accepts an archive that is cut off between two files, so the last file proves that it is complete.
    (umask "$mask" && exec tar -x -o -f - -C "$run/new") && [ -e "$run/new/complete" ] || leave 4
  fi
  left=$((limit - $(date +%s) + began))
  # The clock may have been set meanwhile.
  if [ "$left" -lt 1 ] || [ "$left" -gt "$limit" ]; then left=$limit; fi
  setsid sh "$run/program" watch "$left" "$mask" "$address" </dev/null >"$run/log" 2>&1 &
  own $!
}

judge
if [ "$state" = none ] || [ "$state" = abandoned ] || [ "$state$again" = endedyes ]; then
  n=$((n + 1))
  run=$base/$n
  # Another process may be faster. Then its run is waited for.
  if mkdir "$run" 2>/dev/null; then
    own $$
    begin
  elif [ ! -d "$run" ]; then
    mkdir "$run"
    exit 3
  fi
fi
echo began
while judge; [ "$state" = running ]; do
  # Writing fails once the connection has ended, which ends this loop.
  echo .
  sleep 1
done
if [ "$state" = ended ]; then
  read -r ended <"$run/ended"
  echo "ended $ended"
else
  echo "ended lost"
fi
for name in why doing kept; do
  [ ! -e "$run/$name" ] || sed "s/^/$name /" "$run/$name"
done
echo log
tail -c 262144 "$run/log" 2>/dev/null
exit 0
