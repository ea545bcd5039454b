// SPDX-License-Identifier: Apache-2.0
//! Who is who in a cluster: the certificates of its servers, a token for each user, and kubeconfigs that carry them.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::place::{API_SERVER, CONTROL_PLANE, Node, Place};
use super::processes::run;
use crate::process::{command, stdout_of};

/// Names and addresses by which the API server is called: the last two are its service.
const NAMES: &str = "DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,\
                     DNS:kubernetes.default.svc.cluster.local,IP:127.0.0.1,IP:10.96.0.1,IP:fd00:96::1";

/// Writes keys, tokens and kubeconfigs. The groups of the users are those that the API server's own rules speak of.
pub(super) fn write(place: &Place, nodes: u8) -> Result<()> {
    write_certificates(&place.keys())?;
    let mut users = vec![
        ("admin".to_owned(), "admin".to_owned(), "system:masters"),
        (
            "controller-manager".to_owned(),
            "system:kube-controller-manager".to_owned(),
            "",
        ),
        (
            "scheduler".to_owned(),
            "system:kube-scheduler".to_owned(),
            "",
        ),
    ];
    users.extend(Node::all(nodes).map(|node| {
        (
            node.to_string(),
            format!("system:node:{node}"),
            "system:nodes",
        )
    }));
    // Within the file: nodes have file systems of their own.
    let authority = stdout_of(
        command("openssl")
            .args(["base64", "-A", "-in", "ca.crt"])
            .current_dir(place.keys()),
    )?;
    let mut tokens = String::new();
    for (file, user, groups) in &users {
        let token = random_token()?;
        let _ = writeln!(tokens, "{token},{user},{user},\"{groups}\"");
        let path = place.kubeconfig(file);
        fs::write(&path, kubeconfig(authority.trim_end(), &token))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    fs::write(place.keys().join("tokens.csv"), tokens).context("cannot write the tokens")
}

fn write_certificates(keys: &Path) -> Result<()> {
    let openssl = |arguments: &str| -> Result<()> {
        run(command("openssl")
            .args(arguments.split_whitespace())
            .current_dir(keys))
    };
    let curve = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -days 3650";
    openssl(&format!(
        "req -x509 {curve} -subj /CN=kubernetes -keyout ca.key -out ca.crt"
    ))?;
    openssl(&format!(
        "req -x509 {curve} -subj /CN=kube-apiserver -keyout api.key -out api.crt -CA ca.crt -CAkey ca.key \
         -addext basicConstraints=critical,CA:FALSE -addext subjectAltName={NAMES},IP:{},IP:{}",
        CONTROL_PLANE.v4, CONTROL_PLANE.v6
    ))?;
    // Requests that the API server hands on to other servers carry this one.
    openssl(&format!(
        "req -x509 {curve} -subj /CN=front-proxy -keyout proxy.key -out proxy.crt"
    ))?;
    openssl("genrsa -out accounts.key 2048")?;
    openssl("rsa -in accounts.key -pubout -out accounts.pub")
}

fn random_token() -> Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .context("cannot read random bytes")?;
    Ok(format!("{:032x}", u128::from_ne_bytes(bytes)))
}

fn kubeconfig(authority: &str, token: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: cluster\n\
         clusters: [{{name: cluster, cluster: {{server: \"{API_SERVER}\", certificate-authority-data: {authority}}}}}]\n\
         users: [{{name: user, user: {{token: \"{token}\"}}}}]\n\
         contexts: [{{name: cluster, context: {{cluster: cluster, user: user}}}}]\n"
    )
}
