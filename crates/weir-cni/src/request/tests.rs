// SPDX-License-Identifier: Apache-2.0
//! Calls that are taken in, and the variable or field that is named for each that is not.

use super::*;

const CONFIG: &str = r#"{"cniVersion": "1.1.0", "name": "weir"}"#;

fn environment(command: &str) -> Environment {
    Environment {
        command: Some(command.to_owned()),
        container: Some("3b1c".to_owned()),
        netns: Some("/run/netns/a".to_owned()),
        interface: Some("eth0".to_owned()),
        args: Some(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;K8S_POD_UID=u".to_owned(),
        ),
    }
}

#[track_caller]
fn check_refused(environment: &Environment, config: &str, code: u32, words: &str) {
    let failure = Call::read(environment, config).unwrap_err();
    assert_eq!(failure.code(), code, "{failure}");
    assert!(failure.to_string().contains(words), "{failure}");
}

#[test]
fn a_pod_is_named_by_the_arguments() {
    let call = Call::read(&environment("ADD"), CONFIG).unwrap();
    let Call::Add {
        subject,
        pod,
        netns,
    } = call
    else {
        panic!("{call:?}");
    };
    assert_eq!((pod.namespace.as_str(), pod.name.as_str()), ("shop", "web"));
    assert_eq!(pod.uid.as_deref(), Some("u"));
    assert_eq!(subject.container.as_str(), "3b1c");
    assert_eq!(subject.interface.as_str(), "eth0");
    assert_eq!(netns, PathBuf::from("/run/netns/a"));
}

#[test]
fn a_deletion_needs_neither_namespace_nor_pod() {
    let bare = Environment {
        netns: None,
        args: None,
        ..environment("DEL")
    };
    let call = Call::read(&bare, CONFIG).unwrap();
    assert!(matches!(call, Call::Del { netns: None, .. }), "{call:?}");
    check_refused(
        &Environment {
            command: Some("ADD".to_owned()),
            ..bare
        },
        CONFIG,
        4,
        "CNI_ARGS",
    );
}

#[test]
fn version_needs_nothing() {
    let bare = Environment {
        command: Some("VERSION".to_owned()),
        ..Environment::default()
    };
    assert_eq!(
        Call::read(&bare, "").unwrap(),
        Call::Version(SpecVersion::V1_1_0)
    );
}

#[test]
fn commands_are_as_old_as_their_version() {
    let old = CONFIG.replace("1.1.0", "1.0.0");
    check_refused(
        &environment("GC"),
        &old,
        1,
        "GC does not exist in version 1.0.0",
    );
    check_refused(&environment("STATUS"), &old, 1, "STATUS");
    let older = CONFIG.replace("1.1.0", "0.3.1");
    check_refused(&environment("CHECK"), &older, 1, "CHECK");
    check_refused(&environment("CHECK"), CONFIG, 7, "prevResult");
    check_refused(&environment("GC"), CONFIG, 7, "valid-attachments");
    check_refused(&environment("add"), CONFIG, 4, "`add`");
}

#[test]
fn variables_are_proven() {
    type Edit = fn(&mut Environment);
    let cases: [(Edit, &str); 8] = [
        (|e| e.command = None, "CNI_COMMAND"),
        (|e| e.container = None, "CNI_CONTAINERID"),
        (|e| e.container = Some("../x".to_owned()), "CNI_CONTAINERID"),
        (|e| e.interface = Some("a/b".to_owned()), "CNI_IFNAME"),
        (
            |e| e.interface = Some("0123456789abcdef".to_owned()),
            "CNI_IFNAME",
        ),
        (|e| e.netns = None, "CNI_NETNS"),
        (|e| e.netns = Some("run/netns/a".to_owned()), "CNI_NETNS"),
        (
            |e| e.args = Some("K8S_POD_NAMESPACE=shop".to_owned()),
            "K8S_POD_NAME",
        ),
    ];
    for (edit, words) in cases {
        let mut environment = environment("ADD");
        edit(&mut environment);
        check_refused(&environment, CONFIG, 4, words);
    }
}

#[test]
fn every_call_ends() {
    let of = |command| {
        Call::read(&environment(command), CONFIG)
            .unwrap()
            .patience()
    };
    assert_eq!(of("ADD"), Duration::from_secs(30));
    assert_eq!(of("STATUS"), Duration::from_secs(5));
}
