// SPDX-License-Identifier: Apache-2.0
//! Names, states and reasons.

use std::sync::Arc;

use weir_model::{
    Change, Endpoint, Family, Labels, NodeName, Pod, PodName, PodRef, TargetPort, TrafficPolicy,
};

use super::*;
use crate::service::tests::worlds::{endpoint, service, settings, slice};
use weir_model::{EndpointSlice, Touched};

fn listed(changes: impl IntoIterator<Item = Change>) -> Vec<FrontendListing> {
    let mut world = World::default();
    for change in changes {
        world.apply(change);
    }
    let mut compiler = ServiceCompiler::new();
    compiler.update(&world, &Touched::everything(), &settings());
    compiler.listing(&world).collect()
}

fn pod(name: &str, app: &str, addresses: &[&str]) -> Change {
    Change::Pod(Arc::new(Pod {
        reference: PodRef::new("shop", name).unwrap(),
        labels: Labels::new([("app", app)]).unwrap(),
        node: Some(NodeName::new("n1").unwrap()),
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        host_network: false,
        container_ports: Vec::new(),
        created: 0,
        workload: None,
        uid: None,
        announced: false,
    }))
}

fn web(change: impl FnOnce(&mut Service)) -> Change {
    let mut service = service("web", "10.96.0.1");
    change(&mut service);
    Change::Service(Arc::new(service))
}

fn sliced(slice: EndpointSlice) -> Change {
    Change::EndpointSlice(Arc::new(slice))
}

fn reason(changes: impl IntoIterator<Item = Change>) -> String {
    let listing = listed(changes).into_iter().next().unwrap();
    listing.internal_reason.unwrap().to_string()
}

#[test]
fn a_frontend_is_shown_with_everything_behind_it() {
    let unready = Endpoint {
        ready: false,
        serving: false,
        ..endpoint("10.1.0.2", 2)
    };
    let named = Endpoint {
        pod: PodName::new("web-1").ok(),
        ..endpoint("10.1.0.1", 1)
    };
    let found = listed([
        web(|service| service.ports[0].target = TargetPort::Name("www".into())),
        sliced(slice("web", "a", &[("http", 8080)], vec![unready, named])),
    ]);
    let [one] = &found[..] else {
        panic!("{found:?}")
    };
    assert_eq!(one.owner.as_ref().unwrap().to_string(), "shop/web");
    assert_eq!(
        (one.port_name.as_str(), one.port, one.target.as_str()),
        ("http", 80, "www")
    );
    assert_eq!((one.kind, one.row.id.0), (Some(FrontendKind::ClusterIp), 1));
    assert_eq!((&one.internal_reason, &one.external_reason), (&None, &None));
    let [first, second] = &one.backends[..] else {
        panic!()
    };
    assert_eq!(
        (first.state, first.internal, first.local),
        (Some(BackendState::Active), true, true)
    );
    assert_eq!(first.pod.as_ref().unwrap().to_string(), "shop/web-1");
    assert_eq!(
        (second.state, second.internal, second.local),
        (Some(BackendState::NotReady), false, false)
    );
}

#[test]
fn the_reason_says_what_to_look_at() {
    let http = [("http", 8080)];
    let ending = |endpoint: Endpoint| Endpoint {
        ready: false,
        serving: false,
        terminating: true,
        ..endpoint
    };
    let unready = |endpoint: Endpoint| Endpoint {
        ready: false,
        ..endpoint
    };
    assert_eq!(
        reason([web(|_| {}), pod("x", "other", &["10.1.0.9"])]),
        "selector app=web matches no running pod in namespace shop"
    );
    assert_eq!(
        reason([web(|_| {}), pod("a", "web", &[]), pod("b", "web", &[])]),
        "selector app=web matches 2 pods, none of which has an IPv4 address yet"
    );
    assert_eq!(
        reason([
            web(|_| {}),
            pod("a", "web", &["10.1.0.1"]),
            sliced(slice("web", "a", &[], vec![]))
        ]),
        "selector app=web matches 1 pod, but no IPv4 endpoint slice names them yet"
    );
    assert_eq!(
        reason([web(
            |service| service.selector = weir_model::ServiceSelector::default()
        )]),
        "the service has no selector, and no IPv4 endpoint slice names an endpoint"
    );
    assert_eq!(
        reason([
            web(|_| {}),
            sliced(slice(
                "web",
                "a",
                &[("htttp", 8080), ("dns", 53)],
                vec![endpoint("10.1.0.1", 1)]
            ))
        ]),
        "no endpoint slice has port `http`: they have `dns` UDP, `htttp` TCP"
    );
    assert_eq!(
        reason([
            web(|service| service.ports[0].target = TargetPort::Name("www".into())),
            sliced(slice("web", "a", &[], vec![endpoint("10.1.0.1", 1)]))
        ]),
        "no endpoint slice has port `http` (targetPort `www` must be the name of a container port): they have none"
    );
    let all = |endpoints| [web(|_| {}), sliced(slice("web", "a", &http, endpoints))];
    assert_eq!(
        reason(all(vec![unready(endpoint("10.1.0.1", 1))])),
        "1 endpoint is not ready"
    );
    assert_eq!(
        reason(all(vec![
            ending(endpoint("10.1.0.1", 1)),
            ending(endpoint("10.1.0.2", 1))
        ])),
        "2 endpoints are ending and serve no more"
    );
    assert_eq!(
        reason(all(vec![
            ending(endpoint("10.1.0.1", 1)),
            unready(endpoint("10.1.0.2", 1))
        ])),
        "1 endpoint is not ready, 1 more ending"
    );
    assert_eq!(
        reason([
            web(|service| service.internal_policy = TrafficPolicy::Local),
            sliced(slice("web", "a", &http, vec![endpoint("10.1.0.1", 2)]))
        ]),
        "the traffic policy is Local and no usable endpoint is on this node (1 elsewhere)"
    );
}

#[test]
fn each_family_has_its_own_reason() {
    let both = web(|service| {
        service.cluster_ips = ["10.96.0.1".parse().unwrap(), "fd96::1".parse().unwrap()].into();
    });
    let found = listed([
        both,
        sliced(slice(
            "web",
            "a",
            &[("http", 8080)],
            vec![endpoint("10.1.0.1", 1)],
        )),
        pod("a", "web", &["10.1.0.1"]),
    ]);
    let reasons: Vec<_> = found.into_iter().map(|one| one.internal_reason).collect();
    let missing = NoBackend::NoPodHasAddress {
        selector: weir_model::ServiceSelector::new([("app", "web")]).unwrap(),
        pods: 1,
        family: Family::V6,
    };
    assert_eq!(reasons, [None, Some(missing)]);
}
