// SPDX-License-Identifier: Apache-2.0
//! Ranges of addresses that a policy names, without their exceptions.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

/// Addresses of a range without some parts of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpBlock {
    cidr: IpNet,
    except: BTreeSet<IpNet>,
}

/// Why an excepted range is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{except} must lie inside {cidr} and be smaller")]
pub struct InvalidExcept {
    pub cidr: IpNet,
    pub except: IpNet,
    /// Its place in the list.
    pub place: usize,
}

impl IpBlock {
    /// Proves that the excepted ranges are parts of the range; host bits are cleared.
    pub fn new(
        cidr: IpNet,
        except: impl IntoIterator<Item = IpNet>,
    ) -> Result<Self, InvalidExcept> {
        let cidr = cidr.trunc();
        let mut proven = BTreeSet::new();
        for (place, except) in except.into_iter().enumerate() {
            let except = except.trunc();
            if !cidr.contains(&except) || cidr.prefix_len() >= except.prefix_len() {
                return Err(InvalidExcept {
                    cidr,
                    except,
                    place,
                });
            }
            proven.insert(except);
        }
        Ok(Self {
            cidr,
            except: proven,
        })
    }

    /// The whole range.
    pub const fn cidr(&self) -> IpNet {
        self.cidr
    }

    /// The parts that are not meant.
    pub fn except(&self) -> impl Iterator<Item = IpNet> {
        self.except.iter().copied()
    }

    /// Whether an address is meant.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.cidr.contains(&address) && !self.except.iter().any(|except| except.contains(&address))
    }
}

impl fmt::Display for IpBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cidr.fmt(f)?;
        for (place, except) in self.except.iter().enumerate() {
            f.write_str(if place == 0 { " except " } else { ", " })?;
            except.fmt(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn blocks_contain_their_range_without_the_exceptions() {
        let block = IpBlock::new(net("10.0.0.9/8"), [net("10.1.0.0/16"), net("10.2.3.4/32")]);
        let block = block.unwrap();
        assert_eq!(
            block.to_string(),
            "10.0.0.0/8 except 10.1.0.0/16, 10.2.3.4/32"
        );
        for (address, inside) in [
            ("10.0.0.1", true),
            ("10.1.0.1", false),
            ("10.2.3.4", false),
            ("10.2.3.5", true),
            ("11.0.0.1", false),
            ("fd00::1", false),
        ] {
            assert_eq!(
                block.contains(address.parse().unwrap()),
                inside,
                "{address}"
            );
        }
    }

    #[test]
    fn exceptions_lie_inside() {
        for (cidr, except) in [
            ("10.0.0.0/8", "11.0.0.0/16"),
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.0.0.0/8", "0.0.0.0/0"),
            ("::/0", "10.0.0.0/8"),
        ] {
            let error = IpBlock::new(
                net(cidr),
                [
                    net(cidr).subnets(20).unwrap().next().unwrap_or(net(cidr)),
                    net(except),
                ],
            );
            let error = error.unwrap_err();
            assert_eq!(error.place, 1, "{cidr} {except}");
        }
    }
}
