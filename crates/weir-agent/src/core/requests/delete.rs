// SPDX-License-Identifier: Apache-2.0
//! Endpoints go: first from the desired state, then their rows, then their links.

use weir_abi::IfIndex;
use weir_abi::observation::Hook;
use weir_api::endpoint::EndpointState;

use crate::core::{Attachments, Core, Reply, monotonic};
use crate::endpoint::Endpoint;
use crate::error::chain;

impl Core {
    pub(in crate::core) fn delete(&mut self, what: &Attachments, reply: Reply<()>) {
        let meant = |endpoint: &&Endpoint| {
            let record = &endpoint.record;
            let interface = what.interface.as_ref();
            record.container_id == what.container
                && interface.is_none_or(|interface| *interface == record.interface)
        };
        let ids: Vec<_> = self
            .endpoints
            .values()
            .filter(meant)
            .map(|endpoint| endpoint.record.id)
            .collect();
        for id in ids {
            self.remove(id, "deleted");
        }
        if self.dirty {
            self.deleted.push(reply);
        } else {
            let _ = reply.send(Ok(()));
        }
    }

    /// Takes an endpoint out; rows go with the next plan, then the link.
    pub(in crate::core) fn remove(&mut self, id: u16, reason: &str) {
        if let Some(mut endpoint) = self.endpoints.remove(&id) {
            endpoint.enter(EndpointState::Disconnecting, reason);
            tracing::info!(endpoint = id, pod = %endpoint.pod, reason, "endpoint removed");
            let message = format!("endpoint {id} {}: {reason}", endpoint.pod);
            self.shared.events.agent("endpoint-deleted", &message);
            self.removed.push(endpoint);
            self.mark();
        }
    }

    /// The links of endpoints whose rows are gone.
    pub(in crate::core) fn finish_removed(&mut self) {
        let removed = std::mem::take(&mut self.removed);
        if removed.is_empty() {
            return;
        }
        for address in removed.iter().flat_map(|one| &one.record.addresses) {
            self.ipam.release(*address, monotonic());
        }
        // Before the endpoints' own files, so that at every moment one of the two speaks of them.
        if let Err(error) = self.store.save_addresses(&self.ipam.remembered()) {
            tracing::warn!(error = chain(&error), "addresses that rest are not saved");
        }
        for endpoint in removed {
            let record = &endpoint.record;
            let index = IfIndex(record.host_index);
            if let Some(kernel) = &self.kernel
                && let Err(error) = kernel.datapath.detach(index)
            {
                tracing::warn!(
                    endpoint = record.id,
                    error = chain(&error),
                    "program not detached"
                );
            }
            self.attached.remove(&(Hook::FromContainer, index));
            // Before the link: a link without state is removed by the next agent, but state with a
            // link would be an endpoint again.
            if let Err(error) = self.store.remove_endpoint(record.id) {
                tracing::warn!(
                    endpoint = record.id,
                    error = chain(&error),
                    "state not removed"
                );
            }
            let link = weir_net::IfIndex::new(record.host_index);
            self.remover.remove(link, record.netns_inode);
        }
    }
}
