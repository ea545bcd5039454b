// SPDX-License-Identifier: Apache-2.0
//! Options about the ends of packets: the same ones for either end, for the source and for the destination.

use weir_observe::flow::{End, LabelFilter, Pattern, PodFilter};

macro_rules! end {
    ($name:ident, $whose:literal, $pod:literal, $namespace:literal, $label:literal, $ip:literal, $port:literal, $identity:literal $(, $short:literal, $short_label:literal)?) => {
        #[derive(clap::Args)]
        pub(super) struct $name {
            #[doc = concat!("Only ", $whose, " pod: NAMESPACE/NAME, or NAMESPACE/ and the beginning of a name")]
            #[arg(long = $pod, id = $pod, value_name = "POD", value_delimiter = ',')]
            pods: Vec<PodFilter>,
            #[doc = concat!("Only ", $whose, " namespace")]
            #[arg($(short = $short,)? long = $namespace, id = $namespace, value_name = "NAMESPACE", value_delimiter = ',')]
            namespaces: Vec<String>,
            #[doc = concat!("Only ", $whose, " pod with all of these labels: KEY=VALUE,KEY")]
            #[arg($(short = $short_label,)? long = $label, id = $label, value_name = "LABELS")]
            labels: Vec<LabelFilter>,
            #[doc = concat!("Only ", $whose, " address or range")]
            #[arg(long = $ip, id = $ip, value_name = "IP", value_delimiter = ',')]
            addresses: Vec<Pattern>,
            #[doc = concat!("Only ", $whose, " port")]
            #[arg(long = $port, id = $port, value_name = "PORT", value_delimiter = ',')]
            ports: Vec<u16>,
            #[doc = concat!("Only ", $whose, " identity")]
            #[arg(long = $identity, id = $identity, value_name = "ID", value_delimiter = ',')]
            identities: Vec<u32>,
        }

        impl std::convert::From<$name> for End {
            fn from(typed: $name) -> Self {
                let $name { pods, namespaces, labels, addresses, ports, identities } = typed;
                Self { pods, namespaces, labels, addresses, ports, identities }
            }
        }
    };
}

end!(
    Either,
    "packets from or to this",
    "pod",
    "namespace",
    "label",
    "ip",
    "port",
    "identity",
    'n',
    'l'
);
end!(
    From,
    "packets from this",
    "from-pod",
    "from-namespace",
    "from-label",
    "from-ip",
    "from-port",
    "from-identity"
);
end!(
    To,
    "packets to this",
    "to-pod",
    "to-namespace",
    "to-label",
    "to-ip",
    "to-port",
    "to-identity"
);
