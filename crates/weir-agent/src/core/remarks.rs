// SPDX-License-Identifier: Apache-2.0
//! What people should find beside their objects: Kubernetes events about pods and policies.

use std::collections::BTreeSet;
use std::sync::Arc;

use weir_cluster::{About, ObjectProblem, Reason, Remark};
use weir_model::{PodRef, PolicyRef, Touched};

use super::Core;

impl Core {
    /// A pod of this node cannot be networked, or not as it should be.
    pub(super) fn remark_on_pod(&self, pod: &PodRef, note: String) {
        self.remark(About::Pod(pod.clone()), Reason::NetworkNotReady, note);
    }

    /// Policies that were refused since the last time this was asked.
    pub(super) fn remark_on_refused(&mut self, problems: &[ObjectProblem]) {
        let refused: BTreeSet<(PolicyRef, String)> = problems
            .iter()
            .filter_map(|problem| Some((problem.policy.clone()?, problem.cause())))
            .collect();
        for (policy, cause) in refused.difference(&self.refused_policies) {
            let note = format!(
                "refused, so it is not enforced as written: {cause}; what was accepted before stays in force, or else \
                 the selected pods are isolated"
            );
            self.remark_on_policy(policy, note);
        }
        self.refused_policies = refused;
    }

    /// Policies that do not fit any more; one that was changed and still does not is another case.
    pub(super) fn remark_on_unenforced(&mut self, touched: &Touched) {
        let directory = Arc::clone(&self.shared.directory);
        let policy = directory.policy();
        let now = policy.unenforced();
        self.unenforced_policies
            .retain(|policy| now.contains_key(policy) && !touched.policies.contains(policy));
        for (policy, problem) in now {
            if self.unenforced_policies.insert(policy.clone()) {
                self.remark_on_policy(policy, problem.to_string());
            }
        }
    }

    fn remark_on_policy(&self, policy: &PolicyRef, note: String) {
        let about = About::NetworkPolicy(policy.clone());
        self.remark(about, Reason::PolicyNotEnforced, note);
    }

    fn remark(&self, about: About, reason: Reason, note: String) {
        if let Some(writer) = &self.writer {
            writer.remark(Remark {
                about,
                reason,
                note,
            });
        }
    }
}
