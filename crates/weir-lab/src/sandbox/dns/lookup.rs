// SPDX-License-Identifier: Apache-2.0
//! What a name stands for, after "Kubernetes DNS-Based Service Discovery" 1.1.0.

use std::net::IpAddr;

use hickory_proto::rr::{
    Name, RData, RecordType,
    rdata::{A, AAAA, CNAME, PTR, SOA, SRV, TXT},
};

use crate::names::{Endpoint, Names, Port, Service};

/// The version of the specification, which has a name of its own.
const VERSION: &str = "1.1.0";

/// What there is for a name and type.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Found {
    /// Another server's business.
    Foreign,
    /// There is no such name.
    Nothing { authority: (Name, RData) },
    /// There is; it may have no record of the type.
    Records {
        answers: Vec<(Name, RData)>,
        /// The addresses of names in the answers.
        additional: Vec<(Name, RData)>,
        authority: (Name, RData),
    },
}

/// Looks a name up.
pub(super) fn lookup(names: &Names, name: &Name, kind: RecordType) -> Found {
    let Some(zone) = Zone::of(names) else {
        return Found::Foreign;
    };
    let name = name.to_lowercase();
    let authority = zone.authority();
    if let Ok(network) = name.parse_arpa_name()
        && network.prefix_len() == network.max_prefix_len()
    {
        let answers = zone.reverse(&name, network.addr());
        if answers.is_empty() {
            return Found::Foreign;
        }
        let answers = of_kind(answers, kind);
        return Found::Records {
            answers,
            additional: Vec::new(),
            authority,
        };
    }
    if !zone.domain.zone_of(&name) {
        return Found::Foreign;
    }
    let Some(records) = zone.records(&name) else {
        return Found::Nothing { authority };
    };
    let mut additional = Vec::new();
    let mut answers = of_kind(records, kind);
    for (_, data) in answers.clone() {
        if let RData::SRV(srv) = &data {
            additional.extend(zone.addresses(&srv.target));
        }
        // Whoever asks for addresses wants those behind the other name.
        if let RData::CNAME(CNAME(target)) = &data
            && kind != RecordType::CNAME
        {
            answers.extend(of_kind(zone.addresses(target), kind));
        }
    }
    Found::Records {
        answers,
        additional,
        authority,
    }
}

fn of_kind(records: Vec<(Name, RData)>, kind: RecordType) -> Vec<(Name, RData)> {
    let fits = |data: &RData| {
        let own = data.record_type();
        own == kind || own == RecordType::CNAME || kind == RecordType::ANY
    };
    let fitting = records.into_iter().filter(|(_, data)| fits(data));
    fitting.collect()
}

/// The names of the cluster's domain.
struct Zone<'a> {
    names: &'a Names,
    domain: Name,
}

impl<'a> Zone<'a> {
    fn of(names: &'a Names) -> Option<Self> {
        let mut domain = Name::from_ascii(&names.domain).ok()?;
        domain.set_fqdn(true);
        Some(Self { names, domain })
    }

    fn authority(&self) -> (Name, RData) {
        let own = |labels: &[&str]| self.name(labels).unwrap_or_else(|| self.domain.clone());
        let (server, person) = (own(&["ns", "dns"]), own(&["hostmaster"]));
        let soa = SOA::new(server, person, 1, 7200, 1800, 86400, 5);
        (self.domain.clone(), RData::SOA(soa))
    }

    /// Labels in front of the domain as a whole name.
    fn name(&self, labels: &[&str]) -> Option<Name> {
        let labels = Name::from_labels(labels.iter().map(|label| label.as_bytes())).ok()?;
        labels.append_domain(&self.domain).ok()
    }

    /// Every record of a name below the domain; none when there is no such name.
    fn records(&self, name: &Name) -> Option<Vec<(Name, RData)>> {
        let count = usize::from(name.num_labels() - self.domain.num_labels());
        let labels = name.iter().take(count).map(String::from_utf8_lossy);
        let labels: Vec<String> = labels.map(String::from).collect();
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        let owned = |data: Vec<RData>| data.into_iter().map(|data| (name.clone(), data)).collect();
        let space = |space: &str| self.names.namespaces.get(space);
        let service = |service: &str, in_space: &str| space(in_space)?.get(service);
        match labels.as_slice() {
            [] => Some(vec![self.authority()]),
            ["svc" | "pod"] => Some(Vec::new()),
            ["dns-version"] => {
                let version = TXT::new(vec![VERSION.to_owned()]);
                Some(owned(vec![RData::TXT(version)]))
            }
            ["ns", "dns"] => {
                let server = service("kube-dns", "kube-system")?;
                Some(owned(server.addresses.iter().map(address).collect()))
            }
            [namespace, "svc" | "pod"] => space(namespace).map(|_| Vec::new()),
            [pod, namespace, "pod"] => {
                space(namespace)?;
                let dotted = pod.replace('-', ".").parse();
                let ip: IpAddr = dotted.or_else(|_| pod.replace('-', ":").parse()).ok()?;
                Some(owned(vec![address(&ip)]))
            }
            [own, namespace, "svc"] => {
                let service = service(own, namespace)?;
                if let Some(alias) = &service.alias {
                    let mut alias = Name::from_ascii(alias).ok()?;
                    alias.set_fqdn(true);
                    return Some(owned(vec![RData::CNAME(CNAME(alias))]));
                }
                if service.addresses.is_empty() {
                    return None;
                }
                let mut records: Vec<RData> = service.addresses.iter().map(address).collect();
                records.extend(self.ports(own, namespace, service, |_| true));
                Some(owned(records))
            }
            [port, protocol, own, namespace, "svc"] => {
                let port = port.strip_prefix('_')?;
                let protocol = protocol.strip_prefix('_')?;
                let service = service(own, namespace)?;
                let fits = |own: &Port| own.name == port && own.protocol == protocol;
                let records = self.ports(own, namespace, service, fits);
                (!records.is_empty()).then(|| owned(records))
            }
            [label, own, namespace, "svc"] => {
                let service = service(own, namespace)?;
                if label.starts_with('_') {
                    return Some(Vec::new());
                }
                let fits = |endpoint: &&Endpoint| endpoint.label.eq_ignore_ascii_case(label);
                let records: Vec<RData> = service
                    .endpoints
                    .iter()
                    .filter(fits)
                    .map(|endpoint| address(&endpoint.address))
                    .collect();
                (!records.is_empty()).then(|| owned(records))
            }
            _ => None,
        }
    }

    /// The ports of a service; those of a headless one are its endpoints'.
    fn ports(
        &self,
        own: &str,
        namespace: &str,
        service: &Service,
        fits: impl Fn(&Port) -> bool,
    ) -> Vec<RData> {
        let mut found: Vec<(u16, Name)> = Vec::new();
        if service.endpoints.is_empty() {
            let name = self.name(&[own, namespace, "svc"]);
            let ports = service.ports.iter().filter(|port| fits(port));
            found.extend(ports.filter_map(|port| Some((port.number, name.clone()?))));
        }
        for endpoint in &service.endpoints {
            let name = self.name(&[&endpoint.label, own, namespace, "svc"]);
            let ports = endpoint.ports.iter().filter(|port| fits(port));
            found.extend(ports.filter_map(|port| Some((port.number, name.clone()?))));
        }
        let weight = u16::try_from(100 / found.len().max(1)).unwrap_or(1).max(1);
        found
            .into_iter()
            .map(|(port, name)| RData::SRV(SRV::new(0, weight, port, name)))
            .collect()
    }

    fn addresses(&self, name: &Name) -> Vec<(Name, RData)> {
        let inside = self.domain.zone_of(name);
        let records = inside.then(|| self.records(&name.to_lowercase())).flatten();
        let mut records = records.unwrap_or_default();
        records.retain(|(_, data)| data.ip_addr().is_some());
        records
    }

    /// The names behind an address of a service, or of an endpoint of a headless one.
    fn reverse(&self, asked: &Name, ip: IpAddr) -> Vec<(Name, RData)> {
        let mut found = Vec::new();
        for (namespace, services) in &self.names.namespaces {
            for (own, service) in services {
                if service.endpoints.is_empty() && service.addresses.contains(&ip) {
                    found.extend(self.name(&[own, namespace, "svc"]));
                }
                let endpoints = service.endpoints.iter();
                let own_endpoints = endpoints.filter(|endpoint| endpoint.address == ip);
                found.extend(
                    own_endpoints.filter_map(|endpoint| {
                        self.name(&[&endpoint.label, own, namespace, "svc"])
                    }),
                );
            }
        }
        let record = |name| (asked.clone(), RData::PTR(PTR(name)));
        found.into_iter().map(record).collect()
    }
}

fn address(ip: &IpAddr) -> RData {
    match ip {
        IpAddr::V4(ip) => RData::A(A(*ip)),
        IpAddr::V6(ip) => RData::AAAA(AAAA(*ip)),
    }
}
