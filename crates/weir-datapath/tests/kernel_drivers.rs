// SPDX-License-Identifier: Apache-2.0
//! The program at drivers: loaded, attached, and over packets, beside the user-space build of the same code.

#[cfg(test)]
#[path = "support/both.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod both;
#[cfg(test)]
#[path = "support/judge.rs"]
mod judge;
#[cfg(test)]
#[path = "support/kernel_world.rs"]
mod kernel_world;
#[cfg(test)]
#[path = "support/node.rs"]
mod node;
#[cfg(test)]
#[path = "support/raw.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod raw;
#[cfg(test)]
#[path = "support/relayed.rs"]
mod relayed;
#[cfg(test)]
#[path = "support/services.rs"]
mod services;
#[cfg(test)]
#[path = "support/tuple.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod tuple;
#[cfg(test)]
#[path = "support/veth.rs"]
mod veth;
#[cfg(test)]
#[path = "support/wire.rs"]
mod wire;
#[cfg(test)]
#[path = "support/world.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod world;

#[cfg(test)]
mod kernel {
    use weir_abi::IfIndex;
    use weir_datapath::{Acceleration, Attached, Hook};
    use weir_net::Netlink;
    use weir_verdict::Verdict;

    use super::both::Both;
    use super::judge::faults;
    use super::node::{loader, on_a_node};
    use super::relayed::{ACK, Mode, Relayed, SYN};
    use super::veth::veth;
    use super::wire::Wire;
    use super::world::Links;

    const ROOT: &str = "/sys/fs/bpf/weir";

    /// What a test has in each mode: both builds, with the program at the driver, and the far end of its link. A driver
    /// of a pair hands its frames over only where the other end has a program as well.
    fn in_every_mode(test: impl Fn(&Both, &Links, Mode, IfIndex) + Send + 'static) {
        on_a_node(move || {
            let links = Links::make();
            let far = Netlink::open().unwrap().require_link("far").unwrap().index;
            let far = IfIndex(far.get());
            for (number, mode) in Mode::ALL.into_iter().enumerate() {
                let tables = mode.tables(&links);
                let loader = loader(&format!("{ROOT}{number}"));
                let datapath = loader.load(&tables.config).unwrap();
                for device in [links.underlay, far] {
                    datapath.accelerate(device, Acceleration::Native).unwrap();
                }
                let both = Both::new(datapath, tables);
                both.accelerated.set(true);
                test(&both, &links, mode, far);
                for device in [links.underlay, far] {
                    both.datapath.stop_accelerating(device).unwrap();
                }
            }
        });
    }

    fn connections() -> impl Iterator<Item = Relayed> {
        let one = |family, is_tcp| Relayed {
            family,
            is_tcp,
            port: 1000,
        };
        (0..2).flat_map(move |family| [false, true].map(|is_tcp| one(family, is_tcp)))
    }

    /// Connections through the node in every mode: after the first packets both directions are the driver's.
    #[test]
    fn drivers_forward_what_goes_to_other_nodes() {
        in_every_mode(|both, links, mode, _| {
            for connection in connections() {
                talk(both, links, connection, mode);
            }
        });
    }

    /// Frames on the wire come back as the test runs say.
    #[test]
    fn a_real_driver_turns_frames_around() {
        in_every_mode(|both, links, mode, far| {
            let wire = Wire::open(far);
            // What the wire brings is counted in the kernel alone.
            both.thorough.set(false);
            for connection in connections() {
                talk(both, links, connection, mode);
                let name = format!("{mode:?} {connection:?}");
                let question = connection.question(ACK);
                let run = |frame: &[u8]| both.run(&name, Hook::FromNetdev, links.underlay, frame).1;
                let sent = run(&question);
                wire.send(&question);
                assert!(wire.sees(&sent), "{name}: question");
                if let Some(answer) = connection.answer(mode, &sent, ACK) {
                    let sent = run(&answer);
                    wire.send(&answer);
                    assert!(wire.sees(&sent), "{name}: answer");
                }
            }
        });
    }

    fn talk(both: &Both, links: &Links, connection: Relayed, mode: Mode) {
        let name = format!("{mode:?} {connection:?}");
        let send = |frame: &[u8]| {
            let before = both.driven.get();
            let (verdict, sent) = both.run(&name, Hook::FromNetdev, links.underlay, frame);
            assert!(
                matches!(verdict, Verdict::Redirect(_)),
                "{name}: {verdict:?}"
            );
            assert_eq!(faults(&sent), Vec::<String>::new(), "{name}");
            (sent, both.driven.get() > before)
        };
        let (sent, driven) = send(&connection.question(SYN));
        assert!(!driven, "{name}: the first packet is no driver's business");
        if let Some(answer) = connection.answer(mode, &sent, SYN | ACK) {
            send(&answer);
        }
        // A question that nobody had answered when it came is decided on once more when a second has passed.
        let mut once_more = !connection.is_tcp && connection.answer(mode, &sent, ACK).is_some();
        for _ in 0..3 {
            let (mut sent, mut driven) = send(&connection.question(ACK));
            if !driven && std::mem::take(&mut once_more) {
                (sent, driven) = send(&connection.question(ACK));
            }
            assert!(driven, "{name}: question");
            if let Some(answer) = connection.answer(mode, &sent, ACK) {
                assert!(send(&answer).1, "{name}: answer");
            }
        }
    }

    /// A link outlives its datapath and is taken over; who runs the program can be changed; a device that is gone
    /// leaves nothing behind.
    #[test]
    fn links_at_drivers_are_kept_changed_and_removed() {
        on_a_node(|| {
            let (device, _) = veth("underlay", "far");
            let load = || {
                loader(ROOT)
                    .load(&weir_abi::DatapathConfig::DEFAULT)
                    .unwrap()
            };
            let first = load();
            let native = Acceleration::Native;
            assert_eq!(first.accelerate(device, native).unwrap(), Attached::New);
            assert_eq!(
                first.accelerate(device, native).unwrap(),
                Attached::Unchanged
            );
            let old = first.driver_links().unwrap();
            drop(first);

            let mut second = load();
            let activation = second.activate().unwrap();
            assert!(activation.failed.is_empty(), "{:?}", activation.failed);
            let new = second.driver_links().unwrap();
            assert_eq!((old.len(), new.len()), (1, 1));
            assert_ne!(old[0].program, new[0].program);
            assert_eq!(new[0].program, second.programs.at_driver().id());
            assert_eq!((new[0].how, new[0].interface), (native, device));

            // A link that only loses its pin ends some time later, and would be in the way now and then.
            let generic = Acceleration::Generic;
            for how in [generic, native].into_iter().cycle().take(101) {
                assert_eq!(second.accelerate(device, how).unwrap(), Attached::New);
            }
            let links = second.driver_links().unwrap();
            assert_eq!(links.len(), 1);
            assert_eq!(links[0].how, generic);

            Netlink::open()
                .unwrap()
                .delete_link_named("underlay")
                .unwrap();
            assert!(!second.driver_links().unwrap()[0].alive);
            assert!(second.stop_accelerating(device).unwrap());
            assert!(second.driver_links().unwrap().is_empty());
            let error = second.accelerate(IfIndex(4711), native).unwrap_err();
            assert_eq!(
                error.to_string(),
                "cannot attach at_driver at interface 4711"
            );
        });
    }
}
