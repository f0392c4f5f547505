//! The kernel's table of TCP sockets, on this computer or on a machine (pure).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The state of a socket that listens, in `/proc/net/tcp`.
const LISTEN: &str = "0A";

/// The listening sockets of `/proc/net/tcp` or `tcp6`: their addresses and inodes. Lines that are none are skipped.
pub(crate) fn listening_sockets(table: &str) -> Vec<(SocketAddr, u64)> {
    table.lines().filter_map(row).collect()
}

/// sl, local_address, rem_address, st, queues, tr, retrnsmt, uid, timeout, inode.
fn row(line: &str) -> Option<(SocketAddr, u64)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    if *fields.get(3)? != LISTEN {
        return None;
    }
    let (ip, port) = fields[1].split_once(':')?;
    let address = SocketAddr::new(address(ip)?, u16::from_str_radix(port, 16).ok()?);
    Some((address, fields.get(9)?.parse().ok()?))
}

/// The kernel writes an address as numbers of 32 bits in its own byte order, which is this computer's, too: all systems
/// that machines run on are little-endian.
fn address(hex: &str) -> Option<IpAddr> {
    let words: Option<Vec<[u8; 4]>> = hex
        .as_bytes()
        .chunks(8)
        .map(|word| Some(u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?.to_ne_bytes()))
        .collect();
    let bytes = words?.concat();
    <[u8; 4]>::try_from(bytes.as_slice())
        .map(|four| Ipv4Addr::from(four).into())
        .or_else(|_| <[u8; 16]>::try_from(bytes.as_slice()).map(|sixteen| Ipv6Addr::from(sixteen).into()))
        .ok()
}

#[cfg(all(test, target_endian = "little"))]
mod tests {
    use super::listening_sockets;

    #[test]
    fn reads_the_kernels_tables() {
        let four = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0 100 0\n\
             1: 0100007F:1F91 0100007F:0016 01 00000000:00000000 00:00000000 00000000  1000        0 4712 1 0 100 0\n\
             2: zz\n";
        assert_eq!(listening_sockets(four), [("127.0.0.1:8080".parse().unwrap(), 4711)]);
        let six = "header\n   0: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 7 1\n";
        assert_eq!(listening_sockets(six), [("[::1]:80".parse().unwrap(), 7)]);
        assert_eq!(listening_sockets(""), []);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read(text in "[ -~\n]{0,80}", fields in "([0-9A-F:]{0,40} ){0,12}") {
            listening_sockets(&text);
            listening_sockets(&fields);
        }
    }
}
