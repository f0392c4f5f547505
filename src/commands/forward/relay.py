# The machine's end of UDP forwards. A frame, either way: length (2 bytes) and peer (4), big-endian, then the payload.
# Length 65535 has no payload and forgets the peer. Each peer has its own socket, so that answers reach it.
# The first frame sent is for peer 0: the target was found. The relay ends at the end of its standard input.
import os, select, socket, struct, sys
FORGET = 65535
host, port = bytes.fromhex(sys.argv[2]).decode(), int(sys.argv[3])
try:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    # UDP does not report a refused datagram, so prefer IPv4 for localhost: most local servers listen on it.
    found.sort(key=lambda one: host == "localhost" and one[0] != socket.AF_INET)
    family, kind, proto, _, target = found[0]
except OSError as e:
    sys.exit("cannot find %s: %s" % (host, e))
out, poll, peers, files, left = sys.stdout.buffer, select.poll(), {}, {}, b""
def send(peer, data):
    out.write(struct.pack(">HI", len(data), peer) + data)
def forget(peer):
    s = peers.pop(peer, None)
    if s:
        poll.unregister(s)
        del files[s.fileno()]
        s.close()
send(0, b"")
out.flush()
poll.register(0, select.POLLIN)
while True:
    for fd, _ in poll.poll():
        if fd == 0:
            more = os.read(0, 1 << 18)
            if not more:
                sys.exit(0)
            left += more
            at = 0
            while len(left) - at >= 6:
                size, peer = struct.unpack_from(">HI", left, at)
                if size == FORGET:
                    forget(peer)
                    at += 6
                    continue
                if len(left) - at < 6 + size:
                    break
                data, at = left[at + 6:at + 6 + size], at + 6 + size
                try:
                    s = peers.get(peer)
                    if s is None:
                        s = socket.socket(family, kind, proto)
                        s.setblocking(False)
                        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
                        s.connect(target)
                        peers[peer], files[s.fileno()] = s, (s, peer)
                        poll.register(s, select.POLLIN)
                    s.send(data)
                except OSError:
                    pass
            left = left[at:]
        elif fd in files:
            s, peer = files[fd]
            for _ in range(64):
                try:
                    send(peer, s.recv(65535))
                except OSError:
                    break
    out.flush()
