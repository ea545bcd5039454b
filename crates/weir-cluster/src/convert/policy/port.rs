// SPDX-License-Identifier: Apache-2.0
//! Which ports a rule is about.

use k8s_openapi::api::networking::v1 as networking;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use weir_abi::Protocol;
use weir_model::{PolicyPort, PortMatch};

use super::{Proven, shown, wrong};

pub(super) fn ports(
    raw: Vec<networking::NetworkPolicyPort>,
    field: &str,
) -> Proven<Vec<PolicyPort>> {
    let place = |(place, one)| port(one, &format!("{field}[{place}]"));
    raw.into_iter().enumerate().map(place).collect()
}

fn port(raw: networking::NetworkPolicyPort, field: &str) -> Proven<PolicyPort> {
    let protocol = match raw.protocol.as_deref() {
        None | Some("TCP") => Protocol::TCP,
        Some("UDP") => Protocol::UDP,
        Some("SCTP") => Protocol::SCTP,
        Some(other) => {
            let message = format!("`{}` is not TCP, UDP or SCTP", shown(other));
            return Err(wrong(format!("{field}.protocol"), message));
        }
    };
    let number = |value: i32, part: &str| {
        let number = u16::try_from(value).ok().filter(|number| *number > 0);
        number.ok_or_else(|| {
            let message = format!("{value} is not a port: 1 to 65535");
            wrong(format!("{field}.{part}"), message)
        })
    };
    let ports = match (raw.port, raw.end_port) {
        (None, None) => PortMatch::All,
        (None, Some(_)) => {
            return Err(wrong(
                format!("{field}.endPort"),
                "a range needs its first port in `port`",
            ));
        }
        (Some(IntOrString::Int(first)), last) => {
            let first = number(first, "port")?;
            let last = last.map_or(Ok(first), |last| number(last, "endPort"))?;
            if last < first {
                let message = format!("{last} is less than port {first}");
                return Err(wrong(format!("{field}.endPort"), message));
            }
            PortMatch::Range(first, last)
        }
        (Some(IntOrString::String(name)), None) => {
            check_port_name(&name).map_err(|reason| {
                let message = format!("`{}` is not the name of a port: {reason}", shown(&name));
                wrong(format!("{field}.port"), message)
            })?;
            PortMatch::Named(name)
        }
        (Some(IntOrString::String(_)), Some(_)) => {
            return Err(wrong(
                format!("{field}.endPort"),
                "a range cannot begin at a port with a name",
            ));
        }
    };
    Ok(PolicyPort { protocol, ports })
}

/// RFC 6335, section 5.1, as Kubernetes reads it.
fn check_port_name(name: &str) -> Result<(), &'static str> {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || name.len() > 15 {
        Err("it has 1 to 15 characters")
    } else if !name.chars().all(legal) {
        Err("only lower-case letters, digits and `-` are allowed")
    } else if !name.chars().any(|c| c.is_ascii_lowercase()) {
        Err("it needs a letter")
    } else if name.starts_with('-') || name.ends_with('-') || name.contains("--") {
        Err("`-` stands alone between letters or digits")
    } else {
        Ok(())
    }
}
