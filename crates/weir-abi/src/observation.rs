// SPDX-License-Identifier: Apache-2.0
//! Where a packet was seen, and in which state of its connection.

macro_rules! named {
    ($(#[$type_doc:meta])* $type:ident { $($(#[$doc:meta])* $name:ident = $number:literal, $label:literal;)* }) => {
        $(#[$type_doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum $type { $($(#[$doc])* $name = $number,)* }

        impl $type {
            /// Every value, in the order of the numbers.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The value with this number.
            pub const fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }

            /// The name in listings and filters.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }
        }
    };
}

named! {
    /// Observation points, with the numbers and names that the field uses.
    ObservationPoint {
        /// Delivered to a pod of this node.
        ToEndpoint = 0, "to-endpoint";
        /// Into the node's own stack.
        ToHost = 2, "to-host";
        /// Left to the kernel's stack for routing.
        ToStack = 3, "to-stack";
        /// Encapsulated for another node.
        ToOverlay = 4, "to-overlay";
        /// A pod sent it.
        FromEndpoint = 5, "from-endpoint";
        /// The node's own stack sent it.
        FromHost = 7, "from-host";
        /// Came out of the tunnel.
        FromOverlay = 9, "from-overlay";
        /// Came in on an underlay device.
        FromNetwork = 10, "from-network";
        /// Leaves on an underlay device.
        ToNetwork = 11, "to-network";
    }
}

named! {
    /// The state of the connection that a traced packet belongs to.
    TraceReason {
        /// The first packet.
        New = 0, "new";
        /// A later packet of the direction that opened the connection.
        Established = 1, "established";
        /// A packet of the other direction.
        Reply = 2, "reply";
        /// An ICMP error about the connection.
        Related = 3, "related";
        /// A SYN on a closing connection.
        Reopened = 4, "reopened";
        /// Not known.
        Unknown = 5, "unknown";
    }
}

named! {
    /// The programs, as events name the place where something happened.
    Hook {
        /// From a pod (tcx ingress of the host side of its link).
        FromContainer = 1, "from_container";
        /// From the network (tcx ingress of an underlay device).
        FromNetdev = 2, "from_netdev";
        /// To the network (tcx egress of an underlay device).
        ToNetdev = 3, "to_netdev";
        /// From the node to pods (tcx egress of `weir_host`).
        FromHost = 4, "from_host";
    }
}
