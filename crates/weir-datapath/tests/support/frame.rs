// SPDX-License-Identifier: Apache-2.0
//! Frames to test with, built by a parser and builder that is not ours.

use etherparse::PacketBuilder;
use weir_abi::{Address, MacAddress};

use super::world::{NEIGHBOUR, ip, pod_mac};

/// What follows the IP header.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Payload<'a> {
    /// Ports, and the flags by their letters: S, A, F, R.
    Tcp(u16, u16, &'a str),
    Udp(u16, u16),
    /// Identifier.
    EchoRequest(u16),
    EchoReply(u16),
}

/// A frame as the pod with this MAC address's last byte sends it.
pub(crate) fn from_pod(last: u8, from: &str, to: &str, payload: Payload<'_>) -> Vec<u8> {
    frame(pod_mac(last), MacAddress::GATEWAY, from, to, 64, payload)
}

/// A frame as the network brings it.
pub(crate) fn from_network(from: &str, to: &str, payload: Payload<'_>) -> Vec<u8> {
    frame(NEIGHBOUR, pod_mac(1), from, to, 60, payload)
}

/// A whole frame.
pub(crate) fn frame(
    source_mac: MacAddress,
    destination_mac: MacAddress,
    from: &str,
    to: &str,
    hops: u8,
    payload: Payload<'_>,
) -> Vec<u8> {
    const DATA: &[u8] = b"a packet's payload";
    let (from, to): (Address, Address) = (ip(from), ip(to));
    let ethernet = PacketBuilder::ethernet2(source_mac.0, destination_mac.0);
    let v4 = from.is_v4();
    let packet = if v4 {
        ethernet.ipv4(from.v4_octets(), to.v4_octets(), hops)
    } else {
        ethernet.ipv6(from.0, to.0, hops)
    };
    let mut bytes = Vec::new();
    match payload {
        Payload::Tcp(source, destination, flags) => {
            let mut tcp = packet.tcp(source, destination, 1000, 64_000);
            for flag in flags.chars() {
                tcp = match flag {
                    'S' => tcp.syn(),
                    'A' => tcp.ack(2000),
                    'F' => tcp.fin(),
                    _ => tcp.rst(),
                };
            }
            tcp.write(&mut bytes, DATA)
        }
        Payload::Udp(source, destination) => {
            packet.udp(source, destination).write(&mut bytes, DATA)
        }
        Payload::EchoRequest(id) if v4 => packet.icmpv4_echo_request(id, 1).write(&mut bytes, DATA),
        Payload::EchoRequest(id) => packet.icmpv6_echo_request(id, 1).write(&mut bytes, DATA),
        Payload::EchoReply(id) if v4 => packet.icmpv4_echo_reply(id, 1).write(&mut bytes, DATA),
        Payload::EchoReply(id) => packet.icmpv6_echo_reply(id, 1).write(&mut bytes, DATA),
    }
    .unwrap();
    bytes
}
