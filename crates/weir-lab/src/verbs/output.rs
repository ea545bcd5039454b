// SPDX-License-Identifier: Apache-2.0
//! Data on standard output, talk on standard error, and the tables of `get`.

mod columns;

use std::{
    fmt::Arguments,
    io::{self, Write},
};

use anyhow::Result;
use serde_json::{Value, json};

use super::client;
use crate::{
    args::{Get, Output},
    object::{Key, Object},
    place::Place,
    protocol::Request,
};
use columns::columns;

/// Says something to people.
pub(crate) fn talk(words: Arguments<'_>) {
    // Nobody to talk to is no reason to stop.
    let _ = writeln!(io::stderr(), "{words}");
}

/// Writes data. A reader that has seen enough is not an error.
pub(crate) fn data(words: Arguments<'_>) -> Result<()> {
    match writeln!(io::stdout(), "{words}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Shows objects.
pub(crate) fn get(place: &Place, get: &Get) -> Result<()> {
    let namespace = match (&get.namespace, &get.object) {
        (None, Some(_)) if !get.all_namespaces => Some("default".to_owned()),
        (namespace, _) => namespace.clone(),
    };
    let request = Request::Get {
        kind: get.kind.clone(),
        namespace,
        name: get.object.clone(),
    };
    let mut objects = Vec::new();
    client::ask(place, &request, |value| {
        objects.push(serde_json::from_value::<Object>(value)?);
        Ok(())
    })?;
    let values = || -> Value {
        match (objects.as_slice(), &get.object) {
            ([object], Some(_)) => object.value().clone(),
            _ => json!({"apiVersion": "v1", "kind": "List", "items": objects}),
        }
    };
    match get.output {
        Output::Json => data(format_args!("{}", serde_json::to_string_pretty(&values())?)),
        Output::Yaml => data(format_args!(
            "{}",
            serde_saphyr::to_string(&values())?.trim_end()
        )),
        Output::Table => table(&objects),
    }
}

fn table(objects: &[Object]) -> Result<()> {
    let Some(first) = objects.first() else {
        talk(format_args!("nothing found"));
        return Ok(());
    };
    let key = first.key();
    let mut header: Vec<&str> = if key.namespace.is_empty() {
        vec![]
    } else {
        vec!["NAMESPACE"]
    };
    header.push("NAME");
    header.extend(columns(&key.kind).iter().map(|(title, _)| *title));
    let mut rows: Vec<Vec<String>> = vec![header.into_iter().map(ToOwned::to_owned).collect()];
    for object in objects {
        let Key {
            kind,
            namespace,
            name,
        } = object.key();
        let mut row = if namespace.is_empty() {
            vec![]
        } else {
            vec![namespace]
        };
        row.push(name);
        row.extend(columns(&kind).iter().map(|(_, cell)| cell(object)));
        rows.push(row);
    }
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..count)
        .map(|at| {
            rows.iter()
                .filter_map(|row| row.get(at))
                .map(String::len)
                .max()
                .unwrap_or(0)
        })
        .collect();
    for row in rows {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        data(format_args!("{}", cells.join("   ").trim_end()))?;
    }
    Ok(())
}
