// SPDX-License-Identifier: Apache-2.0
//! Tests against the real kernel, each in network namespaces of its own. They need root: without it they fail when
//! `WEIR_REQUIRE_KERNEL=1` is set and do nothing otherwise.

#[cfg(test)]
mod kernel {
    use std::{thread, time::Duration};

    use weir_net::{
        Change, Family, LinkChange, MacAddress, NetNamespace, Netlink, Route, SocketDiagnosis,
        Veth, Watch,
        netns::{Namespace, enter_new},
        sysctl,
    };

    /// A network namespace that lives as long as the handle.
    fn fresh_namespace() -> Option<NetNamespace> {
        let made = thread::spawn(|| {
            enter_new(&[Namespace::Network])?;
            NetNamespace::current()
        })
        .join()
        .unwrap();
        match made {
            Ok(namespace) => Some(namespace),
            Err(error) if std::env::var_os("WEIR_REQUIRE_KERNEL").is_some() => {
                panic!("root is needed: {error}")
            }
            Err(_) => None,
        }
    }

    #[test]
    fn links_addresses_routes_and_neighbours_can_be_made_read_and_removed() {
        let (Some(near), Some(far)) = (fresh_namespace(), fresh_namespace()) else {
            return;
        };
        let mut here = Netlink::open_in(&near).unwrap();
        let mut there = Netlink::open_in(&far).unwrap();
        let mac: MacAddress = "0a:57:45:49:52:01".parse().unwrap();
        let veth = Veth {
            name: "weir00000001",
            mac: Some(mac),
            peer_name: "eth0",
            peer_mac: None,
            peer_namespace: Some(&far),
            mtu: Some(1450),
        };
        let (link, created) = here.ensure_veth(&veth).unwrap();
        assert!(created && !here.ensure_veth(&veth).unwrap().1);
        assert_eq!(
            (link.mac, link.mtu, link.kind.as_str()),
            (Some(mac), 1450, "veth")
        );
        let peer = there.require_link("eth0").unwrap();
        assert_eq!(link.peer, Some(peer.index));
        assert!(here.link("absent").unwrap().is_none());
        assert!(here.link("a name that is far too long").is_err());

        let quiet = LinkChange {
            generate_address: Some(false),
            arp: Some(false),
            ..LinkChange::up()
        };
        here.change_link(link.index, &quiet).unwrap();
        there.change_link(peer.index, &quiet).unwrap();
        let link = here.require_link("weir00000001").unwrap();
        assert!(link.up && link.running && link.noarp);

        for text in ["10.244.1.5/32", "fd00:244:1::5/128"] {
            let prefix = text.parse().unwrap();
            assert!(there.ensure_address(peer.index, prefix).unwrap());
            assert!(!there.ensure_address(peer.index, prefix).unwrap());
            assert!(
                there
                    .addresses()
                    .unwrap()
                    .iter()
                    .any(|address| address.prefix == prefix)
            );
        }
        for (family, everything, gateway) in [
            (Family::V4, "0.0.0.0/0", "169.254.1.1"),
            (Family::V6, "::/0", "fe80::1"),
        ] {
            let gateway = gateway.parse().unwrap();
            let route =
                Route::via(everything.parse().unwrap(), gateway, peer.index).with_mtu(Some(1400));
            assert!(there.ensure_route(&route).unwrap());
            there.replace_route(&route).unwrap();
            let found = there.default_route(family).unwrap().unwrap();
            assert_eq!((found.link, found.gateway), (peer.index, Some(gateway)));
            there
                .replace_permanent_neighbour(peer.index, gateway, mac)
                .unwrap();
            let neighbours = there.neighbours().unwrap();
            assert!(
                neighbours
                    .iter()
                    .any(|n| n.ip == gateway && n.mac == Some(mac))
            );
            let listed = there.routes(family).unwrap();
            assert!(
                listed.iter().any(|route| route.mtu == Some(1400)),
                "{listed:?}"
            );
            assert!(there.delete_route(&route).unwrap());
            assert!(!there.delete_route(&route).unwrap());
        }
        for (destination, gateways) in [
            ("203.0.113.7/32", ["169.254.1.1", "169.254.1.2"]),
            ("2001:db8::7/128", ["fe80::1", "fe80::2"]),
        ] {
            let destination = destination.parse().unwrap();
            let gateways = gateways.map(|gateway| gateway.parse().unwrap());
            // Two become one and two again.
            for count in [2, 1, 2] {
                let gateways = &gateways[..count];
                there
                    .replace_shared_route(destination, gateways, peer.index)
                    .unwrap();
            }
            assert!(there.delete_routes_to(destination).unwrap());
            assert!(!there.delete_routes_to(destination).unwrap());
        }
        assert!(here.delete_link_named("weir00000001").unwrap());
        assert!(!here.delete_link_named("weir00000001").unwrap());
        assert!(there.link("eth0").unwrap().is_none());
    }

    #[test]
    fn changes_are_reported() {
        let Some(namespace) = fresh_namespace() else {
            return;
        };
        let mut watch = Watch::open_in(&namespace).unwrap();
        let mut netlink = Netlink::open_in(&namespace).unwrap();
        let (link, _) = netlink.ensure_bridge("bridge7").unwrap();
        let mut next = || watch.next(Some(Duration::from_secs(5))).unwrap().unwrap();
        assert!(matches!(next(), Change::Link(seen) if seen.index == link.index));
        netlink.delete_link(link.index).unwrap();
        while !matches!(next(), Change::LinkGone(gone) if gone.name == "bridge7") {}
    }

    #[test]
    fn sysctls_are_those_of_the_namespace() {
        let Some(namespace) = fresh_namespace() else {
            return;
        };
        let outside = sysctl::read("net.ipv4.ip_forward").unwrap();
        namespace
            .run_in(|| {
                sysctl::ensure("net.ipv4.ip_forward", "1").unwrap();
                assert_eq!(sysctl::read("net.ipv4.ip_forward").unwrap(), "1");
            })
            .unwrap();
        assert_eq!(sysctl::read("net.ipv4.ip_forward").unwrap(), outside);
    }

    #[test]
    fn a_connected_udp_socket_is_found_and_ended() {
        let (Some(namespace), Some(other)) = (fresh_namespace(), fresh_namespace()) else {
            return;
        };
        assert_ne!(namespace.cookie().unwrap(), other.cookie().unwrap());
        let mut netlink = Netlink::open_in(&namespace).unwrap();
        let lo = netlink.require_link("lo").unwrap();
        netlink.change_link(lo.index, &LinkChange::up()).unwrap();
        let mut diagnosis = SocketDiagnosis::open_in(&namespace).unwrap();
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let bind = || std::net::UdpSocket::bind(any).unwrap();
            let (client, server) = namespace.run_in(|| (bind(), bind())).unwrap();
            let address = server.local_addr().unwrap();
            client.connect(address).unwrap();
            let found = diagnosis.connected_udp().unwrap();
            let [socket] = found.as_slice() else {
                panic!("{found:?}")
            };
            assert_eq!(socket.remote, address);
            assert_eq!(socket.local, client.local_addr().unwrap());
            assert!(diagnosis.end(socket).unwrap());
            let error = client.recv(&mut [0; 8]).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionAborted);
            assert!(!diagnosis.end(socket).unwrap());
        }
    }
}
