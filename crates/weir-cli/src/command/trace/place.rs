// SPDX-License-Identifier: Apache-2.0
//! How people name places.

use crate::error::CliError;
use std::io::Read as _;
use std::net::IpAddr;
use std::path::Path;
use weir_api::trace::Place;

const PLACES: &str =
    "a place is NAMESPACE/POD, svc:NAMESPACE/NAME, node:NAME, world, or an address";

/// `shop/cli`, `svc:shop/web`, `node:n1`, `world`, `10.8.1.4`.
pub(super) fn parse(text: &str) -> Result<Place, CliError> {
    if text.is_empty() {
        return Err(CliError::typed("a place is missing", PLACES));
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(Place::Address(address));
    }
    match text.split_once(':') {
        Some(("svc" | "service", name)) => Ok(Place::Service(pod(name))),
        Some(("node", name)) => Ok(Place::Node(name.to_owned())),
        Some(("pod", name)) => Ok(Place::Pod(pod(name))),
        Some((namespace, name)) if !name.contains([':', '/']) && !namespace.contains('/') => {
            Ok(Place::Pod(format!("{namespace}/{name}")))
        }
        Some(_) => Err(CliError::typed(format!("`{text}` is no place"), PLACES)),
        None if text == "world" => Ok(Place::World),
        None => Ok(match text.strip_prefix("node/") {
            Some(name) => Place::Node(name.to_owned()),
            None => Place::Pod(pod(text)),
        }),
    }
}

/// A place, and the port behind it.
pub(super) fn parse_target(text: &str) -> Result<(Place, Option<String>), CliError> {
    if let Some(place) = text
        .strip_suffix("/ICMP")
        .or_else(|| text.strip_suffix("/icmp"))
    {
        return Ok((parse(place)?, Some("ICMP".to_owned())));
    }
    // Addresses of IPv6 stand in brackets where a port follows.
    if let Some((address, rest)) = text.strip_prefix('[').and_then(|text| text.split_once(']')) {
        let port = rest.strip_prefix(':').map(str::to_owned);
        return Ok((parse(address)?, port));
    }
    if text.parse::<IpAddr>().is_ok() {
        return Ok((parse(text)?, None));
    }
    let (kind, rest) = ["svc:", "service:", "node:", "pod:"]
        .iter()
        .find(|kind| text.starts_with(**kind))
        .map_or(("", text), |kind| text.split_at(kind.len()));
    let (name, port) = match rest.rsplit_once(':') {
        Some((name, port)) => (name, Some(port.to_owned())),
        None => (rest, None),
    };
    Ok((parse(&format!("{kind}{name}"))?, port))
}

/// `NS:POD`, `NS/POD` or `POD` as `NS/POD`.
pub(in crate::command) fn pod(text: &str) -> String {
    if text.contains('/') {
        text.to_owned()
    } else if text.contains(':') {
        text.replacen(':', "/", 1)
    } else {
        format!("default/{text}")
    }
}

/// A file's text; `-`: what comes in.
pub(in crate::command) fn read(file: &Path) -> Result<String, CliError> {
    let read = if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(file)
    };
    read.map_err(|error| {
        let message = format!("cannot read {}: {error}", file.display());
        CliError::typed(
            message,
            "give the path of a manifest, or - for standard input",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, place: Place, port: Option<&str>) {
        let parsed = parse_target(text).unwrap();
        assert_eq!(parsed, (place, port.map(str::to_owned)), "{text}");
    }

    #[test]
    fn places_have_many_names() {
        let pod = |name: &str| Place::Pod(name.to_owned());
        check("shop/web", pod("shop/web"), None);
        check("shop/web:80", pod("shop/web"), Some("80"));
        check("shop/web:53/UDP", pod("shop/web"), Some("53/UDP"));
        check("web:http", pod("default/web"), Some("http"));
        check("shop/web/ICMP", pod("shop/web"), Some("ICMP"));
        let service = Place::Service("shop/web".to_owned());
        check("svc:shop/web", service.clone(), None);
        check("svc:shop/web:80/TCP", service, Some("80/TCP"));
        check("node:n1:30080", Place::Node("n1".to_owned()), Some("30080"));
        check("world", Place::World, None);
        check("world:443", Place::World, Some("443"));
        let v4 = Place::Address("10.8.0.1".parse().unwrap());
        check("10.8.0.1:80", v4.clone(), Some("80"));
        check("10.8.0.1", v4, None);
        let v6 = Place::Address("fd00::1".parse().unwrap());
        check("[fd00::1]:80", v6.clone(), Some("80"));
        check("fd00::1", v6, None);
        assert_eq!(parse("shop:cli").unwrap(), pod("shop/cli"));
        assert!(parse("").is_err());
    }
}
