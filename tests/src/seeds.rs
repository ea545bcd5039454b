// SPDX-License-Identifier: Apache-2.0
//! Good input to start from, built by others' code where there is any.

use etherparse::{
    EtherType, Icmpv4Type, Icmpv6Type, IpFragOffset, IpNumber, Ipv6FragmentHeader, PacketBuilder,
};

use weir_abi::Address;

const NEAR: [u8; 6] = [2, 0, 0, 0, 0, 1];
const GATEWAY: [u8; 6] = weir_abi::MacAddress::GATEWAY.0;
const V4: [[u8; 4]; 2] = [[10, 244, 1, 5], [10, 244, 2, 7]];
const V6: [[u8; 16]; 2] = [
    [0xfd, 0, 2, 0x44, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5],
    [0xfd, 0, 2, 0x44, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7],
];

/// Hosts outside the cluster.
const WORLD_V4: [u8; 4] = [203, 0, 113, 10];
const WORLD_V6: [u8; 16] = [
    0x20, 1, 0x0d, 0xb8, 1, 0x13, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

/// This node and the other one.
const NODES: [[u8; 4]; 2] = [[172, 18, 0, 2], [172, 18, 0, 3]];

/// The addresses of this node and the other one.
pub fn nodes() -> [Address; 2] {
    NODES.map(Address::from_v4)
}

/// The addresses in the frames: the near pod's of both families, then the far pod's.
pub fn pods() -> [Address; 4] {
    [
        Address::from_v4(V4[0]),
        Address(V6[0]),
        Address::from_v4(V4[1]),
        Address(V6[1]),
    ]
}

/// The bytes of a frame that etherparse builds.
macro_rules! built {
    ($builder:expr, $payload:expr) => {{
        let mut frame = Vec::new();
        $builder
            .write(&mut frame, $payload)
            .expect("a vector takes every byte");
        frame
    }};
}

/// Frames of every kind that the programs tell apart.
pub fn frames() -> Vec<Vec<u8>> {
    let v4 = || PacketBuilder::ethernet2(NEAR, GATEWAY).ipv4(V4[0], V4[1], 64);
    let v6 = || PacketBuilder::ethernet2(NEAR, GATEWAY).ipv6(V6[0], V6[1], 64);
    let out_v4 = || PacketBuilder::ethernet2(NEAR, GATEWAY).ipv4(V4[0], WORLD_V4, 64);
    let out_v6 = || PacketBuilder::ethernet2(NEAR, GATEWAY).ipv6(V6[0], WORLD_V6, 64);
    let payload = [0x42; 40];
    // An error about a flow carries the start of another packet.
    let v4_error = Icmpv4Type::Unknown {
        type_u8: 3,
        code_u8: 4,
        bytes5to8: [0, 0, 0x05, 0x78],
    };
    let v6_error = Icmpv6Type::PacketTooBig { mtu: 1280 };
    // A tunnel packet: VXLAN flags, the fixed network, a frame inside.
    let vxlan = [
        vec![8, 0, 0, 0, 0, 0, 1, 0],
        built!(v4().udp(1, 2), &payload),
    ]
    .concat();
    // A packet of a client outside that names its backend, from the other node.
    let between = || PacketBuilder::ethernet2(NEAR, GATEWAY).ipv4(NODES[1], NODES[0], 64);
    let asked_v4 = PacketBuilder::ethernet2(NEAR, GATEWAY).ipv4(WORLD_V4, NODES[1], 64);
    let asked_v4 = built!(asked_v4.tcp(40000, 30080, 1, 64240).syn(), &[]);
    let asked_v6 = PacketBuilder::ethernet2(NEAR, GATEWAY).ipv6(WORLD_V6, V6[1], 64);
    let asked_v6 = built!(asked_v6.udp(40000, 30080), &payload);
    let [near_v4, near_v6, ..] = pods();
    // A neighbour solicitation for the gateway.
    let solicitation = Icmpv6Type::Unknown {
        type_u8: 135,
        code_u8: 0,
        bytes5to8: [0; 4],
    };
    let target = [
        vec![0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1],
        NEAR.to_vec(),
    ]
    .concat();
    vec![
        built!(v4().tcp(40000, 80, 1, 64240).syn(), &[]),
        built!(v4().tcp(40000, 80, 1, 64240).ack(7), &payload),
        built!(v4().udp(40000, 53), &payload),
        built!(v4().icmpv4_echo_request(1, 1), &payload),
        built!(v4().icmpv4(v4_error), &v4_start()),
        built!(v4().udp(50000, 8472), &vxlan),
        built!(v6().tcp(40000, 80, 1, 64240).syn(), &[]),
        built!(v6().udp(40000, 53), &payload),
        built!(v6().icmpv6_echo_request(1, 1), &payload),
        built!(v6().icmpv6(v6_error), &v6_start()),
        built!(v6().udp(50000, 8472), &vxlan),
        built!(v6().icmpv6(solicitation), &target),
        built!(out_v4().tcp(40000, 443, 1, 64240).syn(), &[]),
        built!(out_v4().udp(40000, 53), &payload),
        built!(out_v4().icmpv4_echo_request(1, 1), &payload),
        built!(out_v6().tcp(40000, 443, 1, 64240).syn(), &[]),
        built!(out_v6().udp(40000, 53), &payload),
        built!(out_v6().icmpv6_echo_request(1, 1), &payload),
        built!(between().udp(50000, 6081), &naming(near_v4, &asked_v4)),
        built!(between().udp(50000, 6081), &naming(near_v6, &asked_v6)),
        arp(),
        ipv4_fragment(),
        ipv6_fragment(),
    ]
}

/// Geneve with the option that names a backend at port 80.
fn naming(backend: Address, frame: &[u8]) -> Vec<u8> {
    let start = [6, 0x40, 0x65, 0x58, 0, 0, 1, 0, 0xff, 0x57, 0x81, 5];
    [&start[..], &backend.0, &[0, 80, 0, 0], frame].concat()
}

/// The ethertype and all before it.
fn ethernet(kind: EtherType) -> Vec<u8> {
    let mut frame = [GATEWAY, NEAR].concat();
    frame.extend(kind.0.to_be_bytes());
    frame
}

/// What an ICMP error quotes: an answer to one of the pod's packets, from its IP header on.
fn v4_start() -> Vec<u8> {
    built!(
        PacketBuilder::ipv4(V4[1], V4[0], 60).udp(53, 40000),
        &[0; 8]
    )
}

fn v6_start() -> Vec<u8> {
    built!(
        PacketBuilder::ipv6(V6[1], V6[0], 60).udp(53, 40000),
        &[0; 8]
    )
}

fn arp() -> Vec<u8> {
    let mut frame = ethernet(EtherType::ARP);
    frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(NEAR);
    frame.extend(V4[0]);
    frame.extend([0; 6]);
    frame.extend([169, 254, 1, 1]);
    frame
}

/// A middle part of a fragmented datagram.
fn ipv4_fragment() -> Vec<u8> {
    let mut header =
        etherparse::Ipv4Header::new(64, 64, IpNumber::UDP, V4[0], V4[1]).expect("fits");
    header.identification = 77;
    header.more_fragments = true;
    header.dont_fragment = false;
    header.fragment_offset = IpFragOffset::try_new(100).expect("in range");
    header.header_checksum = header.calc_header_checksum();
    let mut frame = ethernet(EtherType::IPV4);
    frame.extend(header.to_bytes());
    frame.extend([0x42; 64]);
    frame
}

/// The first part of one, behind a hop-by-hop header.
fn ipv6_fragment() -> Vec<u8> {
    let fragment = Ipv6FragmentHeader::new(IpNumber::UDP, IpFragOffset::ZERO, true, 77);
    let mut after = vec![44, 0, 1, 4, 0, 0, 0, 0];
    after.extend(fragment.to_bytes());
    after.extend([0x9c, 0x40, 0, 53, 0, 200, 0, 0]);
    after.extend([0x42; 64]);
    let header = etherparse::Ipv6Header {
        payload_length: u16::try_from(after.len()).expect("short"),
        next_header: IpNumber(0),
        hop_limit: 64,
        source: V6[0],
        destination: V6[1],
        ..Default::default()
    };
    let mut frame = ethernet(EtherType::IPV6);
    frame.extend(header.to_bytes());
    frame.extend(after);
    frame
}

/// Requests and answers of the agent's socket.
pub fn documents() -> Vec<Vec<u8>> {
    [
        r#"{"containerId":"0123456789abcdef","netns":"/proc/42/ns/net","interface":"eth0","namespace":"shop","pod":"web-1"}"#,
        r#"{"containerId":"c","netns":"n","interface":"eth0","namespace":"a","pod":"b","requestedAddresses":["10.244.1.5","fd00:244:1::5"]}"#,
        r#"{"id":7,"interface":"weir01234567","mac":"0a:57:45:49:52:09","addresses":["10.244.1.5"],"gateways":["169.254.1.1"],"mtu":1450}"#,
        r#"{"type":"lost","time":"2026-01-01T00:00:00Z","node":"n1","count":3}"#,
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect()
}
