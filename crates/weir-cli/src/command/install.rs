// SPDX-License-Identifier: Apache-2.0
//! `install` and `uninstall`: manifests for `kubectl`.
//!
//! They come from the templates of the Helm chart, so both ways of installing make the same objects.

mod chart;
mod settings;

use crate::command::{Context, Outcome};
use crate::error::CliError;
use crate::output::{style, talk};
use chart::{Image, Values};
use clap::ValueEnum;
use settings::{Setting, Settings};
use weir_model::Namespace;

/// Print what runs Weir on a cluster, for `kubectl apply -f -`
///
/// The configuration of the agents is the ConfigMap weir-config. Applied again with other settings, the agents are
/// started again, node by node.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
                  weir install --set apiServer=https://10.0.0.1:6443 | kubectl apply -f -\n  \
                  weir install --set routingMode=native --set mapSizes.flows=1048576 | kubectl apply -f -")]
pub(crate) struct Args {
    /// A field of the agent's configuration, dotted for nested ones; may be given many times
    ///
    /// The value is YAML; where a list is wanted, its elements may be separated by commas.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<Setting>,
    /// The image that the nodes run
    #[arg(long, default_value = "weir.dev/weir:dev")]
    image: Image,
    #[command(flatten)]
    place: Place,
}

/// Print what `weir install` has made, for `kubectl delete -f -`
///
/// Each agent that ends with its DaemonSet takes the CNI configuration off its node: new pods wait for another plugin, or
/// use it at once where one is there. Pods that run keep their network until they are moved.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  weir uninstall | kubectl delete -f -")]
pub(crate) struct UninstallArgs {
    #[command(flatten)]
    place: Place,
}

#[derive(clap::Args)]
struct Place {
    /// Name of the DaemonSet; commands and scripts of Cilium ask for cilium, those of GKE for anetd
    #[arg(long, value_enum, default_value_t = Name::Cilium)]
    name: Name,
    /// Namespace that everything is in
    #[arg(long, short, default_value = "kube-system")]
    namespace: Namespace,
}

/// What the DaemonSet may be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Name {
    Cilium,
    Anetd,
    Weir,
}

impl Name {
    const fn text(self) -> &'static str {
        match self {
            Self::Cilium => "cilium",
            Self::Anetd => "anetd",
            Self::Weir => "weir",
        }
    }
}

impl Place {
    fn values(self, image: Image, config: Settings) -> Values {
        Values {
            name: self.name.text(),
            namespace: self.namespace,
            image,
            config,
        }
    }
}

pub(super) fn run(args: Args, context: &mut Context) -> Result<Outcome, CliError> {
    let config = Settings::new(args.set)?;
    if !config.has("apiServer") {
        talk(
            "hint",
            style::HINT,
            "where no kube-proxy runs, the agents find the API server by its own address alone: --set apiServer=https://HOST:PORT",
        );
    }
    let values = args.place.values(args.image, config);
    context.printer.line(values.manifests()?.trim_end())?;
    Ok(Outcome::Fine)
}

pub(super) fn uninstall(args: UninstallArgs, context: &mut Context) -> Result<Outcome, CliError> {
    let values = args.place.values(Image::default(), Settings::default());
    for object in values.objects()? {
        context.printer.line("---")?;
        context.printer.line(object.trim_end())?;
    }
    Ok(Outcome::Fine)
}
