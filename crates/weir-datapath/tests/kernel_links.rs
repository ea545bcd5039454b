// SPDX-License-Identifier: Apache-2.0
//! Programs at interfaces, in the kernel.

#[cfg(test)]
#[path = "support/node.rs"]
mod node;
#[cfg(test)]
#[path = "support/veth.rs"]
mod veth;

#[cfg(test)]
mod kernel {
    use weir_abi::{DatapathConfig, IfIndex};
    use weir_datapath::{Attached, Datapath, Error, Hook, PinRoot};
    use weir_net::Netlink;

    use super::node::{loader, on_a_node};
    use super::veth::veth;

    const ROOT: &str = "/sys/fs/bpf/weir";

    /// The default configuration, loaded.
    fn load() -> Datapath {
        loader(ROOT).load(&DatapathConfig::DEFAULT).unwrap()
    }

    #[test]
    fn links_outlive_the_loader_and_are_updated_by_the_next() {
        on_a_node(|| {
            let (near, far) = veth("near", "far");
            let first = load();
            assert_eq!(
                first.attach(Hook::FromContainer, near).unwrap(),
                Attached::New
            );
            assert_eq!(first.attach(Hook::FromNetdev, far).unwrap(), Attached::New);
            assert_eq!(first.attach(Hook::ToNetdev, far).unwrap(), Attached::New);
            assert_eq!(
                first.attach(Hook::FromContainer, near).unwrap(),
                Attached::Unchanged
            );
            let old = first.programs.get(Hook::FromContainer).id();
            drop(first);

            let mut second = load();
            let program_at_near = |datapath: &Datapath| {
                let links = datapath.links().unwrap();
                assert_eq!(links.len(), 3);
                assert!(links.iter().all(|link| link.alive));
                links
                    .iter()
                    .find(|link| link.interface == near)
                    .unwrap()
                    .program
            };
            assert_eq!(
                program_at_near(&second),
                old,
                "loading alone changes nothing"
            );
            let activation = second.activate().unwrap();
            assert_eq!(activation.updated.len(), 3, "{activation}");
            assert!(activation.failed.is_empty() && activation.removed.is_empty());
            assert_eq!(
                program_at_near(&second),
                second.programs.get(Hook::FromContainer).id()
            );

            let third = load();
            assert_eq!(
                third.attach(Hook::FromContainer, near).unwrap(),
                Attached::Updated
            );
            assert_eq!(third.detach(far).unwrap(), 2);
            assert_eq!(third.detach(far).unwrap(), 0);
            assert_eq!(third.links().unwrap().len(), 1);
        });
    }

    #[test]
    fn links_of_interfaces_that_are_gone_are_removed() {
        on_a_node(|| {
            let (near, _) = veth("near", "far");
            let (other, _) = veth("other", "peer");
            let first = load();
            first.attach(Hook::FromContainer, near).unwrap();
            first.attach(Hook::FromContainer, other).unwrap();
            Netlink::open().unwrap().delete_link_named("near").unwrap();
            let alive: Vec<_> = first
                .links()
                .unwrap()
                .iter()
                .map(|link| (link.interface, link.alive))
                .collect();
            assert_eq!(alive, [(near, false), (other, true)]);
            std::fs::write(PinRoot::default().links().join("nonsense"), []).unwrap_err();

            let mut second = load();
            let activation = second.activate().unwrap();
            assert_eq!(
                activation.removed,
                [format!("from_container-{near}")],
                "{activation}"
            );
            assert_eq!(activation.updated, [format!("from_container-{other}")]);

            Netlink::open().unwrap().delete_link_named("other").unwrap();
            assert_eq!(second.remove_stale_links().unwrap().len(), 1);
            assert!(second.links().unwrap().is_empty());
        });
    }

    #[test]
    fn a_new_interface_with_the_index_of_a_gone_one_gets_its_own_link() {
        on_a_node(|| {
            let (near, _) = veth("near", "far");
            let datapath = load();
            datapath.attach(Hook::FromContainer, near).unwrap();
            Netlink::open().unwrap().delete_link_named("near").unwrap();
            // Indices are handed out anew in a namespace only when asked for by number; the pin is what matters.
            let (again, _) = veth("near", "far");
            let root = PinRoot::default();
            let stale = root.link(Hook::FromContainer, near);
            std::fs::rename(stale, root.link(Hook::FromContainer, again)).unwrap();
            assert_eq!(
                datapath.attach(Hook::FromContainer, again).unwrap(),
                Attached::New
            );
            assert!(datapath.links().unwrap().iter().all(|link| link.alive));
        });
    }

    #[test]
    fn an_interface_that_does_not_exist_is_named() {
        on_a_node(|| {
            let error = load().attach(Hook::FromHost, IfIndex(4711)).unwrap_err();
            assert_eq!(
                error.to_string(),
                "cannot attach from_host at interface 4711"
            );
            assert_eq!(error.errno(), Some(libc::ENODEV));
        });
    }

    #[test]
    fn an_object_that_is_none_of_ours_is_refused_with_the_known_words() {
        on_a_node(|| {
            let broken = loader(ROOT).with_object(vec![0; 64]);
            let error = broken.load(&DatapathConfig::DEFAULT).unwrap_err();
            assert!(matches!(error, Error::Object(_)));
            assert!(
                error
                    .to_string()
                    .starts_with("BPF program compilation failed"),
                "{error}"
            );
        });
    }
}
