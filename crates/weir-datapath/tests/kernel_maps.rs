// SPDX-License-Identifier: Apache-2.0
//! Maps, rows and flows in the kernel.

#[cfg(test)]
#[path = "support/node.rs"]
mod node;

#[cfg(test)]
mod kernel {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;
    use std::time::Duration;

    use weir_abi::counter::Counter;
    use weir_abi::ipcache::{IpcacheRow, PrefixKey};
    use weir_abi::map;
    use weir_abi::node::{NodeRow, TunnelMtu};
    use weir_abi::{
        Address, DatapathConfig, EndpointId, EndpointRow, FlowEntry, FlowKey, Identity, IfIndex,
        NodeIndex, Port, Protocol, Seconds, Slot,
    };
    use weir_compile::{Operation, Plan, Rows, plan};
    use weir_datapath::collect::{Collector, collect};
    use weir_datapath::{Datapath, Hook, Maps, PinRoot, Resized, TestRun, execute};

    use super::node::{loader, loader_with, on_a_node};

    const ROOT: &str = "/sys/fs/bpf/weir";

    /// The default configuration, loaded.
    fn load() -> Datapath {
        loader(ROOT).load(&DatapathConfig::DEFAULT).unwrap()
    }

    fn address(last: u8) -> Address {
        Address::from_v4([10, 0, 0, last])
    }

    fn rows() -> Rows {
        let endpoint = |last: u8| EndpointRow {
            ifindex: IfIndex(u32::from(last)),
            identity: Identity(256),
            id: EndpointId(u16::from(last)),
            ..EndpointRow::default()
        };
        let mut rows = Rows::default();
        for last in 2..9 {
            rows.endpoints.insert(address(last), endpoint(last));
            let row = IpcacheRow {
                identity: Identity(256),
                blocks: weir_abi::BlockGroup::NONE,
                node: NodeIndex(0),
                flags: 0,
            };
            rows.ipcache.insert(PrefixKey::host(address(last)), row);
        }
        let range = PrefixKey {
            length: 120,
            address: Address::from_v4([10, 0, 1, 0]),
        };
        rows.ipcache.insert(
            range,
            IpcacheRow {
                node: NodeIndex(3),
                ..IpcacheRow::default()
            },
        );
        rows.masquerade_exempt = BTreeSet::from([range]);
        rows.nodes.insert(
            NodeIndex(3),
            NodeRow {
                local: address(200),
                remote: address(201),
            },
        );
        rows
    }

    fn flow(source_port: u16) -> FlowKey {
        FlowKey {
            source: address(2),
            destination: address(3),
            source_port: Port::new(source_port),
            destination_port: Port::new(80),
            protocol: Protocol::TCP,
            zone: [0; 2],
            reserved: 0,
        }
    }

    fn insert_flow(maps: &Maps, key: FlowKey, expires: u32) {
        let entry = FlowEntry {
            expires: Seconds(expires),
            ..FlowEntry::default()
        };
        maps.flows.upsert(&key, &entry).unwrap();
    }

    /// Maps that survive the process that made them.
    fn pinned() -> usize {
        map::ALL.iter().filter(|map| map.pinned).count()
    }

    #[test]
    fn a_second_loader_finds_the_maps_and_their_rows() {
        on_a_node(|| {
            let first = load();
            assert_eq!(first.report.created.len(), pinned());
            let desired = rows();
            let outcome = execute(&first.maps, &plan(&Rows::default(), &desired));
            assert!(outcome.is_complete(), "{:?}", outcome.failures);
            drop(first);

            let second = load();
            assert_eq!(second.report.reused.len(), pinned(), "{}", second.report);
            let realized = second.maps.read_back().unwrap();
            assert_eq!(realized, desired);
            assert!(plan(&realized, &desired).is_empty());
        });
    }

    #[test]
    fn rows_that_somebody_deleted_or_changed_are_found_and_repaired() {
        on_a_node(|| {
            let datapath = load();
            let maps = &datapath.maps;
            let desired = rows();
            execute(maps, &plan(&Rows::default(), &desired));
            let generation = |slot: Slot| maps.generations.get(&u32::from(slot.get())).unwrap();
            let before = generation(Slot::of_address(&address(5)));

            assert!(maps.endpoints.delete(&address(4)).unwrap());
            maps.endpoints
                .upsert(&address(5), &EndpointRow::default())
                .unwrap();
            maps.ipcache
                .upsert(&PrefixKey::host(address(77)), &IpcacheRow::default())
                .unwrap();
            let realized = maps.read_back().unwrap();
            let repair = plan(&realized, &desired);
            assert_eq!(repair.changes().count(), 3, "{repair:?}");
            let outcome = execute(maps, &repair);
            assert_eq!(
                outcome.applied,
                repair.operations.len(),
                "{:?}",
                outcome.failures
            );
            assert_eq!(maps.read_back().unwrap(), desired);
            assert_ne!(generation(Slot::of_address(&address(5))), before);
        });
    }

    #[test]
    fn a_refused_row_is_reported_and_stops_nothing() {
        on_a_node(|| {
            let loader = loader_with(ROOT, &[("endpoints", 16)]);
            let datapath = loader.load(&DatapathConfig::DEFAULT).unwrap();
            let mut desired = Rows::default();
            for last in 0..40 {
                desired
                    .endpoints
                    .insert(address(last), EndpointRow::default());
                desired
                    .ipcache
                    .insert(PrefixKey::host(address(last)), IpcacheRow::default());
            }
            let outcome = execute(&datapath.maps, &plan(&Rows::default(), &desired));
            assert_eq!(outcome.failures.len(), 24);
            for failure in &outcome.failures {
                assert_eq!(
                    failure.error.errno(),
                    Some(libc::E2BIG),
                    "{}",
                    failure.error
                );
                assert!(failure.error.to_string().contains("endpoints[10.0.0."));
            }
            assert_eq!(datapath.maps.read_back().unwrap().ipcache.len(), 40);
            assert_eq!(datapath.maps.failed_writes()["endpoints"], 24);
            let all = datapath
                .maps
                .generations
                .get(&u32::from(Slot::ALL.get()))
                .unwrap()
                .unwrap();
            assert!(all.get() > 0);
        });
    }

    #[test]
    fn a_map_of_another_size_takes_its_rows_along() {
        on_a_node(|| {
            let first = load();
            let desired = rows();
            execute(&first.maps, &plan(&Rows::default(), &desired));
            for port in 0..1000 {
                insert_flow(&first.maps, flow(port), 1);
            }
            drop(first);

            let loader = loader_with(ROOT, &[("flows", 8192), ("endpoints", 512)]);
            let mut second = loader.load(&DatapathConfig::DEFAULT).unwrap();
            assert_eq!(
                second.report.resized,
                [
                    Resized {
                        map: "flows",
                        from: 4096,
                        to: 8192
                    },
                    Resized {
                        map: "endpoints",
                        from: 256,
                        to: 512
                    },
                ]
            );
            assert_eq!(second.maps.read_back().unwrap(), desired);
            // Until the take-over the programs that are attached go on with the old table.
            let old = Maps::open(&PinRoot::default()).unwrap();
            insert_flow(&old, flow(1000), 1);
            let activation = second.activate().unwrap();
            assert_eq!(second.maps.flows.count().unwrap(), 1001, "{activation}");
            assert_eq!(second.maps.flows.size(), 8192);
            drop(second);

            let third = loader.load(&DatapathConfig::DEFAULT).unwrap();
            assert_eq!(third.report.reused.len(), pinned(), "{}", third.report);
            assert_eq!(third.maps.flows.count().unwrap(), 1001);
        });
    }

    #[test]
    fn a_take_over_that_was_interrupted_loses_no_row() {
        on_a_node(|| {
            let first = load();
            insert_flow(&first.maps, flow(1), 1);
            let bigger = loader_with(ROOT, &[("flows", 8192)]);
            let second = bigger.load(&DatapathConfig::DEFAULT).unwrap();
            insert_flow(&second.maps, flow(2), 1);
            drop(second);

            // The same wish again goes on with the successor.
            let mut third = bigger.load(&DatapathConfig::DEFAULT).unwrap();
            third.activate().unwrap();
            assert_eq!(third.maps.flows.count().unwrap(), 2);
            drop(third);

            // Another wish takes the rows back from it.
            let smaller = loader_with(ROOT, &[("flows", 2048)]);
            drop(smaller.load(&DatapathConfig::DEFAULT).unwrap());
            let mut fourth = bigger.load(&DatapathConfig::DEFAULT).unwrap();
            fourth.activate().unwrap();
            assert_eq!(fourth.maps.flows.count().unwrap(), 2);
            let maps = PinRoot::default().maps();
            let pins: Vec<_> = fs::read_dir(maps)
                .unwrap()
                .map(|entry| entry.unwrap())
                .collect();
            assert_eq!(pins.len(), pinned(), "{pins:?}");
        });
    }

    #[test]
    fn a_map_of_another_layout_is_replaced_and_reported() {
        on_a_node(|| {
            drop(load());
            let root = PinRoot::default();
            fs::remove_file(root.map("endpoints")).unwrap();
            fs::rename(root.map("counters"), root.map("endpoints")).unwrap();
            let mut second = load();
            let replaced: Vec<_> = second.report.replaced.iter().map(|one| one.map).collect();
            assert_eq!(replaced, ["endpoints"], "{}", second.report);
            assert_eq!(second.report.created, ["counters"]);
            second.activate().unwrap();
            assert_eq!(load().report.reused.len(), pinned());
        });
    }

    #[test]
    fn pins_need_a_bpf_file_system() {
        on_a_node(|| {
            weir_net::mount::tmpfs(Path::new("/sys/fs/bpf")).unwrap();
            let error = loader(ROOT).load(&DatapathConfig::DEFAULT).unwrap_err();
            assert!(error.to_string().contains("mount -t bpf"), "{error}");
        });
    }

    #[test]
    fn maps_of_other_versions_go_when_this_one_takes_over() {
        on_a_node(|| {
            let root = PinRoot::default();
            fs::create_dir_all(root.path().join("v0/maps")).unwrap();
            let mut datapath = load();
            let activation = datapath.activate().unwrap();
            assert_eq!(activation.removed_versions, [root.path().join("v0")]);
            assert!(!root.path().join("v0").exists());
        });
    }

    #[test]
    fn every_row_of_a_big_table_is_visited_once() {
        on_a_node(|| {
            let loader = loader_with(ROOT, &[("flows", 65_536)]);
            let maps = loader.load(&DatapathConfig::DEFAULT).unwrap().maps;
            let keys: BTreeSet<FlowKey> = (0..20_000).map(flow).collect();
            for &key in &keys {
                insert_flow(&maps, key, 1);
            }
            let seen = maps.flows.entries().unwrap();
            assert_eq!(seen.len(), keys.len());
            assert_eq!(
                seen.into_iter()
                    .map(|(key, _)| key)
                    .collect::<BTreeSet<_>>(),
                keys
            );
            assert_eq!(maps.flows.count().unwrap(), 20_000);
            assert_eq!(maps.raw()[0].entries().unwrap().len(), 20_000);
            let usage = maps.usage().unwrap();
            let flows = usage.iter().find(|usage| usage.map == map::FLOWS).unwrap();
            assert_eq!((flows.used, flows.size), (Some(20_000), 65_536));
        });
    }

    #[test]
    fn only_pairs_that_both_expired_are_collected() {
        on_a_node(|| {
            let maps = load().maps;
            let pair = |port, original, reply| {
                insert_flow(&maps, flow(port), original);
                insert_flow(&maps, flow(port).reversed(), reply);
            };
            pair(1, 10, 20);
            pair(2, 10, 200);
            pair(3, 200, 10);
            pair(4, 200, 200);
            insert_flow(&maps, flow(5), 10);
            insert_flow(&maps, flow(6), 200);
            // The entry in the place of the other half answers another connection.
            let translated = FlowEntry {
                kind: weir_abi::flow::Kind::TRANSLATE_SOURCE,
                translated_source: address(9),
                translated_destination: address(3),
                expires: Seconds(200),
                ..FlowEntry::default()
            };
            insert_flow(&maps, flow(7), 10);
            maps.flows.upsert(&flow(7).reversed(), &translated).unwrap();
            let learned = |expires| TunnelMtu {
                mtu: 1400,
                expires: Seconds(expires),
            };
            maps.tunnel_mtu.upsert(&address(1), &learned(10)).unwrap();
            maps.tunnel_mtu.upsert(&address(2), &learned(200)).unwrap();

            let collected = collect(&maps, Seconds(100)).unwrap();
            assert_eq!(
                (collected.seen, collected.deleted),
                (12, 4),
                "{collected:?}"
            );
            assert_eq!((collected.used(), collected.forgotten_mtus), (8, 1));
            let left: BTreeSet<_> = maps
                .flows
                .entries()
                .unwrap()
                .into_iter()
                .map(|e| e.0)
                .collect();
            let expected: BTreeSet<_> = [2, 3, 4]
                .into_iter()
                .flat_map(|port| [flow(port), flow(port).reversed()])
                .chain([flow(6), flow(7).reversed()])
                .collect();
            assert_eq!(left, expected);

            let mut collector = Collector::new();
            let before = collector.interval();
            let collected = collector.run(&maps, Seconds(1000), before).unwrap();
            assert_eq!((collected.used(), collected.deleted_share()), (0, 1.0));
            assert!(collector.interval() < before);
            assert!(!collector.may_run_early(Duration::from_secs(1)));
        });
    }

    #[test]
    fn bumps_and_counters_can_be_read() {
        on_a_node(|| {
            let datapath = load();
            let maps = &datapath.maps;
            let bump = Plan {
                operations: vec![Operation::Bump(Slot::ROUTES); 3],
            };
            assert_eq!(execute(maps, &bump).applied, 3);
            let place = u32::from(Slot::ROUTES.get());
            assert_eq!(maps.generations.get(&place).unwrap().unwrap().get(), 3);

            assert_eq!(maps.counter(Counter::EventsLost).unwrap(), 0);
            assert!(maps.metrics.sums().unwrap().is_empty());
            let frame = [0_u8; 60];
            let program = datapath.programs.get(Hook::FromContainer);
            TestRun::new(&frame).repeat(5).run(program).unwrap();
            let packets: u64 = maps
                .metrics
                .sums()
                .unwrap()
                .iter()
                .map(|one| one.1.packets)
                .sum();
            assert_eq!(packets, 5);
        });
    }
}
