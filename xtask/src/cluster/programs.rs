// SPDX-License-Identifier: Apache-2.0
//! The programs of Kubernetes, built from the Go modules in `tests/cluster`. What exists is kept.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::place;
use crate::output;
use crate::process::{command, find_in_path, stdout_of};

/// A program, where its source is below `tests/cluster`, and its package.
type Program = (&'static str, &'static str, &'static str);

/// What a cluster is made of. The order is that of the longest chain of
/// packages: the first build takes minutes, the next ones reuse most of it.
const PROGRAMS: [Program; 10] = [
    ("kube-apiserver", "", "k8s.io/kubernetes/cmd/kube-apiserver"),
    (
        "kube-controller-manager",
        "",
        "k8s.io/kubernetes/cmd/kube-controller-manager",
    ),
    ("kube-scheduler", "", "k8s.io/kubernetes/cmd/kube-scheduler"),
    ("kubelet", "", "k8s.io/kubernetes/cmd/kubelet"),
    ("kubectl", "", "k8s.io/kubernetes/cmd/kubectl"),
    (TESTS, "", "./e2e"),
    ("ginkgo", "", "github.com/onsi/ginkgo/v2/ginkgo"),
    ("agnhost", "", "k8s.io/kubernetes/test/images/agnhost"),
    (
        "regression-issue-74839",
        "",
        "k8s.io/kubernetes/test/images/regression-issue-74839",
    ),
    ("coredns", "coredns", "github.com/coredns/coredns"),
];

/// What Weir replaces; no cluster runs it, the benchmark does.
const KUBE_PROXY: Program = ("kube-proxy", "", "k8s.io/kubernetes/cmd/kube-proxy");

/// The program that holds the end-to-end tests.
pub(super) const TESTS: &str = "e2e.test";

/// Where a program lies: what `KUBEBUILDER_ASSETS` holds stands above what is built here; etcd is the machine's.
pub(crate) fn path(name: &str) -> PathBuf {
    asset(name).unwrap_or_else(|| {
        if name == "etcd" {
            PathBuf::from(name)
        } else {
            place::programs().join(name)
        }
    })
}

fn asset(name: &str) -> Option<PathBuf> {
    let folder = env::var_os("KUBEBUILDER_ASSETS").filter(|folder| !folder.is_empty())?;
    Some(Path::new(&folder).join(name)).filter(|file| file.is_file())
}

/// The folder that has an API server and its etcd.
pub(super) fn api_server() -> Option<PathBuf> {
    let given = env::var_os("KUBEBUILDER_ASSETS").filter(|folder| !folder.is_empty());
    let folder = given.map_or_else(place::programs, PathBuf::from);
    let complete = ["etcd", "kube-apiserver"]
        .iter()
        .all(|name| folder.join(name).is_file());
    complete.then_some(folder)
}

/// Builds what a cluster is made of, as far as it is missing.
pub(super) fn build() -> Result<()> {
    build_missing(PROGRAMS.iter())
}

/// kube-proxy and what feeds it.
fn kube_proxy() -> impl Iterator<Item = &'static Program> {
    let fed_by = |name: &str| ["kube-apiserver", "kubectl"].contains(&name);
    let programs = PROGRAMS.iter().filter(move |(name, ..)| fed_by(name));
    programs.chain([&KUBE_PROXY])
}

/// Builds kube-proxy and what feeds it.
pub(crate) fn build_kube_proxy() -> Result<()> {
    build_missing(kube_proxy())
}

/// Whether kube-proxy and what feeds it are there, or can be built.
pub(crate) fn kube_proxy_can_be_had() -> bool {
    go().is_ok() || kube_proxy().all(|(name, ..)| path(name).exists())
}

fn build_missing(programs: impl Iterator<Item = &'static Program>) -> Result<()> {
    let missing: Vec<_> = programs.filter(|(name, ..)| !path(name).exists()).collect();
    fs::create_dir_all(place::programs())
        .with_context(|| format!("cannot make {}", place::programs().display()))?;
    link_etcd()?;
    if missing.is_empty() {
        return Ok(());
    }
    let go = Go::find()?;
    for (name, folder, package) in missing {
        go.build(name, &place::source().join(folder), package)?;
    }
    Ok(())
}

/// Puts the machine's etcd beside the API server, where tests look for it.
fn link_etcd() -> Result<()> {
    let link = place::programs().join("etcd");
    let Some(etcd) = find_in_path("etcd").filter(|_| !link.exists()) else {
        return Ok(());
    };
    symlink(&etcd, &link).with_context(|| format!("cannot make {}", link.display()))
}

/// The `go` command.
pub(super) fn go() -> Result<PathBuf> {
    let usual = Path::new("/usr/local/go/bin/go");
    find_in_path("go")
        .or_else(|| usual.is_file().then(|| usual.to_owned()))
        .context(
            "the test cluster needs Go 1.26 or newer to build Kubernetes, and there is no `go` in PATH: \
             install it from https://go.dev/dl",
        )
}

/// The Go toolchain, and what its programs call themselves.
struct Go {
    program: PathBuf,
    flags: String,
}

impl Go {
    fn find() -> Result<Self> {
        let program = go()?;
        let mut list = command(&program);
        list.args(["list", "-m", "-f", "{{.Version}}", "k8s.io/kubernetes"])
            .current_dir(place::source());
        let version = stdout_of(&mut list)
            .context("the test cluster cannot read its Go module in tests/cluster")?;
        Ok(Self {
            program,
            flags: link_flags(version.trim()),
        })
    }

    /// Without cgo throughout: what goes into images is static, and packages that all programs share are compiled once.
    fn build(&self, name: &str, folder: &Path, package: &str) -> Result<()> {
        output::step(format_args!("building {name}"));
        let fresh = place::programs().join(format!("{name}.new"));
        let mut build = command(&self.program);
        if name == TESTS {
            build.args(["test", "-c"]);
        } else {
            build.arg("build");
        }
        build
            // Linking strips what debuggers read; not making it first takes a twelfth off the time.
            .args(["-gcflags=all=-dwarf=false", "-ldflags", &self.flags, "-o"])
            .arg(&fresh)
            .arg(package)
            .current_dir(folder)
            .env("CGO_ENABLED", "0");
        if let Err(error) = stdout_of(&mut build) {
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default();
            bail!(
                "the test cluster cannot build {name}, which takes Go and a module proxy (GOPROXY): {last}"
            );
        }
        fs::rename(&fresh, place::programs().join(name))
            .with_context(|| format!("cannot write {}", fresh.display()))
    }
}

/// Kubernetes built elsewhere than in its own repository does not know its version.
fn link_flags(version: &str) -> String {
    let minor = version
        .trim_start_matches("v1.")
        .split('.')
        .next()
        .unwrap_or_default();
    let mut flags = "-s -w".to_owned();
    for package in [
        "k8s.io/component-base/version",
        "k8s.io/client-go/pkg/version",
    ] {
        let _ = write!(
            flags,
            " -X {package}.gitVersion={version} -X {package}.gitMajor=1 -X {package}.gitMinor={minor} \
             -X {package}.gitTreeState=clean"
        );
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_know_their_version() {
        let flags = link_flags("v1.36.3");
        assert!(flags.contains("component-base/version.gitVersion=v1.36.3 "));
        assert!(flags.contains("client-go/pkg/version.gitMinor=36 "));
    }
}
