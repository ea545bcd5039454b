// SPDX-License-Identifier: Apache-2.0
//! `up`: everything is read and checked before anything is made, and what was made goes again when it fails.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::net::UnixStream,
    process::Stdio,
};

use anyhow::{Context, Result, bail};

use super::{client, milliseconds, output::talk, read_manifests};
use crate::{
    args::Up,
    command,
    config::{Dataplane, LabConfig},
    object::Object,
    place::Place,
    protocol::Request,
};

pub(crate) fn up(place: &Place, up: &Up) -> Result<()> {
    let mut config = match &up.config {
        Some(file) => {
            let name = file.display();
            let text = fs::read_to_string(file).with_context(|| format!("cannot read {name}"))?;
            LabConfig::parse(&text).with_context(|| format!("in {name}"))?
        }
        None => LabConfig::default(),
    };
    if let Some(dataplane) = up.dataplane {
        config.dataplane = dataplane;
    } else if up.no_agents {
        config.dataplane = Dataplane::KernelRouting;
    }
    let objects = read_manifests(&up.filenames)?;
    let nodes: Vec<&Object> = objects
        .iter()
        .filter(|object| object.kind() == "Node")
        .collect();
    let topology = config.resolve(up.nodes, &nodes)?;
    if !nix::unistd::geteuid().is_root() {
        bail!("a lab makes network namespaces, which takes root (hint: sudo weir lab up …)");
    }
    if UnixStream::connect(place.socket()).is_ok() {
        let name = place.name();
        bail!("lab {name} is up already (hint: weir lab down --name {name})");
    }
    // What a lab that crashed has left behind.
    if place.remove()? {
        talk(format_args!(
            "removed what an earlier lab {} had left",
            place.name()
        ));
    }
    let request = Request::Up {
        topology: Box::new(topology),
        objects,
        wait: milliseconds(&up.waiting),
    };
    let built = start_daemon(place).and_then(|()| client::call(place, &request));
    if let Err(error) = built {
        // Pods that are not ready are something to look at; a lab that could not be built is not.
        let is_built = client::ask_one(
            place,
            &Request::Get {
                kind: "Node".to_owned(),
                namespace: None,
                name: None,
            },
        );
        if is_built.is_ok() {
            return Err(error.context(format!(
                "lab {} is up, but not everything is as it should be",
                place.name()
            )));
        }
        let log = fs::read_to_string(place.daemon_log()).unwrap_or_default();
        for line in log
            .lines()
            .rev()
            .take(20)
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
        {
            talk(format_args!("{line}"));
        }
        place.remove()?;
        return Err(error.context("the lab could not be built"));
    }
    talk(format_args!("lab {} is up", place.name()));
    Ok(())
}

fn start_daemon(place: &Place) -> Result<()> {
    fs::create_dir_all(place.folder())
        .with_context(|| format!("cannot make {}", place.folder().display()))?;
    let log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(place.daemon_log())?;
    let mut daemon = command("/proc/self/exe")
        .args(["lab", "daemon", "--name", place.name()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .current_dir("/")
        .spawn()
        .context("cannot start the daemon")?;
    let mut word = String::new();
    if let Some(output) = daemon.stdout.take() {
        BufReader::new(output).read_line(&mut word)?;
    }
    if word.trim() != "ready" {
        bail!("the daemon does not start");
    }
    Ok(())
}
