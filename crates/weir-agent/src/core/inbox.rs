// SPDX-License-Identifier: Apache-2.0
//! What has come and waits for the loop, in the order in which it is taken.
//!
//! Requests cost milliseconds each and come by the dozen, when a node starts its pods. What is news of the cluster goes
//! before them: it says whose packets the node is about to receive.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::Input;

/// For so long inputs are taken before what follows from them is realized. Much more, and what came first waits for what
/// came last; much less, and a large world is compiled for every single request.
const SHORTEST: Duration = Duration::from_millis(10);

/// Inputs in two queues.
pub(super) struct Inbox<'a> {
    inputs: &'a Receiver<Input>,
    news: VecDeque<Input>,
    requests: VecDeque<Input>,
}

/// Nobody is there any more who could have something to say.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct HungUp;

impl<'a> Inbox<'a> {
    pub(super) const fn new(inputs: &'a Receiver<Input>) -> Self {
        Self {
            inputs,
            news: VecDeque::new(),
            requests: VecDeque::new(),
        }
    }

    /// Waits until there is something, or until then.
    pub(super) fn wait(&mut self, until: Instant) -> Result<(), HungUp> {
        if !self.news.is_empty() || !self.requests.is_empty() {
            return Ok(());
        }
        let left = until.saturating_duration_since(Instant::now());
        match self.inputs.recv_timeout(left) {
            Ok(first) => {
                self.sort(first);
                Ok(())
            }
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Err(RecvTimeoutError::Disconnected) => Err(HungUp),
        }
    }

    /// What is to be taken next. Never waits.
    pub(super) fn next(&mut self) -> Option<Input> {
        while let Ok(one) = self.inputs.try_recv() {
            self.sort(one);
        }
        self.news.pop_front().or_else(|| self.requests.pop_front())
    }

    fn sort(&mut self, input: Input) {
        match input {
            Input::Source(_) | Input::Network { .. } => self.news.push_back(input),
            Input::Create(..)
            | Input::Delete(..)
            | Input::Check(..)
            | Input::Regenerate(..)
            | Input::CompareServices(_)
            | Input::Stop => self.requests.push_back(input),
        }
    }
}

/// How long to take inputs, after a turn whose results took `settling` to realize: half of the time is theirs.
pub(super) fn turn(settling: Duration) -> Duration {
    settling.max(SHORTEST)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use tokio::sync::oneshot;
    use weir_cluster::Batch;

    use super::*;

    fn regenerate(id: u16) -> Input {
        Input::Regenerate(id, oneshot::channel().0)
    }

    fn source(revision: u64) -> Input {
        Input::Source(Ok(Batch {
            revision,
            ..Batch::default()
        }))
    }

    fn shown(input: Option<Input>) -> String {
        match input {
            Some(Input::Source(Ok(batch))) => format!("source {}", batch.revision),
            Some(Input::Regenerate(id, _)) => format!("request {id}"),
            Some(Input::Stop) => "stop".to_owned(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn news_go_before_requests_and_each_in_their_order() {
        let (send, inputs) = channel();
        let mut inbox = Inbox::new(&inputs);
        for input in [regenerate(1), source(1), regenerate(2), source(2)] {
            send.send(input).unwrap();
        }
        assert_eq!(inbox.wait(Instant::now()), Ok(()));
        assert_eq!(shown(inbox.next()), "source 1");
        assert_eq!(shown(inbox.next()), "source 2");
        assert_eq!(shown(inbox.next()), "request 1");
        // What comes while requests are being carried out does not wait for the rest of them.
        send.send(Input::Stop).unwrap();
        send.send(source(3)).unwrap();
        assert_eq!(shown(inbox.next()), "source 3");
        assert_eq!(shown(inbox.next()), "request 2");
        drop(send);
        assert_eq!(inbox.wait(Instant::now()), Ok(()));
        assert_eq!(shown(inbox.next()), "stop");
        assert_eq!(shown(inbox.next()), "None");
        assert_eq!(inbox.wait(Instant::now()), Err(HungUp));
    }

    #[test]
    fn nobody_waits_while_something_is_there() {
        let (send, inputs) = channel();
        let mut inbox = Inbox::new(&inputs);
        send.send(regenerate(1)).unwrap();
        send.send(regenerate(2)).unwrap();
        let never = Instant::now() + Duration::from_hours(1);
        inbox.wait(never).unwrap();
        assert_eq!(shown(inbox.next()), "request 1");
        inbox.wait(never).unwrap();
        assert_eq!(shown(inbox.next()), "request 2");
        inbox.wait(Instant::now()).unwrap();
        assert_eq!(shown(inbox.next()), "None");
    }
}
