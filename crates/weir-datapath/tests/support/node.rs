// SPDX-License-Identifier: Apache-2.0
//! A node to test on: a thread in network and mount namespaces of its own, with an own BPF file system. All of it
//! goes away with the thread.

use std::collections::BTreeMap;
use std::path::Path;
use std::{env, fs, thread};

use weir_datapath::{Loader, MapSizes, PinRoot};
use weir_net::mount;
use weir_net::netns::{Namespace, enter_new};

/// Fails instead of doing nothing where the kernel level is wanted but not possible.
const REQUIRED: &str = "WEIR_REQUIRE_KERNEL";
/// An object to test at run time instead of the embedded one.
const OBJECT: &str = "WEIR_BPF_OBJECT";

/// Runs a test on a fresh node, or says why it cannot.
pub(crate) fn on_a_node(test: impl FnOnce() + Send + 'static) {
    let possible = thread::spawn(|| {
        let problem = prepare().err();
        if problem.is_none() {
            test();
        }
        problem
    });
    let problem = match possible.join() {
        Ok(problem) => problem,
        Err(panic) => std::panic::resume_unwind(panic),
    };
    if let Some(problem) = problem {
        assert!(env::var_os(REQUIRED).is_none(), "{problem}");
        eprintln!("not tested: {problem}");
    }
}

fn prepare() -> Result<(), String> {
    if object().is_none() {
        weir_datapath::embedded_object().map_err(|error| error.to_string())?;
    }
    enter_new(&[Namespace::Network, Namespace::Mount])
        .and_then(|()| mount::bpffs(Path::new("/sys/fs/bpf")))
        .map_err(|error| format!("root is needed: {error}"))
}

fn object() -> Option<Vec<u8>> {
    env::var_os(OBJECT).map(|path| fs::read(path).expect("the object that the environment names"))
}

/// A loader with small maps that pins below a directory of its own.
pub(crate) fn loader(root: &str) -> Loader {
    loader_with(root, &[])
}

/// The same, with some maps of another size.
pub(crate) fn loader_with(root: &str, sizes: &[(&str, u32)]) -> Loader {
    let small = [
        ("flows", 4096),
        ("fragments", 64),
        ("endpoints", 256),
        ("ipcache", 1024),
        ("masq_exempt", 64),
        ("tunnel_mtu", 64),
        ("events", 65_536),
    ];
    let sizes: BTreeMap<String, u32> = small
        .iter()
        .chain(sizes)
        .map(|&(name, size)| (name.to_owned(), size))
        .collect();
    let loader = Loader::new(PinRoot::new(root)).with_sizes(MapSizes::from_config(&sizes).unwrap());
    match object() {
        Some(object) => loader.with_object(object),
        None => loader,
    }
}
