// SPDX-License-Identifier: Apache-2.0
//! `probe`, `transfer` and `traffic`: JSON out, exit code 0 when everything got through, 1 when something did not,
//! 2 when a probe could not be run at all.

use std::{fs, io::Read, process::ExitCode, time::Duration};

use anyhow::{Context, Result};

use super::{client, output::data};
use crate::{
    args::{Probe, Traffic, TransferArgs},
    place::Place,
    protocol::{Flows, Outcome, ProbeAnswer, ProbeRequest, Request},
};

pub(crate) fn probe(place: &Place, probe: &Probe) -> Result<ExitCode> {
    let requests = match &probe.batch {
        Some(file) => read_batch(file)?,
        None => vec![ProbeRequest {
            port: probe.port,
            protocol: probe.protocol,
            family: probe.family,
            source_port: probe.source_port,
            size: probe.size,
            serve: probe.serve,
            http: probe.http.clone(),
            unconnected: probe.unconnected,
            count: probe.count,
            interval_ms: probe.interval.map(milliseconds),
            keep: probe.keep,
            until: probe.until.clone(),
            ..ProbeRequest::new(
                probe.from.as_deref().unwrap_or_default(),
                probe.to.as_deref().unwrap_or_default(),
                milliseconds(probe.timeout),
            )
        }],
    };
    let mut code = 0;
    client::ask(place, &Request::Probe { requests }, |answer| {
        data(format_args!("{answer}"))?;
        let answer: ProbeAnswer = serde_json::from_value(answer)?;
        // Without an address it did not come to sending anything.
        let could_not_run = answer.outcome == Outcome::Error && answer.address.is_none();
        code = code.max(if could_not_run {
            2
        } else {
            u8::from(!answer.allowed)
        });
        Ok(())
    })?;
    Ok(ExitCode::from(code))
}

fn read_batch(file: &std::path::Path) -> Result<Vec<ProbeRequest>> {
    let name = file.display();
    let text = if file.as_os_str() == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        fs::read_to_string(file)
    };
    let text = text.with_context(|| format!("cannot read {name}"))?;
    text.lines()
        .zip(1..)
        .filter(|(line, _)| !line.trim().is_empty())
        .map(|(line, number)| {
            serde_json::from_str(line).with_context(|| format!("line {number} of {name}"))
        })
        .collect()
}

pub(crate) fn transfer(place: &Place, args: &TransferArgs) -> Result<()> {
    let request = Request::Transfer {
        request: request(
            &args.from,
            &args.to,
            args.port,
            args.family,
            args.timeout,
            args.serve,
        ),
        transfer: args.transfer(),
    };
    data(format_args!("{}", client::ask_one(place, &request)?))
}

pub(crate) fn traffic(place: &Place, args: &Traffic) -> Result<ExitCode> {
    let limit = Duration::from_secs(30);
    let request = Request::Traffic {
        request: request(
            &args.from,
            &args.to,
            args.port,
            args.family,
            limit,
            args.serve,
        ),
        flows: Flows {
            tcp: args.tcp,
            udp: args.udp,
            duration_ms: milliseconds(args.duration),
            pause_us: u64::try_from(args.pause.as_micros())?,
            size: args.size,
        },
    };
    let answer = client::ask_one(place, &request)?;
    data(format_args!("{answer}"))?;
    let bad = |protocol: &str| answer[protocol]["broken"] != 0 || answer[protocol]["lost"] != 0;
    Ok(ExitCode::from(u8::from(bad("tcp") || bad("udp"))))
}

fn request(
    from: &str,
    to: &str,
    port: u16,
    family: Option<u8>,
    timeout: Duration,
    serve: bool,
) -> ProbeRequest {
    ProbeRequest {
        port: Some(port),
        family,
        serve,
        ..ProbeRequest::new(from, to, milliseconds(timeout))
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
