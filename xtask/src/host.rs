// SPDX-License-Identifier: Apache-2.0
//! What this machine must have before the real datapath can run on it. Each check names the feature that is missing.

use std::fs;
use std::path::Path;

use anyhow::{Result, bail};

use crate::process::{find_in_path, is_root};

/// Kernel 6.6 brought tcx, the attachment that Weir's programs use.
const OLDEST_KERNEL: (u32, u32) = (6, 6);

/// Fails with a line for every feature that the real datapath needs and this machine lacks.
pub(crate) fn require() -> Result<()> {
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    let list: Vec<String> = missing.iter().map(|what| format!("  - {what}")).collect();
    bail!("this machine cannot run the datapath:\n{}", list.join("\n"));
}

fn missing() -> Vec<String> {
    let mut missing = Vec::new();
    if !is_root() && find_in_path("sudo").is_none() {
        missing.push(
            "root: the kernel loads programs for root alone; run as root or install sudo"
                .to_owned(),
        );
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    match kernel_version(&release) {
        Some(version) if version < OLDEST_KERNEL => missing.push(format!(
            "tcx links: kernel {} is older than {}.{}",
            release.trim(),
            OLDEST_KERNEL.0,
            OLDEST_KERNEL.1
        )),
        Some(_) => {}
        None => missing.push(format!(
            "a Linux kernel: `{}` is no version that can be read",
            release.trim()
        )),
    }
    match fs::read("/sys/kernel/btf/vmlinux") {
        Ok(btf) if !contains(&btf, b"tcx_link_attach") => {
            missing.push("tcx links: the kernel is built without CONFIG_NET_XGRESS".to_owned());
        }
        Ok(_) => {}
        Err(_) => missing.push(
            "BTF: /sys/kernel/btf/vmlinux is not there (CONFIG_DEBUG_INFO_BTF, sysfs mounted)"
                .to_owned(),
        ),
    }
    if !fs::read_to_string("/proc/filesystems").is_ok_and(|list| list.contains("cgroup2")) {
        missing.push("cgroup v2: the kernel is built without it".to_owned());
    }
    if !fs::read_to_string("/proc/filesystems")
        .is_ok_and(|list| list.lines().any(|line| line.ends_with("\tbpf")))
    {
        missing.push("bpffs: the kernel is built without CONFIG_BPF_SYSCALL".to_owned());
    }
    if !has_module("veth", release.trim()) {
        missing.push("veth: the kernel has no such driver (CONFIG_VETH)".to_owned());
    }
    missing
}

/// Whether the driver is loaded, built in or can be loaded; where nothing tells, it is taken to be there.
fn has_module(name: &str, release: &str) -> bool {
    if Path::new("/sys/module").join(name).exists() {
        return true;
    }
    let modules = Path::new("/lib/modules").join(release);
    let file = format!("/{name}.ko");
    let lists: Vec<String> = ["modules.builtin", "modules.dep"]
        .iter()
        .filter_map(|list| fs::read_to_string(modules.join(list)).ok())
        .collect();
    lists.is_empty() || lists.iter().any(|list| list.contains(&file))
}

fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.trim().split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_versions_of_all_distributions_are_read() {
        assert_eq!(kernel_version("6.6.0-1-amd64\n"), Some((6, 6)));
        assert_eq!(kernel_version("6.18.44-custom"), Some((6, 18)));
        assert_eq!(kernel_version("nonsense"), None);
    }
}
