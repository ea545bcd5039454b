// SPDX-License-Identifier: Apache-2.0
//! Links to attach to.

use weir_abi::IfIndex;
use weir_net::{LinkChange, Netlink, Veth};

/// Two ends of a link, both up, in the namespace of the calling thread.
pub(crate) fn veth(name: &str, peer: &str) -> (IfIndex, IfIndex) {
    let mut netlink = Netlink::open().unwrap();
    let ends = Veth {
        name,
        mac: None,
        peer_name: peer,
        peer_mac: None,
        peer_namespace: None,
        mtu: None,
    };
    netlink.create_veth(&ends).unwrap();
    let quiet = LinkChange {
        generate_address: Some(false),
        ..LinkChange::up()
    };
    let mut up = |name| {
        let index = netlink.require_link(name).unwrap().index;
        netlink.change_link(index, &quiet).unwrap();
        IfIndex(index.get())
    };
    (up(name), up(peer))
}
