# Same as relay.py, for machines without python3.
use strict; use Socket qw(:DEFAULT getaddrinfo SOCK_DGRAM SO_RCVBUF SOL_SOCKET); use IO::Handle; use IO::Poll qw(POLLIN);
use Fcntl;
use constant FORGET => 65535;
my ($host, $port) = (pack("H*", $ARGV[0]), $ARGV[1]);
my ($error, @found) = getaddrinfo($host, $port, {socktype => SOCK_DGRAM});
if ($error) { print STDERR "cannot find $host: $error\n"; exit 1 }
my ($found) = ((grep { $host eq "localhost" && $_->{family} == AF_INET } @found), @found);
my ($poll, %peers, %files, $left, $out) = (IO::Poll->new);
$left = $out = "";
binmode STDIN; binmode STDOUT;
sub tell_all { while (length $out) { my $n = syswrite(STDOUT, $out); exit 0 unless defined $n; substr($out, 0, $n) = "" } }
sub forget { my $s = delete $peers{$_[0]} or return; $poll->remove($s); delete $files{fileno $s}; close $s }
$out = pack("nN", 0, 0); tell_all();
$poll->mask(*STDIN => POLLIN);
while (1) {
  $poll->poll;
  for my $h ($poll->handles) {
    next unless $poll->events($h);
    if (fileno($h) == 0) {
      exit 0 unless sysread(STDIN, $left, 262144, length $left);
      my $at = 0;
      while (length($left) - $at >= 6) {
        my ($size, $peer) = unpack("nN", substr($left, $at, 6));
        if ($size == FORGET) { forget($peer); $at += 6; next }
        last if length($left) - $at < 6 + $size;
        my $data = substr($left, $at + 6, $size); $at += 6 + $size;
        my $s = $peers{$peer};
        unless ($s) {
          socket($s, $found->{family}, $found->{socktype}, $found->{protocol}) or next;
          setsockopt($s, SOL_SOCKET, SO_RCVBUF, 1 << 20);
          fcntl($s, F_SETFL, O_NONBLOCK);
          unless (connect($s, $found->{addr})) { close $s; next }
          $peers{$peer} = $s; $files{fileno $s} = $peer; $poll->mask($s => POLLIN);
        }
        send($s, $data, 0);
      }
      substr($left, 0, $at) = "";
    } elsif (defined(my $peer = $files{fileno $h})) {
      for (1 .. 64) { my $data; last unless defined recv($h, $data, 65535, 0); $out .= pack("nN", length $data, $peer) . $data }
    }
  }
  tell_all();
}
