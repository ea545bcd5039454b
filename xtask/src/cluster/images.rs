// SPDX-License-Identifier: Apache-2.0
//! The container images of the cluster and of the tests, without a registry: programs built from Kubernetes' source
//! and programs of this machine's Debian.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::tree::Tree;
use super::{place, programs};
use crate::image::archive::{self, Layer, Start};
use crate::output;
use crate::process::{command, stdout_of};

/// Programs with which tests look at the network from inside a pod.
const NETWORK_PROGRAMS: [&str; 20] = [
    "bash",
    "conntrack",
    "curl",
    "dig",
    "getent",
    "host",
    "hostname",
    "ip",
    "ip6tables",
    "ip6tables-restore",
    "ip6tables-save",
    "iperf",
    "iptables",
    "iptables-restore",
    "iptables-save",
    "nc",
    "nft",
    "nslookup",
    "ss",
    "wget",
];

/// One image: the file that it is packed into, and how it is made.
type Recipe = fn(&Kitchen<'_>) -> Result<()>;

const RECIPES: [(&str, Recipe); 7] = [
    ("pause", pause),
    ("coredns", coredns),
    ("agnhost", agnhost),
    ("glibc-dns-testing", network_programs),
    ("busybox", busybox),
    ("nginx", nginx),
    ("regression-issue-74839", regression),
];

/// Makes the images that are missing.
pub(super) fn build() -> Result<()> {
    let folder = place::images();
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let missing: Vec<_> = RECIPES
        .iter()
        .filter(|(name, _)| !folder.join(format!("{name}.tar")).exists())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    output::step("packing container images");
    let known = known()?;
    for (name, recipe) in missing {
        let work = folder.join(format!("{name}.work"));
        let _ = fs::remove_dir_all(&work);
        recipe(&Kitchen {
            name,
            work: &work,
            known: &known,
        })
        .with_context(|| format!("the test image {name} cannot be made"))?;
        fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))?;
    }
    Ok(())
}

/// A name by which the nodes know an image that was made here.
pub(super) fn name_of(image: &str) -> Result<String> {
    let name = names(&known()?, image).into_iter().next();
    name.with_context(|| format!("the tests know no image of the name {image}"))
}

/// The names of all images that the tests may start, one a line.
fn known() -> Result<String> {
    stdout_of(command(programs::path(programs::TESTS)).arg("-print-images"))
}

fn names(known: &str, image: &str) -> Vec<String> {
    let part = format!("/{image}:");
    let names = known.lines().filter(|name| name.contains(&part));
    // An old one serves as what must not be pulled.
    let names = names.filter(|name| !name.ends_with("/agnhost:2.6"));
    names.map(str::to_owned).collect()
}

/// Where one image is made.
struct Kitchen<'a> {
    name: &'a str,
    work: &'a Path,
    /// The names of all images that the tests may start, one a line.
    known: &'a str,
}

impl Kitchen<'_> {
    /// The names by which tests call an image: they carry a version that follows that of Kubernetes.
    fn names(&self, image: &str) -> Result<Vec<String>> {
        let names = names(self.known, image);
        ensure!(
            !names.is_empty(),
            "the tests know no image of the name {image}"
        );
        Ok(names)
    }

    fn empty(&self) -> Result<Tree> {
        Tree::empty(self.work.join("root"))
    }

    fn with_busybox(&self) -> Result<Tree> {
        Tree::with_busybox(self.work.join("root"))
    }

    fn with_network_programs(&self) -> Result<Tree> {
        let tree = self.with_busybox()?;
        for program in NETWORK_PROGRAMS {
            tree.add(program)?;
        }
        // Debian's busybox prefers its own programs in its own shell, whatever PATH says.
        tree.link("usr/bin/sh", "bash")?;
        tree.link("usr/local/bin/iperf", "/usr/bin/iperf")?;
        // Loaded by name only: iptables' matches and targets, and the resolver's backends.
        let libraries = Path::new("/usr/lib").join(format!("{}-linux-gnu", std::env::consts::ARCH));
        let extensions = libraries.join("xtables");
        let entries = fs::read_dir(&extensions)
            .with_context(|| format!("cannot read {}", extensions.display()))?;
        for entry in entries.flatten() {
            let file = entry.path();
            tree.add_file(&file, file.to_string_lossy().trim_start_matches('/'))?;
        }
        for name in ["libnss_dns.so.2", "libnss_files.so.2"] {
            let file = libraries.join(name);
            tree.add_file(&file, file.to_string_lossy().trim_start_matches('/'))?;
        }
        Ok(tree)
    }

    fn pack(
        &self,
        tree: &Tree,
        names: &[String],
        entrypoint: &[&str],
        arguments: &[&str],
    ) -> Result<()> {
        let mut layer = Layer::default();
        layer.tree(tree.root())?;
        let start = Start {
            path: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            entrypoint,
            arguments,
        };
        let file = place::images().join(format!("{}.tar", self.name));
        archive::write(&file, names, &start, layer)
    }
}

/// The folder of Kubernetes' source, as the cache of Go modules has it.
fn kubernetes_source() -> Result<std::path::PathBuf> {
    let folder = stdout_of(
        command(programs::go()?)
            .args(["list", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes"])
            .current_dir(place::source()),
    )?;
    Ok(folder.trim().into())
}

/// The process that holds a pod's namespaces.
fn pause(kitchen: &Kitchen<'_>) -> Result<()> {
    let tree = kitchen.empty()?;
    let mut compile = command("cc");
    compile
        .args(["-Os", "-s", "-static", "-DVERSION=test", "-o"])
        .arg(tree.root().join("pause"))
        .arg(kubernetes_source()?.join("build/pause/linux/pause.c"));
    stdout_of(&mut compile)?;
    let mut names = kitchen.names("pause")?;
    names.push("images.test/pause:1".to_owned());
    kitchen.pack(&tree, &names, &["/pause"], &[])
}

fn coredns(kitchen: &Kitchen<'_>) -> Result<()> {
    let tree = kitchen.empty()?;
    tree.copy(&programs::path("coredns"), "coredns")?;
    let names = vec!["images.test/coredns:1".to_owned()];
    kitchen.pack(&tree, &names, &["/coredns"], &[])
}

/// What most tests start: a server and client of everything. Some start a DNS server from it.
fn agnhost(kitchen: &Kitchen<'_>) -> Result<()> {
    let tree = kitchen.with_network_programs()?;
    tree.copy(&programs::path("agnhost"), "agnhost")?;
    tree.copy(&programs::path("coredns"), "coredns")?;
    tree.link("agnhost-2", "agnhost")?;
    tree.make_folder("uploads")?;
    let porter = kubernetes_source()?.join("test/images/agnhost/porter");
    for name in ["localhost.crt", "localhost.key"] {
        tree.copy(&porter.join(name), name)?;
    }
    kitchen.pack(&tree, &kitchen.names("agnhost")?, &["/agnhost"], &["pause"])
}

fn network_programs(kitchen: &Kitchen<'_>) -> Result<()> {
    let tree = kitchen.with_network_programs()?;
    let mut names = kitchen.names("glibc-dns-testing")?;
    names.extend(kitchen.names("distroless-iptables")?);
    // Debian's busybox ends by a signal in `wget -T`, which the article types.
    names.push("docker.io/library/busybox:1.36".to_owned());
    kitchen.pack(&tree, &names, &[], &["/bin/sh"])
}

fn busybox(kitchen: &Kitchen<'_>) -> Result<()> {
    let tree = kitchen.with_busybox()?;
    kitchen.pack(&tree, &kitchen.names("busybox")?, &[], &["/bin/sh"])
}

/// Debian's nginx, unpacked beside the machine instead of installed on it.
fn nginx(kitchen: &Kitchen<'_>) -> Result<()> {
    let tree = kitchen.with_busybox()?;
    let packages = kitchen.work.join("packages");
    fs::create_dir_all(&packages).context("cannot make a folder for packages")?;
    stdout_of(
        command("apt-get")
            // The user of apt's own must not need to reach the folder.
            .args(["-o", "APT::Sandbox::User=root"])
            .args(["download", "-qq", "nginx", "nginx-common"])
            .current_dir(&packages),
    )?;
    let unpacked = kitchen.work.join("unpacked");
    for package in fs::read_dir(&packages)
        .context("cannot read the packages")?
        .flatten()
    {
        stdout_of(command("dpkg").arg("-x").arg(package.path()).arg(&unpacked))?;
    }
    tree.add_file(&unpacked.join("usr/sbin/nginx"), "usr/sbin/nginx")?;
    tree.copy(
        &unpacked.join("etc/nginx/mime.types"),
        "etc/nginx/mime.types",
    )?;
    for folder in ["usr/share/nginx/html", "var/lib/nginx", "var/log/nginx"] {
        tree.make_folder(folder)?;
    }
    tree.write(
        "usr/share/nginx/html/index.html",
        "<title>Welcome to nginx!</title>\n",
    )?;
    tree.write(
        "etc/nginx/nginx.conf",
        "user root;\nevents {}\nhttp {\n  include mime.types;\n  \
         server { listen 80; listen [::]:80; root /usr/share/nginx/html; }\n}\n",
    )?;
    let start = ["/usr/sbin/nginx", "-g", "daemon off;"];
    kitchen.pack(&tree, &kitchen.names("nginx")?, &start, &[])
}

/// Sends what a kernel once mistook for an invalid connection.
fn regression(kitchen: &Kitchen<'_>) -> Result<()> {
    let tree = kitchen.empty()?;
    let program = "regression-issue-74839";
    tree.copy(&programs::path(program), program)?;
    let start = format!("/{program}");
    kitchen.pack(&tree, &kitchen.names(program)?, &[&start], &[])
}
