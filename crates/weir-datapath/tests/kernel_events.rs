// SPDX-License-Identifier: Apache-2.0
//! Events and test runs, in the kernel.

#[cfg(test)]
#[path = "support/node.rs"]
mod node;
#[cfg(test)]
#[path = "support/veth.rs"]
mod veth;

#[cfg(test)]
mod kernel {
    use std::os::fd::AsFd as _;

    use weir_abi::config::features;
    use weir_abi::counter::Counter;
    use weir_abi::event::{EVENT_VERSION, EventRecord};
    use weir_abi::{DatapathConfig, IfIndex};
    use weir_datapath::{Datapath, EventSource, Hook, TestRun, per_packet};
    use zerocopy::{FromBytes as _, IntoBytes as _};

    use super::node::{loader, on_a_node};
    use super::veth::veth;

    const ROOT: &str = "/sys/fs/bpf/weir";

    /// The default configuration, loaded.
    fn load() -> Datapath {
        loader(ROOT).load(&DatapathConfig::DEFAULT).unwrap()
    }

    /// A frame of a protocol that nobody forwards, so that every packet is an event.
    const FRAME: [u8; 60] = {
        let mut frame = [0; 60];
        frame[12] = 0x12;
        frame[13] = 0x34;
        frame
    };

    #[test]
    fn events_arrive_in_order_and_losses_are_counted() {
        on_a_node(|| {
            let (near, _) = veth("near", "far");
            let datapath = load();
            let mut source = EventSource::open(&datapath.maps).unwrap();
            assert!(source.as_fd().try_clone_to_owned().is_ok());
            assert_eq!(source.drain(10, |_| {}), 0);
            let program = datapath.programs.get(Hook::FromContainer);
            let run = TestRun::new(&FRAME).device(near).ingress(near);
            run.clone().repeat(3).run(program).unwrap();
            let mut records = Vec::new();
            let mut keep = |bytes: &[u8]| {
                let mut record = EventRecord::default();
                let length = bytes.len().min(size_of::<EventRecord>());
                record.as_mut_bytes()[..length].copy_from_slice(&bytes[..length]);
                records.push(record);
            };
            assert_eq!(source.drain(2, &mut keep), 2);
            assert_eq!(source.drain(10, &mut keep), 1);
            for record in &records {
                assert_eq!((record.version, record.ifindex), (EVENT_VERSION, near));
                assert_eq!(record.packet_length, 60);
            }

            run.repeat(1000).run(program).unwrap();
            let read = source.drain(2000, |_| {}) as u64;
            let lost = datapath.maps.counter(Counter::EventsLost).unwrap();
            assert!(lost > 0, "{read} read, {lost} lost");
            assert_eq!(read + lost, 1000);
        });
    }

    #[test]
    fn a_dry_run_leaves_no_trace() {
        on_a_node(|| {
            let datapath = load();
            let dry = DatapathConfig {
                features: DatapathConfig::DEFAULT.features | features::DRY_RUN,
                ..DatapathConfig::DEFAULT
            };
            let programs = loader(ROOT).load_programs(&dry).unwrap();
            let mut source = EventSource::open(&datapath.maps).unwrap();
            for &hook in Hook::ALL {
                TestRun::new(&FRAME).run(programs.get(hook)).unwrap();
            }
            assert_eq!(source.drain(10, |_| {}), 0);
            assert!(datapath.maps.metrics.sums().unwrap().is_empty());
        });
    }

    #[test]
    fn a_test_run_answers_with_packet_context_and_time() {
        on_a_node(|| {
            let (near, _) = veth("near", "far");
            let datapath = load();
            let program = datapath.programs.get(Hook::FromContainer);
            let run = TestRun::new(&FRAME).device(near).mark(7);
            let output = run.run(program).unwrap();
            assert_eq!(output.packet.len(), FRAME.len());
            assert_eq!(
                (output.context.ifindex, output.context.mark),
                (near.get(), 7)
            );
            assert!(per_packet(program, &[run], 100).unwrap() > 0.0);

            let nowhere = TestRun::new(&FRAME).device(IfIndex(4711));
            assert_eq!(
                nowhere.run(program).unwrap_err().errno(),
                Some(libc::ENODEV)
            );
            let short = TestRun::new(&FRAME[..10]).run(program).unwrap_err();
            assert_eq!(
                short.to_string(),
                "cannot run `from_container` over a packet of 10 bytes"
            );
        });
    }

    #[test]
    fn records_can_be_read_as_they_are_written() {
        let record = EventRecord {
            packet_length: 60,
            ..EventRecord::default()
        };
        assert_eq!(
            EventRecord::read_from_bytes(record.as_bytes()).unwrap(),
            record
        );
    }
}
