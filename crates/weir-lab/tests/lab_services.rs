// SPDX-License-Identifier: Apache-2.0
//! Every behaviour of services, row by row: in which set-up which probe ends how. A row's test is named by its letter
//! and number, and runs with socket translation and without, in both routing modes and over both families.
//!
//! Rows of a variant share a lab. Some variants are for the full run alone (`cargo xtask test lab --full`).

#[cfg(test)]
#[path = "lab/harness.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod harness;

#[cfg(test)]
mod services {
    pub(crate) mod affinity;
    pub(crate) mod answer;
    pub(crate) mod ask;
    pub(crate) mod close;
    pub(crate) mod cluster_ip;
    pub(crate) mod direct;
    pub(crate) mod drivers;
    pub(crate) mod endpoints;
    pub(crate) mod general;
    pub(crate) mod ground;
    pub(crate) mod objects;
    pub(crate) mod outside;
    pub(crate) mod stale;
}

/// The rows as tests of every variant; those after `@direct` where backends answer clients themselves, those after
/// `@driver` where drivers forward and backends are chosen by Maglev.
macro_rules! rows {
    ($($module:ident: $($row:ident)*;)*) => {
        rows!(@variant socket_tunnel, true, "tunnel", "snat", "random", "disabled", doc = "Of every run.", $($module: $($row)*;)*);
        rows!(@variant packet_native, false, "native", "snat", "random", "disabled", doc = "Of every run.", $($module: $($row)*;)*);
        rows!(@variant socket_native, true, "native", "snat", "random", "disabled", ignore = "of the full run", $($module: $($row)*;)*);
        rows!(@variant packet_tunnel, false, "tunnel", "snat", "random", "disabled", ignore = "of the full run", $($module: $($row)*;)*);
    };
    (@direct $($module:ident: $($row:ident)*;)*) => {
        rows!(@variant direct_native, true, "native", "dsr", "random", "disabled", doc = "Of every run.", $($module: $($row)*;)*);
        rows!(@variant direct_tunnel, false, "tunnel", "dsr", "random", "disabled", doc = "Of every run.", $($module: $($row)*;)*);
    };
    (@driver $($module:ident: $($row:ident)*;)*) => {
        rows!(@variant driver_native, true, "native", "snat", "maglev", "generic", doc = "Of every run.", $($module: $($row)*;)*);
        rows!(@variant driver_tunnel, false, "tunnel", "snat", "maglev", "generic", doc = "Of every run.", $($module: $($row)*;)*);
        rows!(@variant driver_direct, false, "native", "dsr", "maglev", "generic", ignore = "of the full run", $($module: $($row)*;)*);
    };
    (@variant $name:ident, $socket:expr, $routing:expr, $mode:expr, $algorithm:expr, $acceleration:expr, $when:meta, $($module:ident: $($row:ident)*;)*) => {
        #[cfg(test)]
        mod $name {
            use super::services::ground::{Variant, run};

            const VARIANT: Variant = Variant {
                name: stringify!($name),
                socket_lb: $socket,
                routing: $routing,
                mode: $mode,
                algorithm: $algorithm,
                acceleration: $acceleration,
            };
            $($(
                #[test]
                #[$when]
                fn $row() {
                    run(VARIANT, stringify!($row), super::services::$module::$row);
                }
            )*)*
        }
    };
}

rows! {
    cluster_ip:
        a1_connections_reach_every_backend
        a2_each_port_follows_its_pods
        a3_ports_come_and_go
        a4_backends_see_the_clients_own_address
        a5_a_pod_reaches_itself_through_its_service
        a6_a_backend_reaches_all_and_itself
        a7_services_with_one_name_do_not_meet
        a8_a_service_without_endpoints_refuses_at_once
        a9_failed_pods_are_never_endpoints
        a10_endpoints_that_appear_are_used_by_the_same_ports
        a11_protocols_of_one_port_are_apart
        a12_answers_come_from_the_service_that_was_asked
        a13_a_port_may_have_other_numbers_in_other_pods
        a14_sidecars_have_ports_too
        a15_slices_by_hand_are_taken_together
        a16_the_network_of_nodes_reaches_services
        a17_a_port_without_a_service_leads_nowhere
        a19_services_of_another_proxy_are_left_to_it
        a20_services_labelled_headless_are_left_alone
        a21_types_change
        a22_services_go_on_without_agents;
    endpoints:
        b1_headless_services_have_names_only
        b2_published_addresses_serve_until_they_are_gone
        b3_unready_pods_that_leave_get_nothing
        b4_those_who_leave_serve_where_nobody_else_does
        b5_those_who_leave_serve_their_own_node
        b6_those_who_leave_serve_on_every_node
        b7_those_who_leave_serve_on_their_own_node_alone
        b8_connections_to_those_who_leave_live_on
        b9_blue_gives_way_to_green_and_nobody_notices
        b10_pods_that_leave_are_pods_until_they_are_gone;
    outside:
        c1_node_ports_answer_on_every_node
        c2_answers_come_from_the_node_that_was_asked
        c3_node_ports_close
        c4_a_node_port_belongs_to_one_service
        c5_protocols_share_a_node_port
        c6_backends_elsewhere_see_the_node
        c7_local_node_ports_keep_the_client
        c8_the_cluster_itself_is_not_outside
        c9_health_checks_tell_where_endpoints_are
        c10_those_who_leave_serve_but_are_not_healthy
        c11_policies_change_on_all_nodes
        c12_external_addresses_are_reached
        c13_load_balancers_are_reached_directly
        c14_the_addresses_of_a_proxy_are_left_to_it
        c15_source_ranges_shut_others_out
        c16_load_balancers_without_node_ports
        c17_protocols_share_a_load_balancer
        c18_updates_under_load_lose_nothing
        c19_load_balancers_follow_their_pods
        c20_host_ports_of_one_number_reach_their_own_pods
        c21_node_ports_are_not_on_the_loopback_address
        c22_a_pod_reaches_itself_through_its_node
        c23_backends_hear_of_narrow_paths
        c24_fragments_go_where_the_first_one_goes;
    close:
        d1_local_services_serve_their_own_node
        d2_local_services_serve_their_own_host_network
        d3_local_backends_may_be_in_the_host_network
        d4_the_two_scopes_are_apart
        d5_endpoints_are_divided_among_zones
        d6_traffic_stays_in_zones_that_have_endpoints
        d7_all_clients_of_a_zone_use_all_its_endpoints
        d8_traffic_stays_on_nodes_that_have_endpoints
        d9_traffic_comes_back_with_the_endpoint
        d10_hints_count_when_all_endpoints_have_them;
    affinity:
        e1_a_client_keeps_its_backend
        e2_affinity_ends
        e3_affinity_is_switched_on_and_off
        e4_clients_of_node_ports_keep_their_backends
        e5_clients_of_load_balancers_keep_their_backends
        e6_a_backend_that_goes_is_left
        e7_each_client_has_its_own
        e8_datagrams_stick_too
        e10_each_port_of_a_service_has_its_own_affinity;
    stale:
        f1_node_ports_follow_their_pods
        f2_cluster_ips_follow_their_pods
        f3_local_services_follow_their_pods
        f4_clients_on_nodes_follow_too
        f5_clients_may_be_earlier_than_endpoints
        f6_target_ports_change
        f7_load_balancers_follow_their_pods
        f9_connections_do_not_move;
    general:
        g1_everyone_reaches_every_endpoint
        g2_deleted_pods_are_never_asked
        g3_requests_may_be_large
        g4_endpoints_may_be_in_the_host_network
        g5_pods_see_each_other
        g6_services_have_the_families_that_they_want
        g8_changes_are_quick
        g9_the_largest_packet_of_a_pod_fits
        g10_connections_outlive_agents;
}

rows! {
    @direct
    direct:
        c25_backends_answer_clients_themselves
        c25_one_port_of_a_client_has_many_connections
        c25_a_port_is_used_again
        c25_clients_hear_that_packets_do_not_fit
        c25_connections_outlive_agents
        c25_policies_know_the_client
        c25_backends_in_the_network_of_nodes_are_relayed_to;
    outside:
        c1_node_ports_answer_on_every_node
        c2_answers_come_from_the_node_that_was_asked
        c7_local_node_ports_keep_the_client
        c8_the_cluster_itself_is_not_outside
        c15_source_ranges_shut_others_out
        c18_updates_under_load_lose_nothing
        c22_a_pod_reaches_itself_through_its_node
        c23_backends_hear_of_narrow_paths
        c24_fragments_go_where_the_first_one_goes;
    affinity:
        e4_clients_of_node_ports_keep_their_backends;
    stale:
        f1_node_ports_follow_their_pods
        f7_load_balancers_follow_their_pods
        f9_connections_do_not_move;
}

rows! {
    @driver
    drivers:
        c26_drivers_forward_to_backends_elsewhere
        c26_forwarding_survives_agents;
    outside:
        c1_node_ports_answer_on_every_node
        c2_answers_come_from_the_node_that_was_asked
        c7_local_node_ports_keep_the_client
        c15_source_ranges_shut_others_out
        c18_updates_under_load_lose_nothing
        c23_backends_hear_of_narrow_paths
        c24_fragments_go_where_the_first_one_goes;
    stale:
        f1_node_ports_follow_their_pods
        f9_connections_do_not_move;
    affinity:
        e9_a_choice_by_tuple_keeps_to_the_client;
    general:
        g3_requests_may_be_large;
}
