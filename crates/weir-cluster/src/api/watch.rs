// SPDX-License-Identifier: Apache-2.0
//! One kind of objects, listed and then watched for as long as the agent runs.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::StreamExt;
use kube::core::Status;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client};
use tokio::sync::mpsc::Sender;

use super::health::Notes;
use super::kind::Kind;
use super::mirror::Step;
use super::raw::Raw;

/// After this long a kind that the server did not know is asked for again.
const UNKNOWN: Duration = Duration::from_mins(1);
/// After this long a watch that cannot be taken up again begins with a new list.
const AGAIN: Duration = Duration::from_secs(2);

/// What follows from an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Remedy {
    /// The stream tries again by itself, after a while.
    Wait,
    /// Only a new list helps.
    List,
    /// The server does not know the kind.
    Unknown,
}

/// Tells everything about a kind; ends when nobody listens any more.
pub(super) async fn follow(
    kind: Kind,
    client: Client,
    notes: Arc<Notes>,
    steps: Sender<(Kind, Step)>,
) {
    let api: Api<Raw> = Api::all_with(client, &kind.resource());
    let mut settings = watcher::Config::default();
    if let Some(fields) = kind.fields() {
        settings = settings.fields(fields);
    }
    loop {
        let mut events = pin!(watch(api.clone(), settings.clone()).default_backoff());
        let mut pause = AGAIN;
        while let Some(event) = events.next().await {
            let now = SystemTime::now();
            let step = match event {
                Ok(event) => {
                    let step = step(event);
                    match step {
                        // The stream says so before it has asked.
                        Step::Began => {}
                        Step::Complete => {
                            notes.answered(kind, now);
                            notes.listed(kind);
                        }
                        Step::Listed(_) | Step::Put(_) | Step::Gone(_) | Step::Unknown => {
                            notes.answered(kind, now);
                        }
                    }
                    step
                }
                Err(error) => match remedy(kind, &error) {
                    Remedy::Wait => {
                        notes.failed(kind, reason(&error), now);
                        continue;
                    }
                    Remedy::List => {
                        tracing::info!(%kind, reason = reason(&error), "listed anew");
                        notes.failed(kind, reason(&error), now);
                        break;
                    }
                    Remedy::Unknown => {
                        pause = UNKNOWN;
                        notes.unknown(kind, now);
                        Step::Unknown
                    }
                },
            };
            let unknown = matches!(step, Step::Unknown);
            if steps.send((kind, step)).await.is_err() {
                return;
            }
            if unknown {
                break;
            }
        }
        tokio::time::sleep(pause).await;
    }
}

fn step(event: Event<Raw>) -> Step {
    match event {
        Event::Init => Step::Began,
        Event::InitApply(raw) => Step::Listed(raw.value),
        Event::InitDone => Step::Complete,
        Event::Apply(raw) => Step::Put(raw.value),
        Event::Delete(raw) => Step::Gone(raw.value),
    }
}

fn remedy(kind: Kind, error: &watcher::Error) -> Remedy {
    // A watch of a kind whose definition was deleted is answered by a line of text for ever; a list is
    // told that there is no such kind.
    let answer_is_no_event = matches!(
        error,
        watcher::Error::WatchFailed(kube::Error::SerdeError(_))
            | watcher::Error::WatchStartFailed(kube::Error::SerdeError(_))
    );
    if kind.may_be_unknown() && answer_is_no_event {
        return Remedy::List;
    }
    let Some(status) = status(error) else {
        return Remedy::Wait;
    };
    let listing = matches!(error, watcher::Error::InitialListFailed(_));
    // A server that is starting answers 503, not 404, for what it has not installed yet.
    if kind.may_be_unknown() && status.code == 404 {
        return Remedy::Unknown;
    }
    // Rights that were given to an agent of before it read these: nothing else may have to wait for that.
    if kind == Kind::NodePods && status.code == 403 {
        return Remedy::Unknown;
    }
    // The stream knows of the first only as an event of a running watch. The second: the server has an
    // older store than before (restored from a backup), and would refuse until it has caught up.
    let expired = status.code == 410;
    let ahead = status.message.contains("Too large resource version");
    if !listing && (expired || ahead) {
        return Remedy::List;
    }
    Remedy::Wait
}

/// What the server itself said.
fn status(error: &watcher::Error) -> Option<&Status> {
    let error = match error {
        watcher::Error::WatchError(status) => return Some(status),
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => error,
        watcher::Error::NoResourceVersion => return None,
    };
    if let kube::Error::Api(status) = error {
        Some(status)
    } else {
        None
    }
}

/// The cause alone: what it happened to is said beside it.
fn reason(error: &watcher::Error) -> String {
    match status(error) {
        Some(status) => said(status),
        None => innermost(error),
    }
}

/// The same of a single request.
pub(super) fn reason_of(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        said(status)
    } else {
        innermost(error)
    }
}

fn said(status: &Status) -> String {
    format!("{} (status {})", status.message.trim(), status.code)
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(code: u16, message: &str) -> Box<Status> {
        Box::new(Status {
            code,
            ..Status::failure(message, "")
        })
    }

    #[test]
    fn the_table_of_remedies() {
        let started = |status| watcher::Error::WatchStartFailed(kube::Error::Api(status));
        let listed = |status| watcher::Error::InitialListFailed(kube::Error::Api(status));
        let check = |kind, error: &watcher::Error, expected| {
            assert_eq!(remedy(kind, error), expected, "{kind} {error}");
        };
        check(Kind::Pod, &started(answer(410, "Expired")), Remedy::List);
        check(
            Kind::Pod,
            &watcher::Error::WatchError(answer(410, "too old resource version")),
            Remedy::List,
        );
        check(
            Kind::Pod,
            &started(answer(
                504,
                "Timeout: Too large resource version: 9, current: 1",
            )),
            Remedy::List,
        );
        // A list begins anew by itself.
        check(Kind::Pod, &listed(answer(410, "Expired")), Remedy::Wait);
        check(Kind::Pod, &started(answer(503, "starting")), Remedy::Wait);
        check(Kind::Pod, &listed(answer(403, "forbidden")), Remedy::Wait);
        check(Kind::Pod, &listed(answer(404, "not found")), Remedy::Wait);
        check(
            Kind::NetworkLogging,
            &listed(answer(404, "not found")),
            Remedy::Unknown,
        );
        check(
            Kind::NetworkLogging,
            &listed(answer(403, "forbidden")),
            Remedy::Wait,
        );
        check(
            Kind::NodePods,
            &listed(answer(403, "forbidden")),
            Remedy::Unknown,
        );
        check(Kind::Pod, &watcher::Error::NoResourceVersion, Remedy::Wait);
        let text = || serde_json::from_str::<String>("404 page not found").unwrap_err();
        let no_event = || watcher::Error::WatchFailed(kube::Error::SerdeError(text()));
        check(Kind::NetworkLogging, &no_event(), Remedy::List);
        check(Kind::Pod, &no_event(), Remedy::Wait);
    }

    #[test]
    fn the_cause_is_told_without_its_wrapping() {
        let refused = std::io::Error::other("connection refused");
        let error = watcher::Error::WatchFailed(kube::Error::ReadEvents(refused));
        assert_eq!(reason(&error), "connection refused");
        let error =
            watcher::Error::InitialListFailed(kube::Error::Api(answer(403, "pods is forbidden")));
        assert_eq!(reason(&error), "pods is forbidden (status 403)");
    }
}
