# A setup, as it runs on a machine: `sh program watch SECONDS UMASK ADDRESS` lets `sh program work UMASK ADDRESS` run for
# so long. Neither has a terminal or an input.
run=${0%/*}
base=${run%/*}

if [ "$1" = watch ]; then
  setsid sh "$0" work "$3" "$4" &
  work=$!
  # A group of its own, so that nothing sleeps on when the work is done.
  setsid sh -c 'sleep "$1"; : >"$2/late"; kill -TERM "-$3"; sleep 2; kill -KILL "-$3"' limit "$2" "$run" "$work" 2>/dev/null &
  limit=$!
  wait "$work"
  ended=$?
  if [ -e "$run/late" ]; then
    wait "$limit"
    ended=late
  else
    kill -TERM "-$limit" 2>/dev/null || kill -TERM "$limit"
  fi
  # On a disk that is full by now, a rename still works.
  { echo "$ended" >"$run/ended.new" && mv "$run/ended.new" "$run/ended"; } || mv "$run/failing" "$run/ended"
  exit
fi

umask "$2"
unset SSH_AUTH_SOCK SSH_ASKPASS GIT_ASKPASS
export GIT_TERMINAL_PROMPT=0 DEBIAN_FRONTEND=noninteractive
export GIT_SSH_COMMAND="${GIT_SSH_COMMAND:-ssh -o BatchMode=yes}"

failed() {
  echo "$1" >"$run/why"
  echo "$1"
  exit 1
}

if [ -n "$3" ]; then
  command -v git >/dev/null || failed "git is not installed there"
  echo "git clone" >"$run/doing"
  git clone --quiet --depth 1 -- "$3" "$run/new/source" || exit
fi
source=$base/source
# Links lead there, so what was changed behind them is the user's. It is kept for good, a folder for each run.
[ ! -e "$source" ] || mv "$source" "$run/before" || failed "the files before cannot be moved to $run"
mv "$run/new/source" "$source" && rm -rf "$run/new" && cd "$source" || failed "the files cannot be put into $source"

for script in install.sh install bootstrap.sh bootstrap script/bootstrap setup.sh setup script/setup; do
  [ -f "$script" ] || continue
  echo "$script" >"$run/doing"
  [ -x "$script" ] || chmod u+x "$script"
  "./$script"
  exit
done

echo "the linking of the dotfiles" >"$run/doing"
for there in "$HOME"/.[!.]* "$HOME"/..?*; do
  case $(readlink "$there") in
    # What it led to is no longer among the files.
    "$source"/*) [ -e "$there" ] || rm -f "$there" ;;
  esac
done
any=
for name in .[!.]* ..?*; do
  [ -e "$name" ] || [ -L "$name" ] || continue
  [ "$name" != .git ] || continue
  any=yes
  there=$HOME/$name
  [ "$(readlink "$there")" != "$source/$name" ] || continue
  if [ -e "$there" ] || [ -L "$there" ]; then
    echo "$name" >>"$run/kept"
    echo "$there is there already"
  else
    ln -s "$source/$name" "$there" || exit
  fi
done
[ -n "$any" ] || failed "there is neither an install script nor a dotfile in it"
exit 0
