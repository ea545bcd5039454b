// SPDX-License-Identifier: Apache-2.0
//! Folders, what is read from them, and what is refused.

use super::*;

fn pod(name: &str, address: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{nodeName: n1, containers: [{{name: c}}]}}\nstatus: {{podIP: {address}}}\n"
    )
}

fn told(batch: &Batch) -> Vec<String> {
    let show = |change: &Change| match change {
        Change::Pod(pod) => format!("+{} {:?}", pod.reference, pod.addresses),
        Change::PodGone(reference) => format!("-{reference}"),
        Change::NetworkPolicy(policy) => {
            let refused = policy.refused.is_some();
            format!("+{} refused: {refused}", policy.reference)
        }
        Change::NetworkPolicyGone(reference) => format!("-{reference}"),
        Change::Node(_)
        | Change::NodeGone(_)
        | Change::Namespace(..)
        | Change::NamespaceLogging(_)
        | Change::NamespaceGone(_)
        | Change::NetworkLogging(_)
        | Change::NetworkLoggingGone
        | Change::Service(_)
        | Change::ServiceGone(_)
        | Change::EndpointSlice(_)
        | Change::EndpointSliceGone(_)
        | Change::NodePods(_)
        | Change::NodePodsGone(_) => format!("{change:?}"),
    };
    batch.changes.iter().map(show).collect()
}

fn problems(batch: &Batch) -> Vec<String> {
    batch.problems.iter().map(ToString::to_string).collect()
}

#[test]
fn only_differences_are_told() {
    let home = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(home.path().join(name), text).unwrap();
    let mut folder = Folder::new(home.path());
    write(
        "a.yaml",
        &format!("{}---\n{}", pod("a", "10.0.0.1"), pod("b", "10.0.0.2")),
    );
    write("revision", "7\n");
    write("notes.txt", "not read");
    write(".hidden.yaml", "{{{");
    let batch = folder.read().unwrap();
    assert_eq!(
        (batch.revision, told(&batch)),
        (
            7,
            vec![
                "+shop/a [10.0.0.1]".to_owned(),
                "+shop/b [10.0.0.2]".to_owned()
            ]
        )
    );
    assert_eq!(told(&folder.read().unwrap()), [""; 0]);

    write("a.yaml", &pod("b", "10.0.0.22"));
    write("revision", "8");
    let batch = folder.read().unwrap();
    assert_eq!(
        (batch.revision, told(&batch)),
        (
            8,
            vec!["-shop/a".to_owned(), "+shop/b [10.0.0.22]".to_owned()]
        )
    );
    fs::remove_file(home.path().join("a.yaml")).unwrap();
    assert_eq!(told(&folder.read().unwrap()), ["-shop/b"]);
}

#[test]
fn what_is_wrong_is_refused_by_file_object_and_field_and_the_rest_stays() {
    let home = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(home.path().join(name), text).unwrap();
    let mut folder = Folder::new(home.path());
    write(
        "a.yaml",
        &format!("{}---\n{}", pod("a", "10.0.0.1"), pod("b", "10.0.0.2")),
    );
    folder.read().unwrap();

    // The bad version of `b` does not take the good one away, nor does the broken document.
    write(
        "a.yaml",
        &format!(
            "{}---\n{}---\n{{{{\n",
            pod("a", "10.0.0.1"),
            pod("b", "10.0.0.999")
        ),
    );
    write("b.yaml", &pod("a", "10.0.0.9"));
    write("c.yaml", &pod(&"x".repeat(300), "10.0.0.3"));
    fs::write(home.path().join("d.yaml"), [0xff, 0xfe, 0x00]).unwrap();
    let batch = folder.read().unwrap();
    assert_eq!(told(&batch), [""; 0]);
    let found = problems(&batch);
    for expected in [
        "a.yaml: Pod shop/b: status.podIP: `10.0.0.999` is not an IP address",
        "a.yaml: document at line 12: not YAML",
        "b.yaml: Pod shop/a: is in a.yaml already, which counts",
        ": metadata.name: a name has at most 253 bytes, this one has 300",
        "d.yaml: not UTF-8",
    ] {
        assert!(
            found.iter().any(|one| one.contains(expected)),
            "{expected}: {found:#?}"
        );
    }
    assert_eq!(found.len(), 5, "{found:#?}");
}

#[test]
fn a_missing_folder_or_a_bad_revision_is_an_error() {
    let home = tempfile::tempdir().unwrap();
    assert!(matches!(
        Folder::new(home.path().join("x")).read(),
        Err(SourceError::Folder { .. })
    ));
    fs::write(home.path().join("revision"), "many").unwrap();
    let error = Folder::new(home.path()).read().unwrap_err().to_string();
    assert!(error.ends_with("must hold a number, not `many`"), "{error}");
}

#[test]
fn a_policy_that_is_refused_never_opens_what_it_closed() {
    let home = tempfile::tempdir().unwrap();
    let write = |port: &str| {
        let text = format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
             metadata: {{name: p, namespace: shop}}\n\
             spec: {{ingress: [{{ports: [{{port: {port}}}]}}]}}\n"
        );
        fs::write(home.path().join("p.yaml"), text).unwrap();
    };
    let (isolates, accepted) = (["+shop/p refused: true"], ["+shop/p refused: false"]);
    let mut folder = Folder::new(home.path());
    // New and wrong: isolates.
    write("0");
    let batch = folder.read().unwrap();
    assert_eq!(told(&batch), isolates);
    assert_eq!(
        problems(&batch),
        [
            "p.yaml: NetworkPolicy shop/p: spec.ingress[0].ports[0].port: \
             0 is not a port: 1 to 65535"
        ]
    );
    write("80");
    assert_eq!(told(&folder.read().unwrap()), accepted);
    // Wrong again: what was accepted last stays.
    write("700000");
    let batch = folder.read().unwrap();
    assert_eq!((told(&batch), problems(&batch).len()), (Vec::new(), 1));
    // After a restart nobody knows what was accepted.
    assert_eq!(told(&Folder::new(home.path()).read().unwrap()), isolates);
    fs::remove_file(home.path().join("p.yaml")).unwrap();
    assert_eq!(told(&folder.read().unwrap()), ["-shop/p"]);
}

#[test]
fn logging_that_contradicts_itself_leaves_the_one_before() {
    let home = tempfile::tempdir().unwrap();
    let write = |allow: &str| {
        let text = format!(
            "apiVersion: networking.gke.io/v1alpha1\nkind: NetworkLogging\nmetadata: {{name: default}}\n\
             spec: {{cluster: {{allow: {allow}}}}}\n"
        );
        fs::write(home.path().join("new"), text).unwrap();
        fs::rename(home.path().join("new"), home.path().join("a.yaml")).unwrap();
    };
    let mut folder = Folder::new(home.path());
    write("{log: true, delegate: true}");
    assert_eq!(folder.read().unwrap().changes.len(), 1);
    write("{log: false, delegate: true}");
    let batch = folder.read().unwrap();
    assert!(batch.changes.is_empty(), "{batch:?}");
    assert!(problems(&batch)[0].contains("spec.cluster.allow.delegate"));
    fs::remove_file(home.path().join("a.yaml")).unwrap();
    let batch = folder.read().unwrap();
    assert_eq!(batch.changes, [Change::NetworkLoggingGone]);
}
