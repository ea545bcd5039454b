// SPDX-License-Identifier: Apache-2.0
//! Destinations that pods reach with their own address.

use ipnet::IpNet;

/// Where no list is configured: the defaults of the ip-masq-agent, and their likes for IPv6 (unique
/// local, link-local and multicast addresses).
const DEFAULTS: [&str; 15] = [
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "240.0.0.0/4",
    "169.254.0.0/16",
    "fc00::/7",
    "fe80::/10",
    "ff00::/8",
];

/// The ranges that are exempt where the configuration has no list of its own.
pub fn default_exempt() -> Vec<IpNet> {
    DEFAULTS
        .iter()
        .filter_map(|text| text.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_a_range_without_host_bits() {
        let nets = default_exempt();
        assert_eq!(nets.len(), DEFAULTS.len());
        assert!(nets.iter().all(|net| *net == net.trunc()));
    }
}
