# Says what a removal cannot take back, because it lies in people's homes. An upgrade ($1 is 1) says nothing.
if [ "$1" = 0 ]; then
  cat <<'END'
labctl-ssh-proxy: host entries and other lines that it has written into home folders stay. ssh to these hosts then says
that labctl-ssh-proxy is not found; no other host is affected. `labctl-ssh-proxy uninstall`, run by their owner, takes
them back. It needs the program: install it again for that.
END
fi
