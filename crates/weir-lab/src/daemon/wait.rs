// SPDX-License-Identifier: Apache-2.0
//! Waiting until the cluster is as its objects say.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::{
    Say,
    follow::Outcome,
    lab::{Lab, State},
    node::AgentState,
    pod::is_held,
};
use crate::{config::Dataplane, locked, object::Key, protocol::Response};

impl Lab {
    /// Waits, and complains about pods that cannot run.
    pub(crate) fn finish(
        &self,
        begin: Instant,
        wait: Option<u64>,
        outcome: Outcome,
        say: Say<'_>,
    ) -> Result<()> {
        let Outcome {
            started,
            leaving,
            mut troubles,
        } = outcome;
        self.wait(begin, wait, &leaving, say)?;
        let state = locked(&self.state);
        for key in started {
            if let Some(pod) = state.pods.get(&key).filter(|pod| pod.is_hopeless()) {
                let trouble = format!("{key} cannot run: {}", pod.trouble());
                troubles.entry(key).or_insert(trouble);
            }
        }
        let words: Vec<String> = troubles.into_values().collect();
        if words.is_empty() {
            Ok(())
        } else {
            bail!(words.join("\n"))
        }
    }

    /// Waits until every pod that can run is ready, those who leave are gone, and every agent has realized what was
    /// published.
    fn wait(&self, begin: Instant, wait: Option<u64>, leaving: &[Key], say: Say<'_>) -> Result<()> {
        let Some(wait) = wait else { return Ok(()) };
        let deadline = begin + Duration::from_millis(wait);
        let mut next_word = Instant::now() + Duration::from_secs(2);
        loop {
            let state = locked(&self.state);
            let waiting = waiting(&state, leaving);
            if waiting.is_empty() {
                break;
            }
            let now = Instant::now();
            if now >= deadline {
                bail!("not ready in time: {}", waiting.join("; "));
            }
            if now >= next_word {
                say(Response::Progress(format!(
                    "waiting for {} pods",
                    waiting.len()
                )))?;
                next_word = now + Duration::from_secs(2);
            }
            let pause = deadline.min(next_word).saturating_duration_since(now);
            drop(self.changed.wait_timeout(state, pause));
        }
        let revision = self.publish()?;
        let names = locked(&self.state).names.clone();
        names.wait();
        if self.topology.dataplane == Dataplane::Weir {
            for node in self
                .nodes
                .values()
                .filter(|node| node.agent() != AgentState::Stopped)
            {
                node.wait_realized(revision, deadline, say)?;
            }
        }
        Ok(())
    }
}

/// Whom there is to wait for, in words.
fn waiting(state: &State, leaving: &[Key]) -> Vec<String> {
    let coming = state.pods.iter().filter(|(key, pod)| {
        let held = state.store.get(key).is_some_and(is_held);
        !(pod.is_settled() || held || state.leaving.contains_key(key))
    });
    let coming = coming.map(|(key, pod)| format!("{key} is not ready ({})", pod.trouble()));
    let leaving = leaving
        .iter()
        .filter(|key| state.leaving.contains_key(key))
        .map(|key| format!("{key} is still terminating"));
    coming.chain(leaving).collect()
}
