// SPDX-License-Identifier: Apache-2.0
//! What the table of each kind shows, in the words of kubectl.

use serde_json::Value;

use crate::object::Object;

/// A title, and the cell of an object.
pub(super) type Column = (&'static str, fn(&Object) -> String);

/// The columns behind the name.
pub(super) fn columns(kind: &str) -> &'static [Column] {
    match kind {
        "Pod" => &[
            ("READY", ready),
            ("STATUS", |pod| {
                let phase = pod.text("/status/phase").unwrap_or("Pending");
                let leaves = pod.get("/metadata/deletionTimestamp").is_some();
                if leaves { "Terminating" } else { phase }.to_owned()
            }),
            ("RESTARTS", restarts),
            ("IP", |pod| {
                or_none(fields(pod.list("/status/podIPs"), "ip"))
            }),
            ("NODE", |pod| {
                or_none(pod.text("/spec/nodeName").unwrap_or_default().to_owned())
            }),
        ],
        "Node" => &[
            ("INTERNAL-IP", |node| {
                let addresses = node.list("/status/addresses").iter();
                let internal = addresses.filter(|entry| entry["type"] == "InternalIP");
                let internal = internal.filter_map(|entry| entry["address"].as_str());
                internal.collect::<Vec<_>>().join(",")
            }),
            ("POD-CIDRS", |node| node.texts("/spec/podCIDRs").join(",")),
        ],
        "Service" => &[
            ("TYPE", |service| {
                service.text("/spec/type").unwrap_or("ClusterIP").to_owned()
            }),
            ("CLUSTER-IP", |service| {
                or_none(service.texts("/spec/clusterIPs").join(","))
            }),
            ("EXTERNAL-IP", external),
            ("PORT(S)", |service| {
                let ports = service.list("/spec/ports").iter().map(|port| {
                    let number = &port["port"];
                    let protocol = port["protocol"].as_str().unwrap_or("TCP");
                    match port["nodePort"].as_u64() {
                        Some(node) => format!("{number}:{node}/{protocol}"),
                        None => format!("{number}/{protocol}"),
                    }
                });
                or_none(ports.collect::<Vec<_>>().join(","))
            }),
        ],
        "EndpointSlice" => &[
            ("ADDRESSTYPE", |slice| {
                slice.text("/addressType").unwrap_or_default().to_owned()
            }),
            ("PORTS", |slice| {
                let ports = slice.list("/ports").iter();
                let numbers = ports.map(|port| port["port"].to_string());
                or_none(numbers.collect::<Vec<_>>().join(","))
            }),
            ("ENDPOINTS", |slice| {
                or_none(
                    slice
                        .list("/endpoints")
                        .iter()
                        .map(endpoint)
                        .collect::<Vec<_>>()
                        .join(","),
                )
            }),
        ],
        _ => &[],
    }
}

fn ready(pod: &Object) -> String {
    let sidecars = pod.list("/spec/initContainers").iter();
    let sidecars = sidecars.filter(|container| container["restartPolicy"] == "Always");
    let all = pod.list("/spec/containers").len() + sidecars.count();
    let statuses = ["/status/containerStatuses", "/status/initContainerStatuses"];
    let statuses = statuses.into_iter().flat_map(|list| pod.list(list));
    let ready = statuses.filter(|status| status["ready"] == true).count();
    format!("{ready}/{all}")
}

fn restarts(pod: &Object) -> String {
    let statuses = pod.list("/status/containerStatuses").iter();
    let restarts = statuses.filter_map(|status| status["restartCount"].as_u64());
    restarts.sum::<u64>().to_string()
}

fn external(service: &Object) -> String {
    let name = service.text("/spec/externalName");
    let mut words: Vec<String> = name.map(ToOwned::to_owned).into_iter().collect();
    for entry in service.list("/status/loadBalancer/ingress") {
        let word = entry["ip"].as_str().or(entry["hostname"].as_str());
        words.extend(word.map(ToOwned::to_owned));
    }
    words.extend(service.texts("/spec/externalIPs"));
    if words.is_empty() && service.text("/spec/type") == Some("LoadBalancer") {
        return "<pending>".to_owned();
    }
    or_none(words.join(","))
}

/// An endpoint that gets no new connections says why.
fn endpoint(endpoint: &Value) -> String {
    let addresses = endpoint["addresses"].as_array().into_iter().flatten();
    let addresses: Vec<&str> = addresses.filter_map(Value::as_str).collect();
    let conditions = &endpoint["conditions"];
    let mut word = addresses.join("/");
    if conditions["terminating"] == true {
        word += "(terminating)";
    } else if conditions["ready"] == false {
        word += "(not ready)";
    }
    word
}

fn fields(list: &[Value], field: &str) -> String {
    let entries: Vec<&str> = list
        .iter()
        .filter_map(|entry| entry[field].as_str())
        .collect();
    entries.join(",")
}

fn or_none(text: String) -> String {
    if text.is_empty() {
        "<none>".to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let object = Object::parse_all(text).unwrap().remove(0);
        let cells = columns(object.kind()).iter().map(|(_, cell)| cell(&object));
        assert_eq!(cells.collect::<Vec<_>>().join(" "), expected);
    }

    #[test]
    fn services_and_slices_are_told_in_a_line() {
        check(
            "apiVersion: v1\nkind: Service\nmetadata: {name: a}\n\
             spec: {type: LoadBalancer, clusterIPs: [10.96.0.1], ports: [{port: 80, nodePort: 30000}, {port: 53, protocol: UDP}]}\n",
            "LoadBalancer 10.96.0.1 <pending> 80:30000/TCP,53/UDP",
        );
        check(
            "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {type: ExternalName, externalName: example.org}\n",
            "ExternalName <none> example.org <none>",
        );
        check(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: a}\naddressType: IPv4\nports: [{port: 80}]\n\
             endpoints: [{addresses: [10.0.0.1]}, {addresses: [10.0.0.2], conditions: {ready: false}}, {addresses: [10.0.0.3], conditions: {ready: false, terminating: true}}]\n",
            "IPv4 80 10.0.0.1,10.0.0.2(not ready),10.0.0.3(terminating)",
        );
    }
}
