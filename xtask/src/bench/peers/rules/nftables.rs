// SPDX-License-Identifier: Apache-2.0
//! Rules for `nft`.

use std::fmt::{self, Write as _};

use super::{Backed, MARK, Script, range};
use crate::bench::Family;
use crate::bench::peers::objects::{PORT, TARGET_PORT, address};
use crate::cluster::place::{POD_RANGES, SERVICE_RANGES};

/// Sets, maps and chains that are there before any service is. Those that stay empty are for services that have no
/// endpoints, are reached from outside or lead to pods of this node; packets are looked up in them all the same.
fn frame(family: Family) -> String {
    let (pods, services) = (range(family, POD_RANGES), range(family, SERVICE_RANGES));
    let ip = table(family);
    let addr = family.pick("ipv4_addr", "ipv6_addr");
    format!(
        "table {ip} kube-proxy {{\n\
         set cluster-ips {{ type {addr}; }}\n\
         set nodeport-ips {{ type {addr}; }}\n\
         set hairpin-connections {{ type {addr} . {addr} . inet_proto . inet_service; }}\n\
         map firewall-ips {{ type {addr} . inet_proto . inet_service : verdict; }}\n\
         map no-endpoint-services {{ type {addr} . inet_proto . inet_service : verdict; }}\n\
         map no-endpoint-nodeports {{ type inet_proto . inet_service : verdict; }}\n\
         map service-ips {{ type {addr} . inet_proto . inet_service : verdict; }}\n\
         map service-nodeports {{ type inet_proto . inet_service : verdict; }}\n\
         chain firewall-check {{ {ip} daddr . meta l4proto . th dport vmap @firewall-ips; }}\n\
         chain service-endpoints-check {{ {ip} daddr . meta l4proto . th dport vmap @no-endpoint-services; }}\n\
         chain nodeport-endpoints-check {{ {ip} daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports; }}\n\
         chain cluster-ips-check {{ {ip} daddr @cluster-ips reject; {ip} daddr {services} drop; }}\n\
         chain masquerading {{\n\
           mark and {MARK} != 0 mark set mark xor {MARK} masquerade fully-random;\n\
           ct status dnat {ip} saddr . {ip} daddr . meta l4proto . th dport @hairpin-connections masquerade fully-random;\n\
         }}\n\
         chain services {{\n\
           {ip} daddr @cluster-ips {ip} saddr != {pods} mark set mark or {MARK};\n\
           {ip} daddr . meta l4proto . th dport vmap @service-ips;\n\
           {ip} daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports;\n\
         }}\n\
         chain filter-prerouting-pre-dnat {{ type filter hook prerouting priority -110; ct state new jump firewall-check; }}\n\
         chain filter-output-pre-dnat {{ type filter hook output priority -110; ct state new jump firewall-check; }}\n\
         chain filter-input {{\n\
           type filter hook input priority 0;\n\
           ct state new jump nodeport-endpoints-check; ct state new jump service-endpoints-check;\n\
         }}\n\
         chain filter-forward {{\n\
           type filter hook forward priority 0;\n\
           ct state new jump service-endpoints-check; ct state new jump cluster-ips-check;\n\
         }}\n\
         chain filter-output {{\n\
           type filter hook output priority 0;\n\
           ct state new jump service-endpoints-check; ct state new jump cluster-ips-check;\n\
         }}\n\
         chain nat-prerouting {{ type nat hook prerouting priority -100; jump services; }}\n\
         chain nat-output {{ type nat hook output priority -100; jump services; }}\n\
         chain nat-postrouting {{ type nat hook postrouting priority 100; jump masquerading; }}\n\
         }}\n"
    )
}

/// The family of a table and of what its rules look at.
fn table(family: Family) -> &'static str {
    family.pick("ip", "ip6")
}

/// The whole table, in place of the one that was there.
pub(super) fn all(family: Family, services: &[Backed]) -> Script {
    let ip = table(family);
    // A table can be deleted only where there is one.
    let mut text = format!(
        "add table {ip} kube-proxy\ndelete table {ip} kube-proxy\n{}",
        frame(family)
    );
    script(&mut text, |text| {
        for service in services {
            let (number, address) = (service.number, address(family, service.number));
            writeln!(text, "add chain {ip} kube-proxy service-{number}")?;
            writeln!(
                text,
                "add element {ip} kube-proxy cluster-ips {{ {address} }}"
            )?;
            writeln!(
                text,
                "add element {ip} kube-proxy service-ips {{ {address} . tcp . {PORT} : goto service-{number} }}"
            )?;
            choose(text, family, service)?;
        }
        Ok(())
    })
}

/// The chain of one service, anew.
pub(super) fn change(family: Family, service: &Backed) -> Script {
    script(&mut String::new(), |text| {
        let ip = table(family);
        writeln!(
            text,
            "flush chain {ip} kube-proxy service-{}",
            service.number
        )?;
        choose(text, family, service)
    })
}

fn script(text: &mut String, write: impl FnOnce(&mut String) -> fmt::Result) -> Script {
    // A text takes whatever it is given.
    let _ = write(text);
    Script {
        program: "nft",
        arguments: &["--file", "-"],
        text: std::mem::take(text),
    }
}

/// One rule: a random number is an endpoint.
fn choose(text: &mut String, family: Family, service: &Backed) -> fmt::Result {
    let ip = table(family);
    let endpoints: Vec<String> = service
        .endpoints
        .iter()
        .enumerate()
        .map(|(index, endpoint)| format!("{index} : {endpoint} . {TARGET_PORT}"))
        .collect();
    writeln!(
        text,
        "add rule {ip} kube-proxy service-{} meta l4proto tcp dnat {ip} addr . port to numgen random mod {} map {{ {} }}",
        service.number,
        endpoints.len(),
        endpoints.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_chooses_one_of_its_endpoints() {
        let service = Backed {
            number: 7,
            endpoints: vec![[10, 0, 0, 1].into(), [10, 0, 0, 2].into()],
        };
        let rule = "add rule ip kube-proxy service-7 meta l4proto tcp dnat ip addr . port to numgen random mod 2 map \
                    { 0 : 10.0.0.1 . 8080, 1 : 10.0.0.2 . 8080 }\n";
        let text = change(Family::V4, &service).text;
        assert_eq!(text, format!("flush chain ip kube-proxy service-7\n{rule}"));
        assert!(all(Family::V4, &[service]).text.ends_with(rule));
    }
}
