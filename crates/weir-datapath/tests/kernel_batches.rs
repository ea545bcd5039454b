// SPDX-License-Identifier: Apache-2.0
//! Many rows at once, and rows of services read back.

#[cfg(test)]
#[path = "support/node.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod node;

#[cfg(test)]
mod kernel {
    use std::collections::BTreeSet;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use weir_abi::service::{BackendRow, BackendRun, FrontendKey, FrontendRow};
    use weir_abi::{Address, DatapathConfig, Port, Protocol, ServiceId};
    use weir_compile::Operation;
    use weir_compile::service::{ServiceBackend, ServiceRows, plan};
    use weir_datapath::{Datapath, carry_out};

    use super::node::{loader_with, on_a_node};

    const ROOT: &str = "/sys/fs/bpf/weir";
    const MAGLEV: u32 = 251;

    fn load(sizes: &[(&str, u32)]) -> Datapath {
        let config = DatapathConfig {
            maglev_size: MAGLEV,
            ..DatapathConfig::DEFAULT
        };
        loader_with(ROOT, sizes).load(&config).unwrap()
    }

    fn address(service: u32, backend: u8) -> Address {
        let [_, b, c, _] = service.to_be_bytes();
        let [.., d] = service.to_be_bytes();
        Address::from_v4([10 + b, c, d, backend])
    }

    /// As many services as wanted, each with ten backends at ten addresses of its own.
    fn rows(services: u32) -> ServiceRows {
        let mut rows = ServiceRows::default();
        for number in 0..services {
            let service = ServiceId(number + 1);
            let port = Port::new(80);
            let backends = |each: &mut dyn FnMut(u32, Address)| {
                for backend in 0..10 {
                    each(number * 10 + u32::from(backend), address(number, backend));
                }
            };
            backends(&mut |place, address| {
                let row = BackendRow {
                    address,
                    service,
                    port,
                    ..BackendRow::default()
                };
                rows.backends.set(place, row);
            });
            let mut members = Vec::new();
            backends(&mut |_, address| {
                members.push(ServiceBackend {
                    address,
                    port,
                    flags: 3,
                });
            });
            let members: Arc<[ServiceBackend]> = members.into();
            rows.apply(&Operation::UpsertServiceBackends(service, members));
            let run = BackendRun {
                first: number * 10,
                count: 10,
                maglev: u32::from(number == 0),
            };
            let row = FrontendRow {
                service,
                internal: run,
                ..FrontendRow::default()
            };
            let key = FrontendKey::new(address(number, 200), port, Protocol::TCP);
            rows.frontends.insert(key, row);
            rows.addresses.insert(key.address);
        }
        let table: Vec<u16> = (0..MAGLEV)
            .map(|entry| u16::try_from(entry % 10).unwrap())
            .collect();
        rows.maglev.insert(0, table.into());
        rows
    }

    #[test]
    fn a_hundred_thousand_backends_are_written_read_back_and_compared() {
        on_a_node(|| {
            let datapath = load(&[("maglev", MAGLEV * 4), ("ipcache", 16_384)]);
            let maps = &datapath.maps;
            let desired = rows(10_000);
            let operations = plan(&ServiceRows::default(), &desired);
            let since = Instant::now();
            let outcome = carry_out(maps, &operations);
            let took = since.elapsed();
            assert!(outcome.is_complete(), "{:?}", outcome.failures.first());
            assert_eq!(outcome.applied, operations.len());
            // Far from what one call for each row would take; the machine may be busy.
            assert!(took < Duration::from_secs(5), "{took:?}");

            let (_, addresses) = maps.read_back_split().unwrap();
            assert_eq!(addresses, desired.addresses);
            for turn in 0..2 {
                assert!(maps.services_are(&desired, &addresses, turn).unwrap());
            }
            let found = maps.read_back_services(addresses.clone()).unwrap();
            assert!(found == desired);
            assert!(plan(&found, &desired).is_empty());

            // Whatever differs is seen.
            maps.maglev.upsert(&7, &9).unwrap();
            assert!(!maps.services_are(&desired, &addresses, 0).unwrap());
            maps.maglev.upsert(&7, &7).unwrap();
            maps.backends
                .upsert(&99_999, &BackendRow::default())
                .unwrap();
            assert!(!maps.services_are(&desired, &addresses, 0).unwrap());

            let found = maps.read_back_services(addresses).unwrap();
            let outcome = carry_out(maps, &plan(&found, &ServiceRows::default()));
            assert!(outcome.is_complete(), "{:?}", outcome.failures.first());
            let (_, addresses) = maps.read_back_split().unwrap();
            assert!(maps.read_back_services(addresses).unwrap().is_empty());
        });
    }

    #[test]
    fn a_full_map_refuses_what_does_not_fit_and_keeps_what_is_named() {
        on_a_node(|| {
            let datapath = load(&[("frontends", 16), ("maglev", MAGLEV * 4)]);
            let maps = &datapath.maps;
            let desired = rows(20);
            let outcome = carry_out(maps, &plan(&ServiceRows::default(), &desired));
            assert_eq!(outcome.failures.len(), 4);
            let error = outcome.failures[0].error.to_string();
            assert!(
                error.starts_with("cannot write frontends[FrontendKey"),
                "{error}"
            );
            assert_eq!(maps.failed_writes()["frontends"], 4);
            assert_eq!(maps.frontends.count().unwrap(), 16);

            // A plan that fails takes nothing away that a frontend may still name.
            let mut other = rows(20);
            other.backends.clear(0, 10);
            other.frontends.retain(|_, row| row.internal.first != 0);
            let found = maps.read_back_services(BTreeSet::new()).unwrap();
            let mut operations = plan(&found, &other);
            operations.retain(|operation| !matches!(operation, Operation::DeleteFrontend(_)));
            let outcome = carry_out(maps, &operations);
            assert!(!outcome.is_complete() && outcome.skipped > 0);
            assert_ne!(maps.backends.get(&0).unwrap(), Some(BackendRow::default()));
        });
    }

    #[test]
    fn socket_programs_are_attached_once_and_follow_the_cgroup() {
        on_a_node(|| {
            let datapath = load(&[]);
            let root = weir_net::cgroup::mount_point().unwrap();
            let make = |name: &str| {
                let path = root.join(format!("weir-datapath-{name}-{}", std::process::id()));
                std::fs::create_dir(&path).unwrap();
                path
            };
            let (first, second) = (make("a"), make("b"));
            let new = datapath.attach_sockets(&first).unwrap();
            assert!(datapath.attach_sockets(&first).unwrap().is_empty());
            let links = datapath.socket_links().unwrap();
            assert_eq!(links.len(), new.len());
            // Another load takes the links over, another cgroup gets its own.
            let mut later = load(&[]);
            assert_eq!(later.activate().unwrap().updated.len(), new.len());
            for link in later.socket_links().unwrap() {
                let program = later.programs.socket(link.hook).unwrap();
                assert_eq!(link.program, program.id());
            }
            let moved = later.attach_sockets(&second).unwrap();
            assert_eq!(moved.len(), new.len());
            std::fs::remove_dir(&first).unwrap();
            assert!(later.attach_sockets(&second).unwrap().is_empty());
            assert_eq!(later.detach_sockets().unwrap(), new.len());
            std::fs::remove_dir(&second).unwrap();
        });
    }
}
