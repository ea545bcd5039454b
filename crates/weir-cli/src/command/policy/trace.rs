// SPDX-License-Identifier: Apache-2.0
//! `policy trace`: may these two talk, and who says so?

use crate::command::trace::{Suppositions, ask, pod, policies, read};
use crate::command::{Context, Outcome};
use crate::error::CliError;
use crate::output::Output;
use std::net::IpAddr;
use std::path::PathBuf;
use weir_api::trace::Place;

/// Shows whether policies allow a connection, and which rule decides
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    destination: Destination,
    /// PORT, PORT/PROTOCOL, a port's name, or ICMP [default: the first that the destination declares]
    #[arg(long, value_name = "PORT[/PROTO]", value_delimiter = ',')]
    dport: Vec<String>,
    /// Also every program, look-up and translation
    #[arg(short, long)]
    verbose: bool,
    #[command(flatten)]
    suppositions: Suppositions,
    #[command(flatten)]
    output: Output,
}

/// Exactly one of these.
#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct Source {
    /// Some pod with these labels (k8s:KEY=VALUE), or reserved:host, reserved:world
    #[arg(short = 's', long, value_name = "LABELS", value_delimiter = ',')]
    src: Option<Vec<String>>,
    /// A pod as NAMESPACE:POD
    #[arg(long, value_name = "NS:POD")]
    src_k8s_pod: Option<String>,
    /// A pod, or something with a pod template, that need not exist
    #[arg(long, value_name = "FILE")]
    src_k8s_yaml: Option<PathBuf>,
    /// Some pod with this identity
    #[arg(long, value_name = "IDENTITY")]
    src_identity: Option<u32>,
    /// An endpoint of this node
    #[arg(long, value_name = "ENDPOINT")]
    src_endpoint: Option<u16>,
    /// Whoever has this address
    #[arg(long, value_name = "ADDRESS")]
    src_ip: Option<IpAddr>,
}

/// Exactly one of these.
#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct Destination {
    /// Some pod with these labels (k8s:KEY=VALUE), or reserved:host, reserved:world
    #[arg(short = 'd', long, value_name = "LABELS", value_delimiter = ',')]
    dst: Option<Vec<String>>,
    /// A pod as NAMESPACE:POD
    #[arg(long, value_name = "NS:POD")]
    dst_k8s_pod: Option<String>,
    /// A pod, or something with a pod template, that need not exist
    #[arg(long, value_name = "FILE")]
    dst_k8s_yaml: Option<PathBuf>,
    /// Some pod with this identity
    #[arg(long, value_name = "IDENTITY")]
    dst_identity: Option<u32>,
    /// An endpoint of this node
    #[arg(long, value_name = "ENDPOINT")]
    dst_endpoint: Option<u16>,
    /// Whoever has this address
    #[arg(long, value_name = "ADDRESS")]
    dst_ip: Option<IpAddr>,
    /// A service, by the address that its clients use
    #[arg(long, value_name = "NS/NAME")]
    dst_service: Option<String>,
}

pub(super) fn run(args: &Args, context: &mut Context) -> Result<Outcome, CliError> {
    let Source {
        src,
        src_k8s_pod,
        src_k8s_yaml,
        src_identity,
        src_endpoint,
        src_ip,
    } = &args.source;
    let source = Named {
        labels: src,
        pod: src_k8s_pod,
        yaml: src_k8s_yaml,
        identity: *src_identity,
        endpoint: *src_endpoint,
        address: *src_ip,
        service: &None,
    };
    let Destination {
        dst,
        dst_k8s_pod,
        dst_k8s_yaml,
        dst_identity,
        dst_endpoint,
        dst_ip,
        dst_service,
    } = &args.destination;
    let destination = Named {
        labels: dst,
        pod: dst_k8s_pod,
        yaml: dst_k8s_yaml,
        identity: *dst_identity,
        endpoint: *dst_endpoint,
        address: *dst_ip,
        service: dst_service,
    };
    let (source, destination) = (source.place()?, destination.place()?);
    let ports = args.dport.clone();
    let question = args.suppositions.question(source, destination, ports)?;
    let answer = ask(context, &question)?;
    context.emit(&args.output.format, &answer, |answer| {
        let traces = answer.traces();
        traces
            .flat_map(|trace| policies(trace, args.verbose))
            .collect()
    })?;
    Ok(answer.outcome())
}

/// One end as it was typed.
struct Named<'a> {
    labels: &'a Option<Vec<String>>,
    pod: &'a Option<String>,
    yaml: &'a Option<PathBuf>,
    identity: Option<u32>,
    endpoint: Option<u16>,
    address: Option<IpAddr>,
    service: &'a Option<String>,
}

impl Named<'_> {
    fn place(&self) -> Result<Place, CliError> {
        if let Some(file) = self.yaml {
            return Ok(Place::Manifest(read(file)?));
        }
        let plain = None
            .or_else(|| self.labels.clone().map(Place::Labels))
            .or_else(|| self.pod.as_deref().map(|name| Place::Pod(pod(name))))
            .or_else(|| self.identity.map(Place::Identity))
            .or_else(|| self.endpoint.map(Place::Endpoint))
            .or_else(|| self.address.map(Place::Address))
            .or_else(|| {
                self.service
                    .as_deref()
                    .map(|name| Place::Service(pod(name)))
            });
        plain.ok_or_else(|| {
            let hint = "name each end once, for example by --src-k8s-pod and --dst-k8s-pod";
            CliError::typed("an end is missing", hint)
        })
    }
}
