// SPDX-License-Identifier: Apache-2.0
//! `service`: what answers at which address, and who is behind it.

use super::{Context, Outcome};
use crate::error::CliError;
use crate::output::{Format, Output, Table};
use crate::text::{count, socket};
use std::net::SocketAddr;
use weir_api::path;
use weir_api::service::{BackendAddress, Service, ServicesCompared};

/// Shows services with their backends, and puts their rows right
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Lists all frontends with their backends
    #[command(after_help = "Examples:\n  \
        weir service list\n  \
        weir service list | grep shop/web\n  \
        weir service list -o jsonpath='{[?(@.spec.flags.name==\"web\")].spec.id}'")]
    List {
        /// Taken so that scripts run
        #[arg(long, hide = true)]
        clustermesh_affinity: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Shows one frontend, or all frontends of a service
    #[command(after_help = "Examples:\n  \
        weir service get 7\n  \
        weir service get shop/web\n  \
        weir service get 10.96.0.9:80\n  \
        weir service get 7 -o json")]
    Get {
        /// Its id, NAMESPACE/NAME or ADDRESS:PORT
        #[arg(value_name = "SERVICE")]
        service: String,
        #[command(flatten)]
        output: Output,
    },
    /// Compares the rows of all services with the kernel, and repairs what differs
    ///
    /// Exit status 1 when a row could not be repaired.
    #[command(after_help = "Examples:\n  weir service update")]
    Update {
        /// Services come from the cluster's objects: refused
        #[arg(value_name = "CHANGE", hide = true, num_args = 0.., trailing_var_arg = true, allow_hyphen_values = true)]
        changes: Vec<String>,
        #[command(flatten)]
        output: Output,
    },
}

pub(super) fn run(args: Args, context: &mut Context) -> Result<Outcome, CliError> {
    match args.command {
        Command::List {
            clustermesh_affinity: _,
            output,
        } => {
            let services = all(context)?;
            context.emit(&output.format, &services, |services| list(services))?;
            Ok(Outcome::Fine)
        }
        Command::Get { service, output } => get(context, &service, &output.format),
        Command::Update { changes, output } => {
            if let Some(change) = changes.first() {
                return Err(CliError::typed(
                    format!("`{change}`: services are made from Service and EndpointSlice objects"),
                    "change these objects; `weir service update` alone compares all rows with the kernel and repairs them",
                ));
            }
            let found: ServicesCompared = context.client.post(path::SERVICES_COMPARE)?;
            context.emit(&output.format, &found, compared)?;
            Ok(Outcome::problem_if(!found.failed.is_empty()))
        }
    }
}

fn all(context: &Context) -> Result<Vec<Service>, CliError> {
    let services = context.client.stream::<Service>(path::SERVICES)?;
    Ok(services.collect::<Result<_, _>>()?)
}

fn get(context: &mut Context, wanted: &str, format: &Format) -> Result<Outcome, CliError> {
    let mut found = all(context)?;
    found.retain(|service| is_meant(service, wanted));
    if found.is_empty() {
        return Err(CliError::missing(
            format!("there is no service {wanted}"),
            "give an id, NAMESPACE/NAME or ADDRESS:PORT; `weir service list` shows all of them",
        ));
    }
    context.emit(format, &found, |found| {
        let details = found.iter().flat_map(details);
        list(found).into_iter().chain(details).collect()
    })?;
    Ok(Outcome::Fine)
}

fn is_meant(service: &Service, wanted: &str) -> bool {
    let spec = &service.spec;
    if let Ok(id) = wanted.parse::<u32>() {
        return spec.id == id;
    }
    let frontend = &spec.frontend_address;
    if let Ok(address) = wanted.parse::<SocketAddr>() {
        return frontend.ip == address.ip().to_string() && frontend.port == address.port();
    }
    name(service) == wanted || named_port(service) == wanted || frontend.ip == wanted
}

fn name(service: &Service) -> String {
    let flags = &service.spec.flags;
    format!("{}/{}", flags.namespace, flags.name)
}

/// `shop/web:http`, or `shop/web` where the port has no name.
fn named_port(service: &Service) -> String {
    let port = &service.spec.flags.port_name;
    if port.is_empty() {
        name(service)
    } else {
        format!("{}:{port}", name(service))
    }
}

/// The peers' columns; the name stands in every line, so that `grep` finds the backends too.
fn list(services: &[Service]) -> Vec<String> {
    let mut table = Table::new(["ID", "Frontend", "Service Type", "Backend", "Name", "Pod"]);
    for service in services {
        let spec = &service.spec;
        let frontend = &spec.frontend_address;
        let head = [
            spec.id.to_string(),
            format!(
                "{}/{}",
                socket(&frontend.ip, frontend.port),
                frontend.protocol
            ),
            spec.flags.kind.clone(),
        ];
        let name = named_port(service);
        let nothing = [String::new(), String::new(), String::new()];
        let mut lines: Vec<[String; 2]> = spec
            .backend_addresses
            .iter()
            .enumerate()
            .map(|(place, backend)| {
                [
                    line(place + 1, backend, &spec.flags.kind),
                    backend.pod_name.clone(),
                ]
            })
            .collect();
        if let Some(why) = missing(service) {
            lines.push([why, String::new()]);
        }
        if lines.is_empty() {
            lines.push([String::new(), String::new()]);
        }
        for (number, [backend, pod]) in lines.into_iter().enumerate() {
            let [id, frontend, kind] = if number == 0 { &head } else { &nothing };
            table.row([
                id.clone(),
                frontend.clone(),
                kind.clone(),
                backend,
                name.clone(),
                pod,
            ]);
        }
    }
    table.lines()
}

/// Why nobody answers, in the words that people search for.
fn missing(service: &Service) -> Option<String> {
    let status = &service.status;
    match (&status.no_backend, &status.no_external_backend) {
        (Some(why), _) => Some(format!("no healthy backend: {why}")),
        (None, Some(why)) => Some(format!("no backend from outside: {why}")),
        (None, None) => None,
    }
}

/// `1 => 10.8.3.41:8080/TCP (active)`
fn line(place: usize, backend: &BackendAddress, kind: &str) -> String {
    let mut about = vec![backend.state.as_str()];
    // Nobody reaches a cluster IP from outside.
    let external = match kind {
        "ClusterIP" => backend.internal,
        _ => backend.external,
    };
    match (backend.internal, external) {
        (true, false) => about.push("inside only"),
        (false, true) => about.push("outside only"),
        (false, false) if backend.state == "active" => about.push("not used"),
        (true, true) | (false, false) => {}
    }
    format!(
        "{place} => {}/{} ({})",
        socket(&backend.ip, backend.port),
        backend.protocol,
        about.join(", ")
    )
}

/// What does not fit into the list.
fn details(service: &Service) -> Vec<String> {
    let flags = &service.spec.flags;
    let mut lines = vec![format!(
        "{}: external traffic {}, internal traffic {}",
        service.spec.id, flags.ext_traffic_policy, flags.int_traffic_policy
    )];
    if flags.affinity_timeout > 0 {
        lines.push(format!(
            "  clients stick to their backend for {} s",
            flags.affinity_timeout
        ));
    }
    if !flags.source_ranges.is_empty() {
        lines.push(format!("  only from {}", flags.source_ranges.join(", ")));
    }
    if let Some(port) = flags.health_check_node_port {
        lines.push(format!("  health check at port {port} of the node"));
    }
    if !service.status.realized {
        lines.push("  not realized in the kernel".to_owned());
    }
    lines
}

fn compared(found: &ServicesCompared) -> Vec<String> {
    let ServicesCompared {
        services,
        frontends,
        backends,
        rows,
        repaired,
        failed,
        took_ms,
    } = found;
    let mut lines = vec![format!(
        "{}, {}, {}: {} compared with the kernel in {took_ms} ms",
        count(*services, "service"),
        count(*frontends, "frontend"),
        count(*backends, "backend"),
        count(*rows, "row"),
    )];
    if repaired.is_empty() && failed.is_empty() {
        lines.push("nothing differed".to_owned());
    }
    if !repaired.is_empty() {
        let differences = count(repaired.len() as u64, "difference");
        lines.push(format!("{differences} repaired:"));
        lines.extend(repaired.iter().map(|what| format!("- {what}")));
    }
    if !failed.is_empty() {
        let rows = count(failed.len() as u64, "row");
        lines.push(format!("{rows} refused by the kernel:"));
        lines.extend(failed.iter().map(|what| format!("- {what}")));
    }
    lines
}
