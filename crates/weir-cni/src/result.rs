// SPDX-License-Identifier: Apache-2.0
//! What ADD answers: the result of the CNI specification.

use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use serde_json::{Value, json};
use weir_api::endpoint::EndpointCreated;

use crate::request::InterfaceName;
use crate::version::SpecVersion;

/// The pod's interface among those of the result.
const INSIDE: usize = 1;

/// The result of an ADD.
pub(crate) fn of_add(
    version: SpecVersion,
    created: &EndpointCreated,
    interface: &InterfaceName,
    netns: &Path,
) -> Value {
    let mut host = json!({"name": created.interface});
    if let Some(mac) = &created.host_mac {
        host["mac"] = json!(mac);
    }
    let mut inside = json!({
        "name": interface.as_str(),
        "mac": created.mac,
        "sandbox": netns.display().to_string(),
    });
    if version >= SpecVersion::V1_1_0 {
        host["mtu"] = json!(created.mtu);
        inside["mtu"] = json!(created.mtu);
    }
    let ips = created.addresses.iter().map(|address| {
        let mut ip = json!({
            // Every other address is behind the gateway, also those of pods on the same node.
            "address": IpNet::from(*address).to_string(),
            "interface": INSIDE,
        });
        if let Some(gateway) = gateway_of(created, *address) {
            ip["gateway"] = json!(gateway);
        }
        if version < SpecVersion::V1_0_0 {
            ip["version"] = json!(if address.is_ipv4() { "4" } else { "6" });
        }
        ip
    });
    let routes = created.gateways.iter().map(|gateway| {
        let everything = if gateway.is_ipv4() {
            "0.0.0.0/0"
        } else {
            "::/0"
        };
        json!({"dst": everything, "gw": gateway})
    });
    json!({
        "cniVersion": version.text(),
        "interfaces": [host, inside],
        "ips": ips.collect::<Vec<_>>(),
        "routes": routes.collect::<Vec<_>>(),
        "dns": {},
    })
}

fn gateway_of(created: &EndpointCreated, address: IpAddr) -> Option<IpAddr> {
    let mut gateways = created.gateways.iter().copied();
    gateways.find(|gateway| gateway.is_ipv4() == address.is_ipv4())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn created() -> EndpointCreated {
        EndpointCreated {
            id: 7,
            interface: "weir0badcafe".to_owned(),
            mac: "0e:00:00:00:00:07".to_owned(),
            host_mac: Some("0e:00:00:00:00:01".to_owned()),
            addresses: ["10.1.0.7", "fd00:1::7"].map(|a| a.parse().unwrap()).into(),
            gateways: ["169.254.1.1", "fe80::1"]
                .map(|a| a.parse().unwrap())
                .into(),
            mtu: 1450,
        }
    }

    #[track_caller]
    fn check(version: SpecVersion, expected: &Value) {
        let interface = InterfaceName::parse("eth0").unwrap();
        let netns = Path::new("/run/netns/a");
        assert_eq!(&of_add(version, &created(), &interface, netns), expected);
    }

    #[test]
    fn of_the_newest_version() {
        check(
            SpecVersion::V1_1_0,
            &json!({
                "cniVersion": "1.1.0",
                "interfaces": [
                    {"name": "weir0badcafe", "mac": "0e:00:00:00:00:01", "mtu": 1450},
                    {"name": "eth0", "mac": "0e:00:00:00:00:07", "mtu": 1450, "sandbox": "/run/netns/a"},
                ],
                "ips": [
                    {"address": "10.1.0.7/32", "gateway": "169.254.1.1", "interface": 1},
                    {"address": "fd00:1::7/128", "gateway": "fe80::1", "interface": 1},
                ],
                "routes": [
                    {"dst": "0.0.0.0/0", "gw": "169.254.1.1"},
                    {"dst": "::/0", "gw": "fe80::1"},
                ],
                "dns": {},
            }),
        );
    }

    #[test]
    fn of_an_old_version() {
        check(
            SpecVersion::V0_4_0,
            &json!({
                "cniVersion": "0.4.0",
                "interfaces": [
                    {"name": "weir0badcafe", "mac": "0e:00:00:00:00:01"},
                    {"name": "eth0", "mac": "0e:00:00:00:00:07", "sandbox": "/run/netns/a"},
                ],
                "ips": [
                    {"version": "4", "address": "10.1.0.7/32", "gateway": "169.254.1.1", "interface": 1},
                    {"version": "6", "address": "fd00:1::7/128", "gateway": "fe80::1", "interface": 1},
                ],
                "routes": [
                    {"dst": "0.0.0.0/0", "gw": "169.254.1.1"},
                    {"dst": "::/0", "gw": "fe80::1"},
                ],
                "dns": {},
            }),
        );
    }
}
