// SPDX-License-Identifier: Apache-2.0
//! Tests on whole labs: nodes, pods, traffic. They need root; see the modules for what else.

#[cfg(test)]
mod lab {
    mod control_plane;
    #[expect(dead_code, reason = "other tests use the rest")]
    mod harness;
    mod kernel_routing;
    mod probes;
    mod weir;
}
