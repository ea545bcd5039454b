// SPDX-License-Identifier: Apache-2.0
//! How people name an endpoint.

use crate::error::CliError;
use std::net::IpAddr;
use std::str::FromStr;

/// An endpoint's name as the agent takes it: an id, `ns/pod`, `ipv4:…` and so on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Reference(String);

impl Reference {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Reference {
    type Err = CliError;

    /// A list of one is as good as the one: `[412]` is what the well-known line of Python prints.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match list(&[text.to_owned()])?.as_slice() {
            [only] => Ok(only.clone()),
            many => Err(CliError::typed(
                format!("one endpoint expected, {} given", many.len()),
                "give one id or NAMESPACE/POD",
            )),
        }
    }
}

/// All endpoints of the words of a command line: `1 2`, `[1, 2]`, `[1,2]`, `shop/web`.
pub(crate) fn list(words: &[String]) -> Result<Vec<Reference>, CliError> {
    let text = words.join(" ");
    let inner = text
        .trim()
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(&text);
    let references = inner
        .split(|c: char| c == ',' || c.is_whitespace())
        .map(|word| word.trim_matches(['\'', '"']))
        .filter(|word| !word.is_empty())
        .map(one)
        .collect::<Result<Vec<_>, _>>()?;
    if references.is_empty() {
        return Err(CliError::missing(
            format!("`{text}` names no endpoint"),
            "nothing matched, perhaps the pod is on another node: see `weir endpoint list`",
        ));
    }
    Ok(references)
}

fn one(word: &str) -> Result<Reference, CliError> {
    let wrong = || {
        CliError::typed(
            format!("`{word}` is no endpoint"),
            "give an id, NAMESPACE/POD, pod-name:NAMESPACE:POD, ipv4:IP, ipv6:IP or container-id:ID",
        )
    };
    if word.parse::<u16>().is_ok() {
        return Ok(Reference(word.to_owned()));
    }
    if let Ok(address) = word.parse::<IpAddr>() {
        let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
        return Ok(Reference(format!("{family}:{address}")));
    }
    match word.split_once(':') {
        Some(("cilium-local", id)) => id
            .parse::<u16>()
            .map(|id| Reference(id.to_string()))
            .map_err(|_| wrong()),
        // Each pod has one endpoint object of its own name.
        Some(("pod-name" | "cep-name", name)) => {
            let (namespace, pod) = name
                .split_once([':', '/'])
                .filter(|(namespace, pod)| !namespace.is_empty() && !pod.is_empty())
                .ok_or_else(wrong)?;
            Ok(Reference(format!("{namespace}/{pod}")))
        }
        Some((kind @ ("ipv4" | "ipv6"), address)) => {
            let address: IpAddr = address.parse().map_err(|_| wrong())?;
            if address.is_ipv4() == (kind == "ipv4") {
                Ok(Reference(format!("{kind}:{address}")))
            } else {
                Err(wrong())
            }
        }
        Some(("container-id", id)) if !id.is_empty() => Ok(Reference(word.to_owned())),
        Some(_) => Err(wrong()),
        None => match word.split_once('/') {
            Some((namespace, pod))
                if !namespace.is_empty() && !pod.is_empty() && !pod.contains('/') =>
            {
                Ok(Reference(word.to_owned()))
            }
            _ => Err(wrong()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(words: &[&str], expected: &[&str]) {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let found = list(&words).unwrap();
        let found: Vec<&str> = found.iter().map(Reference::as_str).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn every_way_to_name_endpoints_is_understood() {
        check(&["123"], &["123"]);
        check(&["[123]"], &["123"]);
        check(&["[1, 2]"], &["1", "2"]);
        check(&["[1,", "2]"], &["1", "2"]);
        check(&["[1,2]"], &["1", "2"]);
        check(&["1", "2"], &["1", "2"]);
        check(&["['shop/web-0']"], &["shop/web-0"]);
        check(&["shop/web-0"], &["shop/web-0"]);
        check(&["pod-name:shop:web-0"], &["shop/web-0"]);
        check(&["cilium-local:7"], &["7"]);
        check(&["ipv4:10.0.0.1"], &["ipv4:10.0.0.1"]);
        check(&["10.0.0.1"], &["ipv4:10.0.0.1"]);
        check(&["fd00::1"], &["ipv6:fd00::1"]);
        check(&["container-id:abc"], &["container-id:abc"]);
    }

    #[test]
    fn nonsense_has_a_hint() {
        for text in [
            "[]",
            "",
            "web",
            "70000",
            "-1",
            "/",
            "a/",
            "ipv4:fd00::1",
            "pod-name:x",
            "foo:bar",
            "[1, x]",
            "a/b/c",
        ] {
            let error = list(&[text.to_owned()]).unwrap_err();
            assert!(error.hint().is_some(), "{text}: {error}");
        }
        assert!("[1, 2]".parse::<Reference>().is_err());
    }
}
