// SPDX-License-Identifier: Apache-2.0
//! A node with the real kube-proxy, as it comes but for what a node among others on one machine cannot have.

use std::fs;
use std::net::IpAddr;

use anyhow::{Context as _, Result};

use super::objects::{answers, number_of};
use crate::bench::Family;
use crate::cluster::network::inside;
use crate::cluster::place::{Node, POD_RANGES, Place};
use crate::cluster::processes::{Process, start};
use crate::cluster::programs;
use crate::process::{command, stdout_of};

/// Starts kube-proxy in that mode.
pub(super) fn start_proxy(place: &Place, node: Node, mode: &str) -> Result<Process> {
    let file = place.state().join(format!("kube-proxy-{mode}.yaml"));
    // The size of the kernel's connection table can be written in the first network namespace only.
    let configuration = format!(
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n\
         clientConnection: {{kubeconfig: \"{}\"}}\nhostnameOverride: {node}\nmode: {mode}\n\
         clusterCIDR: \"{POD_RANGES}\"\nconntrack: {{maxPerCore: 0, min: 0}}\n",
        place.kubeconfig("admin").display()
    );
    fs::write(&file, configuration).with_context(|| format!("cannot write {}", file.display()))?;
    let mut proxy = inside(place, node, &programs::path("kube-proxy").to_string_lossy());
    proxy.arg("--config").arg(file);
    start(place, &format!("kube-proxy-{mode}"), &mut proxy)
}

/// What is measured beside, for the output.
pub(super) fn version() -> Result<String> {
    let text = stdout_of(command(programs::path("kube-proxy")).arg("--version"))?;
    let version = text.trim().trim_start_matches("Kubernetes ");
    Ok(format!("kube-proxy {version}"))
}

/// A service among the rules of iptables.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Ranked {
    pub(super) number: u32,
    /// From 1 on.
    pub(super) place: usize,
    pub(super) of: usize,
}

/// The last service in the rules of iptables that somebody answers for. The first packet of a connection goes through the
/// rules of all services before it, and kube-proxy writes them in another order each time.
pub(super) fn last_service(place: &Place, node: Node, family: Family, last: u32) -> Result<Ranked> {
    let mut list = inside(place, node, family.pick("iptables", "ip6tables"));
    let rules = stdout_of(list.args(["-w", "-t", "nat", "-S", "KUBE-SERVICES"]))?;
    let services = services(&rules);
    let (index, number) = services
        .iter()
        .enumerate()
        .rev()
        .find_map(|(index, service)| Some((index, service.filter(|one| answers(*one, last))?)))
        .context("the rules of iptables hold no service of the benchmark")?;
    Ok(Ranked {
        number,
        place: index + 1,
        of: services.len(),
    })
}

/// The services of a list of rules in their order; none for one that is not of the benchmark.
fn services(rules: &str) -> Vec<Option<u32>> {
    rules
        .lines()
        .filter_map(|rule| rule.split_once(" -d ")?.1.split_once('/'))
        .map(|(address, _)| number_of(address.parse::<IpAddr>().ok()?))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_name_services_in_their_order() {
        let rules = "-N KUBE-SERVICES\n\
            -A KUBE-SERVICES -d 10.96.64.9/32 -p tcp -m comment --comment \"default/s9 cluster IP\" -m tcp --dport 80 -j KUBE-SVC-A\n\
            -A KUBE-SERVICES -d 10.96.0.1/32 -p tcp -m comment --comment \"default/kubernetes:https cluster IP\" -m tcp --dport 443 -j KUBE-SVC-B\n\
            -A KUBE-SERVICES -d 10.96.64.0/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-C\n\
            -A KUBE-SERVICES -m comment --comment \"kubernetes service nodeports\" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS\n";
        assert_eq!(services(rules), [Some(9), None, Some(0)]);
        let rules = "-A KUBE-SERVICES -d fd00:96::4001/128 -p tcp -m tcp --dport 80 -j KUBE-SVC-A";
        assert_eq!(services(rules), [Some(1)]);
    }
}
