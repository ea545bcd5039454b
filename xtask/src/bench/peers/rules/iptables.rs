// SPDX-License-Identifier: Apache-2.0
//! Rules for `iptables-restore`.

use std::fmt::{self, Write as _};
use std::net::{IpAddr, SocketAddr};

use super::{Backed, MARK, Script, range};
use crate::bench::Family;
use crate::bench::peers::objects::{PORT, TARGET_PORT, address};
use crate::cluster::place::POD_RANGES;

/// Services that `iptables-restore` is given at once: what it takes grows with the square of their number.
const AT_ONCE: usize = 200;

/// Chains that are there before any service is, and who jumps to them for new connections (for all packets where it says
/// so). Those without rules here are for services that have no endpoints or are reached from outside.
fn filter(family: Family) -> String {
    let loopback = family.pick("127.0.0.0/8", "::1/128");
    format!(
        "*filter\n\
    :KUBE-SERVICES - [0:0]\n:KUBE-EXTERNAL-SERVICES - [0:0]\n:KUBE-FORWARD - [0:0]\n:KUBE-NODEPORTS - [0:0]\n\
    :KUBE-PROXY-FIREWALL - [0:0]\n:KUBE-FIREWALL - [0:0]\n\
    -A INPUT -j KUBE-FIREWALL\n\
    -A INPUT -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL\n\
    -A INPUT -j KUBE-NODEPORTS\n\
    -A INPUT -m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES\n\
    -A FORWARD -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL\n\
    -A FORWARD -j KUBE-FORWARD\n\
    -A FORWARD -m conntrack --ctstate NEW -j KUBE-SERVICES\n\
    -A FORWARD -m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES\n\
    -A OUTPUT -j KUBE-FIREWALL\n\
    -A OUTPUT -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL\n\
    -A OUTPUT -m conntrack --ctstate NEW -j KUBE-SERVICES\n\
    -A KUBE-FIREWALL ! -s {loopback} -d {loopback} -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP\n\
    -A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP\n\
    -A KUBE-FORWARD -m mark --mark {MARK}/{MARK} -j ACCEPT\n\
    -A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
    COMMIT\n"
    )
}

const NAT_JUMPS: &str = "-A PREROUTING -j KUBE-SERVICES\n\
    -A OUTPUT -j KUBE-SERVICES\n\
    -A POSTROUTING -j KUBE-POSTROUTING\n";

/// The chains of all services; `fresh`: the first ones on this node.
pub(super) fn all(family: Family, fresh: bool, services: &[Backed]) -> Vec<Script> {
    let chunks = services.chunks(AT_ONCE).enumerate();
    chunks
        .map(|(number, chunk)| script(family, fresh && number == 0, chunk))
        .collect()
}

/// Writes the chains of some services anew, and always, as kube-proxy does, the list of all services up to the last of them.
pub(super) fn script(family: Family, fresh: bool, services: &[Backed]) -> Script {
    let mut text = String::new();
    // A text takes whatever it is given.
    let _ = write(&mut text, family, fresh, services);
    Script {
        program: family.pick("iptables-restore", "ip6tables-restore"),
        arguments: &["--wait", "--noflush"],
        text,
    }
}

fn write(text: &mut String, family: Family, fresh: bool, services: &[Backed]) -> fmt::Result {
    if fresh {
        *text += &filter(family);
    }
    // Naming a chain empties it.
    *text += "*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-NODEPORTS - [0:0]\n:KUBE-POSTROUTING - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n";
    for service in services {
        writeln!(text, ":{} - [0:0]", service_chain(service.number))?;
        for endpoint in &service.endpoints {
            writeln!(
                text,
                ":{} - [0:0]",
                endpoint_chain(service.number, *endpoint)
            )?;
        }
    }
    if fresh {
        *text += NAT_JUMPS;
    }
    writeln!(
        text,
        "-A KUBE-POSTROUTING -m mark ! --mark {MARK}/{MARK} -j RETURN\n\
         -A KUBE-POSTROUTING -j MARK --xor-mark {MARK}\n\
         -A KUBE-POSTROUTING -j MASQUERADE --random-fully\n\
         -A KUBE-MARK-MASQ -j MARK --or-mark {MARK}"
    )?;
    let count = services.last().map_or(0, |last| last.number + 1);
    for number in 0..count {
        let address = address(family, number);
        writeln!(
            text,
            "-A KUBE-SERVICES -d {address} -p tcp -m comment --comment \"default/s{number} cluster IP\" -m tcp --dport {PORT} \
             -j {}",
            service_chain(number)
        )?;
    }
    *text += "-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS\n";
    for service in services {
        write_service(text, family, service)?;
    }
    *text += "COMMIT\n";
    Ok(())
}

fn write_service(text: &mut String, family: Family, service: &Backed) -> fmt::Result {
    let number = service.number;
    let chain = service_chain(number);
    writeln!(
        text,
        "-A {chain} ! -s {} -d {} -p tcp -m comment --comment \"default/s{number} cluster IP\" -m tcp --dport {PORT} \
         -j KUBE-MARK-MASQ",
        range(family, POD_RANGES),
        address(family, number)
    )?;
    let count = service.endpoints.len();
    for (index, endpoint) in service.endpoints.iter().enumerate() {
        let socket = SocketAddr::new(*endpoint, TARGET_PORT);
        let to = endpoint_chain(service.number, *endpoint);
        let comment = format!("-m comment --comment \"default/s{number} -> {socket}\"");
        // The last one takes what the others have left.
        let chance = match count - index {
            1 => String::new(),
            left => format!(
                " -m statistic --mode random --probability 0.{:010}",
                10_000_000_000 / left
            ),
        };
        writeln!(text, "-A {chain} {comment}{chance} -j {to}")?;
        writeln!(text, "-A {to} -s {endpoint} {comment} -j KUBE-MARK-MASQ")?;
        writeln!(
            text,
            "-A {to} -p tcp {comment} -m tcp -j DNAT --to-destination {socket}"
        )?;
    }
    Ok(())
}

fn service_chain(number: u32) -> String {
    format!("KUBE-SVC-{number}")
}

/// The same for the same endpoint of a service, whatever others it has; the endpoints of a service differ in their last bits.
fn endpoint_chain(service: u32, endpoint: IpAddr) -> String {
    let last = match endpoint {
        IpAddr::V4(v4) => v4.to_bits() & 0xffff,
        IpAddr::V6(v6) => v6.segments()[7].into(),
    };
    format!("KUBE-SEP-{service}-{last:x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> Backed {
        Backed {
            number: 1,
            endpoints: vec![[10, 0, 0, 1].into(), [10, 0, 0, 2].into()],
        }
    }

    #[test]
    fn a_service_leads_to_each_of_its_endpoints() {
        let text = script(Family::V4, true, &[service()]).text;
        for rule in [
            ":KUBE-SVC-1 - [0:0]",
            "--dport 80 -j KUBE-SVC-0",
            "--dport 80 -j KUBE-SVC-1",
            "-m statistic --mode random --probability 0.5000000000 -j KUBE-SEP-1-1",
            "10.0.0.2:8080\" -j KUBE-SEP-1-2",
            "-m tcp -j DNAT --to-destination 10.0.0.2:8080",
        ] {
            assert!(
                text.lines().any(|line| line.ends_with(rule)),
                "{rule} in {text}"
            );
        }
    }

    #[test]
    fn a_change_lists_all_services_and_jumps_to_them_no_second_time() {
        let text = script(Family::V4, false, &[service()]).text;
        assert_eq!(text.matches("-A KUBE-SERVICES -d ").count(), 2);
        assert!(!text.contains("PREROUTING") && !text.contains("*filter"));
    }
}
