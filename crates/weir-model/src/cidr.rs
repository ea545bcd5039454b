// SPDX-License-Identifier: Apache-2.0
//! Ranges of pod addresses.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

/// Why a range cannot hold pods.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidPodCidr {
    #[error("`{0}` is not a CIDR such as 10.244.1.0/24 or fd00:244:1::/64")]
    Syntax(String),
    #[error("{net} has bits set behind its prefix: write {}", net.trunc())]
    HostBits { net: IpNet },
    #[error(
        "{0} has no room for pods: an IPv4 range needs /30 or wider, an IPv6 range /126 or wider"
    )]
    TooSmall(IpNet),
    #[error("{0} is too wide for the pods of a node")]
    TooWide(IpNet),
    #[error("{0} is a link-local, multicast, loopback or unspecified range")]
    Special(IpNet),
}

/// The range that a node's pods get their addresses from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodCidr(IpNet);

impl PodCidr {
    /// Proves a range.
    pub fn new(net: IpNet) -> Result<Self, InvalidPodCidr> {
        if net != net.trunc() {
            return Err(InvalidPodCidr::HostBits { net });
        }
        if net.max_prefix_len() - net.prefix_len() < 2 {
            return Err(InvalidPodCidr::TooSmall(net));
        }
        // Not a limit of the datapath: 0.0.0.0/0 here is a typing error that would cut the node off.
        let widest = match net {
            IpNet::V4(_) => 8,
            IpNet::V6(_) => 16,
        };
        if net.prefix_len() < widest {
            return Err(InvalidPodCidr::TooWide(net));
        }
        let special = match net.addr() {
            IpAddr::V4(v4) => {
                v4.is_link_local() || v4.is_multicast() || v4.is_loopback() || v4.octets()[0] == 0
            }
            IpAddr::V6(v6) => {
                v6.is_unicast_link_local()
                    || v6.is_multicast()
                    || v6.is_loopback()
                    || v6.is_unspecified()
                    || v6.to_ipv4_mapped().is_some()
            }
        };
        if special {
            Err(InvalidPodCidr::Special(net))
        } else {
            Ok(Self(net))
        }
    }

    /// Reads and proves a range.
    pub fn parse(text: &str) -> Result<Self, InvalidPodCidr> {
        let net = text
            .parse()
            .map_err(|_| InvalidPodCidr::Syntax(text.chars().take(80).collect()))?;
        Self::new(net)
    }

    /// The range.
    pub const fn net(&self) -> IpNet {
        self.0
    }

    /// Whether an address lies in the range.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }
}

impl fmt::Display for PodCidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for PodCidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_proven() {
        for good in [
            "10.244.1.0/24",
            "fd00:244:1::/64",
            "10.0.0.0/8",
            "10.0.0.4/30",
        ] {
            assert!(PodCidr::parse(good).is_ok(), "{good}");
        }
        for (bad, word) in [
            ("", "not a CIDR"),
            ("10.244.1.0", "not a CIDR"),
            ("10.244.1.1/24", "write 10.244.1.0/24"),
            ("10.244.1.0/31", "no room"),
            ("0.0.0.0/0", "too wide"),
            ("::/0", "too wide"),
            ("169.254.0.0/16", "link-local"),
            ("fe80::/64", "link-local"),
            ("ff00::/64", "multicast"),
        ] {
            let error = PodCidr::parse(bad).unwrap_err().to_string();
            assert!(error.contains(word), "{bad}: {error}");
        }
    }
}
