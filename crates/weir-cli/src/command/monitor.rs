// SPDX-License-Identifier: Apache-2.0
//! `monitor`: what happens to packets, as it happens.

use super::{Context, Outcome};
use crate::error::CliError;
use crate::output::{Format, Output, render, style, talk};
use std::time::{Duration, Instant};
use weir_api::event::Event;
use weir_api::{Client, ClientError, path};
use weir_observe::Filter;
use weir_observe::filter::{Subject, TypeFilter};
use weir_observe::line::{self, Style};

/// Shows drops, forwarded packets and what the agent does, as it happens
///
/// Every drop has its reason in words and as the name that flow exports use, and a hint that says
/// what to do. Forwarded packets of a connection are shown when it begins, when it ends and now
/// and then; drops always. Where events were lost, a line says how many.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    weir monitor --type drop\n  \
    weir monitor --type drop:POLICY_DENIED --type agent\n  \
    weir monitor --from-endpoint 412\n  \
    weir monitor --related-to 10.244.1.7\n  \
    weir monitor --related-to shop/web-0 -v\n  \
    weir monitor --to 10.244.0.0/16 -j")]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent switches of a command line"
)]
pub(crate) struct Args {
    /// Only these types: drop, trace, policy-verdict or agent; drop:REASON and trace:POINT narrow
    #[arg(short = 't', long = "type", value_name = "TYPE", value_delimiter = ',')]
    types: Vec<TypeFilter>,
    /// Only packets from this endpoint id, IP, CIDR, IP:PORT or NAMESPACE/POD
    #[arg(
        long,
        alias = "from-endpoint",
        value_name = "WHO",
        value_delimiter = ','
    )]
    from: Vec<Subject>,
    /// Only packets to it
    #[arg(long, alias = "to-endpoint", value_name = "WHO", value_delimiter = ',')]
    to: Vec<Subject>,
    /// Only packets from or to it
    #[arg(long, value_name = "WHO", value_delimiter = ',')]
    related_to: Vec<Subject>,
    /// Show each layer of the packet
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Show the packet's first bytes
    #[arg(long)]
    hex: bool,
    /// One JSON object for each event
    #[arg(short = 'j', long)]
    json: bool,
    /// Numbers only, no names
    #[arg(short = 'n', long)]
    numeric: bool,
    /// Begin each line with the time
    #[arg(short = 'T', long)]
    time: bool,
    /// Stop after so many events
    #[arg(short = 'c', long, value_name = "NUMBER")]
    count: Option<u64>,
    #[command(flatten)]
    output: Output,
}

/// What the switches mean.
struct Request {
    filter: Filter,
    style: Style,
    format: Format,
    count: u64,
}

impl From<Args> for Request {
    fn from(args: Args) -> Self {
        Self {
            filter: Filter {
                types: args.types,
                from: args.from,
                to: args.to,
                related_to: args.related_to,
            },
            style: Style {
                numeric: args.numeric,
                verbose: args.verbose > 0,
                hex: args.hex || args.verbose > 1,
                time: args.time,
            },
            format: if args.json {
                Format::Json
            } else {
                args.output.format
            },
            count: args.count.unwrap_or(u64::MAX),
        }
    }
}

/// How long an agent that restarts is waited for.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks whether it is back.
const PAUSE: Duration = Duration::from_millis(200);

pub(super) fn run(args: Args, context: &mut Context) -> Result<Outcome, CliError> {
    let request = Request::from(args);
    let mut events = listen(&context.client)?;
    if request.format == Format::Table {
        let socket = context.client.socket().display();
        talk(
            "",
            style::HINT,
            format_args!("Listening for events from {socket}"),
        );
        talk("", style::HINT, "Press Ctrl-C to quit");
    }
    let mut left = request.count;
    while follow(context, &request, events, &mut left)? {
        talk("note", style::HINT, "the agent went away, waiting for it");
        events = reconnect(&context.client)?;
        talk(
            "note",
            style::HINT,
            "the agent is back; what happened meanwhile is not shown",
        );
    }
    Ok(Outcome::Fine)
}

/// The events of one connection.
type Events = Box<dyn Iterator<Item = Result<Event, ClientError>>>;

fn listen(client: &Client) -> Result<Events, ClientError> {
    Ok(Box::new(client.stream(path::EVENTS)?))
}

/// Prints events until enough were printed (the answer is false) or the agent is gone.
fn follow(
    context: &mut Context,
    request: &Request,
    events: Events,
    left: &mut u64,
) -> Result<bool, CliError> {
    if *left == 0 {
        return Ok(false);
    }
    for event in events {
        let event = match event {
            Ok(event) => event,
            Err(ClientError::Io { .. }) => return Ok(true),
            Err(error) => return Err(error.into()),
        };
        if !request.filter.matches(&event) {
            continue;
        }
        for line in lines(&event, request)? {
            context.printer.line(line)?;
        }
        // Each event is seen when it happens, also through a pipe.
        context.printer.flush()?;
        *left -= 1;
        if *left == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A restart of the agent, which is when people look most closely, must not end what they look at.
fn reconnect(client: &Client) -> Result<Events, CliError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        pause();
        match listen(client) {
            Ok(events) => return Ok(events),
            Err(_) if Instant::now() < deadline => {}
            Err(_) => return Err(CliError::StreamEnded),
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "nothing tells that a socket is served again; the wait around this has a deadline"
)]
fn pause() {
    std::thread::sleep(PAUSE);
}

fn lines(event: &Event, request: &Request) -> Result<Vec<String>, CliError> {
    match &request.format {
        Format::Table => Ok(line::format(event, request.style)
            .into_iter()
            .map(coloured)
            .collect()),
        Format::Yaml => Ok(vec![
            "---".to_owned(),
            render(&request.format, event, true)?,
        ]),
        Format::Json | Format::JsonPath(_) => Ok(vec![render(&request.format, event, true)?]),
    }
}

fn coloured(line: String) -> String {
    if line.contains("xx drop (") || line.contains("!! ") {
        style::paint(style::BAD, &line)
    } else if line.starts_with("   hint: ") {
        style::paint(style::HINT, &line)
    } else {
        line
    }
}
