// SPDX-License-Identifier: Apache-2.0
//! The IPv6 twin of every IPv4 address of a case: the same bits at the end of another prefix. What holds for the
//! addresses of a case holds for their twins.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::{Value, json};

/// The 96 bits in front.
const PREFIX: u128 = 0xfd00_0004 << 96;

/// The twin of an address or of a range; none of what is neither, or is IPv6 already.
pub(super) fn twin(text: &str) -> Option<String> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length.parse::<u8>().ok()?)),
        None => (text, None),
    };
    let address: Ipv4Addr = address.parse().ok()?;
    let twin = IpAddr::V6(Ipv6Addr::from(PREFIX | u128::from(u32::from(address))));
    Some(match length {
        Some(length) => format!("{twin}/{}", length + 96),
        None => twin.to_string(),
    })
}

/// The object as it is for both families: pods with both addresses, policies with both ranges.
pub(super) fn with_twins(mut object: Value) -> Value {
    match object["kind"].as_str() {
        Some("Pod") => {
            let text = object["status"]["podIP"].as_str().map(ToOwned::to_owned);
            if let Some((text, twin)) = text.and_then(|text| Some((text.clone(), twin(&text)?))) {
                object["status"]["podIPs"] = json!([{"ip": text}, {"ip": twin}]);
            }
        }
        Some("NetworkPolicy") => {
            for (direction, side) in [("ingress", "from"), ("egress", "to")] {
                for rule in list(&mut object["spec"][direction]) {
                    if let Some(peers) = rule[side].as_array_mut() {
                        let twins: Vec<Value> = peers.iter().filter_map(twin_of_peer).collect();
                        peers.extend(twins);
                    }
                }
            }
        }
        _ => {}
    }
    object
}

fn list(value: &mut Value) -> impl Iterator<Item = &mut Value> {
    value.as_array_mut().into_iter().flatten()
}

fn twin_of_peer(peer: &Value) -> Option<Value> {
    let block = &peer["ipBlock"];
    let mut other = json!({"cidr": twin(block["cidr"].as_str()?)?});
    let except: Vec<String> = block["except"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|range| twin(range.as_str()?))
        .collect();
    if !except.is_empty() {
        other["except"] = json!(except);
    }
    Some(json!({"ipBlock": other}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twins_have_the_same_bits_at_the_end() {
        for (text, expected) in [
            ("10.244.1.17", Some("fd00:4::af4:111")),
            ("10.244.0.0/16", Some("fd00:4::af4:0/112")),
            ("0.0.0.0/0", Some("fd00:4::/96")),
            ("fd00::1", None),
            ("web", None),
        ] {
            assert_eq!(twin(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn policies_and_pods_get_both_families() {
        let policy = json!({"kind": "NetworkPolicy", "spec": {"egress": [{"to": [
            {"podSelector": {}}, {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}},
        ]}]}});
        let both = with_twins(policy);
        assert_eq!(
            both["spec"]["egress"][0]["to"][2],
            json!({"ipBlock": {"cidr": "fd00:4::a00:0/104", "except": ["fd00:4::a01:0/112"]}})
        );
        let pod = with_twins(json!({"kind": "Pod", "status": {"podIP": "10.0.0.1"}}));
        assert_eq!(pod["status"]["podIPs"][1]["ip"], "fd00:4::a00:1");
    }
}
