# The folders of our own, which the package does not list. The package manager removes what is in them.
if [ "$1" = 0 ]; then
  rmdir /usr/share/doc/labctl-ssh-proxy /usr/share/licenses/labctl-ssh-proxy 2>/dev/null || :
fi
