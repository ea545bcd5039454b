// SPDX-License-Identifier: Apache-2.0
//! The verbs of `weir lab`: what happens in the process that the user started.

mod client;
mod down;
mod inside;
mod output;
mod probe;
mod up;

use std::{fs, io::Read, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};

use crate::{
    args::{Args, Manifests, Verb, Waiting},
    object::Object,
    place::Place,
    protocol::{AgentAction, Request},
};

/// Runs a verb.
pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let place = Place::of(&args.name)?;
    let done = |result: Result<()>| result.map(|()| ExitCode::SUCCESS);
    match args.verb {
        Verb::Up(up) => done(up::up(&place, &up)),
        Verb::Apply(manifests) => done(apply(&place, &manifests, |objects, wait| Request::Apply {
            objects,
            wait,
        })),
        Verb::Delete(delete) => done(apply(&place, &delete.manifests, |objects, wait| {
            Request::Delete {
                objects,
                wait,
                grace: delete.grace_period,
            }
        })),
        Verb::Get(get) => done(output::get(&place, &get)),
        Verb::Exec(exec) => inside::run(&place, &exec.pod, &exec.command),
        Verb::Node(node) => inside::run(&place, &format!("node:{}", node.node), &node.command),
        Verb::World(world) => {
            let reference = world
                .external
                .map_or("world".to_owned(), |name| format!("external:{name}"));
            inside::run(&place, &reference, &world.command)
        }
        Verb::Underlay(underlay) => inside::run(&place, "underlay", &underlay.command),
        Verb::Probe(probe) => probe::probe(&place, &probe),
        Verb::Transfer(args) => done(probe::transfer(&place, &args)),
        Verb::Traffic(args) => probe::traffic(&place, &args),
        Verb::RestartAgent(agent) => {
            let action = if agent.kill {
                AgentAction::Kill
            } else {
                AgentAction::Restart
            };
            done(client::call(
                &place,
                &Request::Agent {
                    node: agent.node,
                    action,
                },
            ))
        }
        Verb::StopAgent(agent) => {
            let request = Request::Agent {
                node: agent.node,
                action: AgentAction::Stop,
            };
            done(client::call(&place, &request))
        }
        Verb::StartAgent(agent) => {
            let request = Request::Agent {
                node: agent.node,
                action: AgentAction::Start,
            };
            done(client::call(&place, &request))
        }
        Verb::Down(down) => done(down::down(&place, &down)),
        Verb::Daemon => crate::daemon::run(&place),
        Verb::Sandbox { specification } => crate::sandbox::run(&specification),
    }
}

fn apply(
    place: &Place,
    manifests: &Manifests,
    request: impl FnOnce(Vec<Object>, Option<u64>) -> Request,
) -> Result<()> {
    let objects = read_manifests(&manifests.filenames)?;
    client::call(place, &request(objects, milliseconds(&manifests.waiting)))
}

/// The time to wait in milliseconds, if at all.
fn milliseconds(waiting: &Waiting) -> Option<u64> {
    let time = u64::try_from(waiting.timeout.as_millis()).unwrap_or(u64::MAX);
    (!waiting.no_wait).then_some(time)
}

/// Reads manifests; `-` is standard input.
fn read_manifests(filenames: &[PathBuf]) -> Result<Vec<Object>> {
    let mut objects = Vec::new();
    for filename in filenames {
        let name = filename.display();
        let text = if filename.as_os_str() == "-" {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map(|_| text)
        } else {
            fs::read_to_string(filename)
        };
        let text = text.with_context(|| format!("cannot read {name}"))?;
        objects.extend(Object::parse_all(&text).with_context(|| format!("in {name}"))?);
    }
    Ok(objects)
}
