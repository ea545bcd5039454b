// SPDX-License-Identifier: Apache-2.0
//! The kinds of objects: which have a namespace, and by which words people ask for them.

/// The kinds without a namespace. A kind that is not known here is taken to have one.
pub(super) fn is_namespaced(kind: &str) -> bool {
    !(matches!(
        kind,
        "Node"
            | "Namespace"
            | "PersistentVolume"
            | "StorageClass"
            | "CustomResourceDefinition"
            | "PriorityClass"
            | "IngressClass"
            | "GatewayClass"
            | "RuntimeClass"
            | "ServiceCIDR"
            | "IPAddress"
            | "AdminNetworkPolicy"
            | "BaselineAdminNetworkPolicy"
            | "ClusterNetworkPolicy"
            | "NetworkLogging"
            | "CSIDriver"
            | "CSINode"
            | "VolumeAttachment"
            | "APIService"
            | "MutatingWebhookConfiguration"
            | "ValidatingWebhookConfiguration"
    ) || kind.starts_with("Cluster")
        || kind.starts_with("CiliumClusterwide")
        || matches!(
            kind,
            "CiliumNode" | "CiliumIdentity" | "CiliumLoadBalancerIPPool"
        ))
}

/// The kind behind any of the words that kubectl takes for it.
pub(crate) fn kind_of_word(word: &str) -> String {
    let lower = word.to_lowercase();
    let known = [
        ("po", "Pod"),
        ("no", "Node"),
        ("ns", "Namespace"),
        ("svc", "Service"),
        ("ep", "Endpoints"),
        ("endpoints", "Endpoints"),
        ("netpol", "NetworkPolicy"),
        ("networkpolicies", "NetworkPolicy"),
        ("nl", "NetworkLogging"),
        ("networklogging", "NetworkLogging"),
        ("deploy", "Deployment"),
        ("ds", "DaemonSet"),
        ("rs", "ReplicaSet"),
        ("sts", "StatefulSet"),
        ("cm", "ConfigMap"),
        ("ing", "Ingress"),
        ("ingresses", "Ingress"),
        ("cnp", "CiliumNetworkPolicy"),
        ("ciliumnetworkpolicies", "CiliumNetworkPolicy"),
        ("pod", "Pod"),
        ("node", "Node"),
        ("namespace", "Namespace"),
        ("service", "Service"),
        ("endpointslice", "EndpointSlice"),
        ("deployment", "Deployment"),
        ("daemonset", "DaemonSet"),
        ("replicaset", "ReplicaSet"),
        ("statefulset", "StatefulSet"),
        ("configmap", "ConfigMap"),
        ("eps", "EndpointSlice"),
        ("networkpolicy", "NetworkPolicy"),
    ];
    let find = |word: &str| {
        known
            .iter()
            .find(|(name, _)| *name == word)
            .map(|(_, kind)| *kind)
    };
    find(&lower)
        .or_else(|| lower.strip_suffix('s').and_then(find))
        .map_or_else(|| word.to_owned(), ToOwned::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_found_by_kubectls_words() {
        for (word, kind) in [
            ("pods", "Pod"),
            ("po", "Pod"),
            ("Pod", "Pod"),
            ("svc", "Service"),
            ("services", "Service"),
            ("netpol", "NetworkPolicy"),
            ("networkpolicies", "NetworkPolicy"),
            ("Widget", "Widget"),
        ] {
            assert_eq!(kind_of_word(word), kind);
        }
    }
}
