// SPDX-License-Identifier: Apache-2.0
//! Traffic between pods of labs that differ in nothing but their dataplane.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::report::{Figure, Target, median};
use super::{Bench, Family, traffic};
use crate::output;
use crate::process::{root_command, run_step, stdout_of};
use crate::workspace;

/// A lab of one dataplane.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Side {
    WeirNative,
    KernelRouting,
    WeirTunnel,
    KernelVxlan,
}

impl Side {
    const ALL: [Self; 4] = [
        Self::WeirNative,
        Self::KernelRouting,
        Self::WeirTunnel,
        Self::KernelVxlan,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::WeirNative => "bench-weir-native",
            Self::KernelRouting => "bench-kernel-routing",
            Self::WeirTunnel => "bench-weir-tunnel",
            Self::KernelVxlan => "bench-kernel-vxlan",
        }
    }

    fn config(self) -> &'static str {
        match self {
            Self::WeirNative => "dataplane: weir\nagent: {routingMode: native}\n",
            Self::KernelRouting => "dataplane: kernel-routing\n",
            Self::WeirTunnel => "dataplane: weir\nagent: {routingMode: tunnel}\n",
            Self::KernelVxlan => "dataplane: kernel-vxlan\n",
        }
    }
}

/// Where the server is, seen from the client.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Place {
    SameNode,
    OtherNode,
}

/// One ratio: Weir's rate over the kernel's.
struct Comparison {
    name: &'static str,
    weir: Side,
    kernel: Side,
    place: Place,
    /// Targets for `stream`, `request` and `connect`.
    targets: [Target; 3],
}

const KINDS: [&str; 3] = ["stream", "request", "connect"];

const COMPARISONS: [Comparison; 3] = [
    Comparison {
        name: "one node, native / kernel routing",
        weir: Side::WeirNative,
        kernel: Side::KernelRouting,
        place: Place::SameNode,
        targets: [Target::AtLeast(1.05), Target::AtLeast(1.05), Target::None],
    },
    Comparison {
        name: "two nodes, native / kernel routing",
        weir: Side::WeirNative,
        kernel: Side::KernelRouting,
        place: Place::OtherNode,
        targets: [Target::AtLeast(1.0), Target::AtLeast(1.0), Target::None],
    },
    Comparison {
        name: "two nodes, tunnel / kernel VXLAN",
        weir: Side::WeirTunnel,
        kernel: Side::KernelVxlan,
        place: Place::OtherNode,
        targets: [Target::AtLeast(1.0), Target::AtLeast(1.15), Target::None],
    },
];

const CONFIG: &str = "\
nodes:
  - {name: n1, addresses: [172.18.0.2, \"fd00:18::2\"], podCIDRs: [10.244.1.0/24, \"fd00:244:1::/64\"]}
  - {name: n2, addresses: [172.18.0.3, \"fd00:18::3\"], podCIDRs: [10.244.2.0/24, \"fd00:244:2::/64\"]}
";

/// The port that the servers listen on.
const PORT: u16 = 7000;

pub(super) fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let labs = Labs::up(bench)?;
    let mut figures = Vec::new();
    for comparison in &COMPARISONS {
        for (kind, target) in KINDS.iter().zip(comparison.targets) {
            output::step(format_args!("{kind}: {}", comparison.name));
            figures.push(labs.compare(comparison, kind, target)?);
        }
    }
    Ok(figures)
}

/// The labs of all sides; they go when this is dropped.
struct Labs<'a> {
    bench: &'a Bench,
    traffic: PathBuf,
}

impl<'a> Labs<'a> {
    fn up(bench: &'a Bench) -> Result<Self> {
        let labs = Self {
            bench,
            traffic: traffic::build()?,
        };
        let folder = workspace::target_dir().join("bench");
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let manifest = folder.join("pods.yaml");
        write(&manifest, &pods(&labs.traffic))?;
        for side in Side::ALL {
            let config = folder.join(format!("{}.yaml", side.name()));
            write(&config, &format!("{CONFIG}{}", side.config()))?;
            let mut up = labs.weir(&["lab", "up", "--name", side.name(), "--config"])?;
            up.arg(&config).arg("-f").arg(&manifest);
            run_step(&format!("lab {}", side.name()), &mut up)?;
        }
        Ok(labs)
    }

    fn weir(&self, args: &[&str]) -> Result<Command> {
        let mut command = root_command(&self.bench.weir)?;
        command.args(args).current_dir(workspace::root());
        Ok(command)
    }

    /// Measures both sides in turns.
    fn compare(&self, comparison: &Comparison, kind: &str, target: Target) -> Result<Figure> {
        let (mut weir, mut kernel, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        // The first round opens flows and fills caches on both sides; it does not count.
        for round in 0..=self.bench.rounds {
            let ours = self.rate(comparison.weir, comparison.place, kind)?;
            let theirs = self.rate(comparison.kernel, comparison.place, kind)?;
            if round > 0 {
                weir.push(ours);
                kernel.push(theirs);
                ratios.push(ours / theirs);
            }
        }
        let middle = |values: &[f64]| median(values).context("no round was measured");
        let (weir, kernel) = (middle(&weir)?, middle(&kernel)?);
        Ok(Figure {
            name: format!("{kind}: {}", comparison.name),
            // Of neighbours in time: a machine that slows down half way moves both sides of a ratio.
            value: middle(&ratios)?,
            unit: "x",
            target,
            note: format!("({} / {})", rate_text(kind, weir), rate_text(kind, kernel)),
        })
    }

    fn rate(&self, side: Side, place: Place, kind: &str) -> Result<f64> {
        let server = match (place, self.bench.family) {
            (Place::SameNode, Family::V4) => format!("10.244.1.20:{PORT}"),
            (Place::OtherNode, Family::V4) => format!("10.244.2.20:{PORT}"),
            (Place::SameNode, Family::V6) => format!("[fd00:244:1::20]:{PORT}"),
            (Place::OtherNode, Family::V6) => format!("[fd00:244:2::20]:{PORT}"),
        };
        let mut command =
            self.weir(&["lab", "exec", "--name", side.name(), "bench/client", "--"])?;
        command.arg(&self.traffic).args([
            "traffic",
            kind,
            &server,
            "--for-ms",
            &self.bench.for_ms.to_string(),
        ]);
        let text = stdout_of(&mut command)?;
        text.trim()
            .parse()
            .with_context(|| format!("`{}` is no rate", text.trim()))
    }
}

impl Drop for Labs<'_> {
    fn drop(&mut self) {
        for side in Side::ALL {
            if let Ok(mut down) = self.weir(&["lab", "down", "--name", side.name()]) {
                let _ = stdout_of(&mut down);
            }
        }
    }
}

fn rate_text(kind: &str, rate: f64) -> String {
    if kind == "stream" {
        format!("{:.1} Gbit/s", rate / 1e9)
    } else {
        format!("{rate:.0}/s")
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// A client and a server on the first node, a server on the second; every address is fixed.
fn pods(traffic: &Path) -> String {
    let mut text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: bench}\n".to_owned();
    for (name, node, host) in [("client", 1, 10), ("near", 1, 20), ("far", 2, 20)] {
        let _ = write!(
            text,
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: bench, labels: {{app: {name}}}}}\n\
             spec:\n  nodeName: n{node}\n  containers:\n    - name: main\n      image: bench\n      \
             command: [\"{}\", traffic, serve, \"[::]:{PORT}\"]\n      ports: [{{containerPort: {PORT}}}]\n\
             status:\n  podIP: 10.244.{node}.{host}\n  podIPs: [{{ip: 10.244.{node}.{host}}}, {{ip: \"fd00:244:{node}::{host}\"}}]\n",
            traffic.display()
        );
    }
    text
}
