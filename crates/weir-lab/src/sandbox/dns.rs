// SPDX-License-Identifier: Apache-2.0
//! The cluster's DNS server: it answers for the cluster's own domain and refuses everything else.

mod answer;
mod lookup;

use std::{cell::RefCell, rc::Rc};

use anyhow::Result;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::names::Names;
pub(crate) use answer::{Transport, answer};

/// The names that all servers of a sandbox answer from.
pub(crate) type Table = Rc<RefCell<Names>>;

/// Answers the questions of one connection, each with its length in front (RFC 1035, section 4.2.2).
pub(crate) async fn converse(mut stream: TcpStream, table: &Table) -> Result<()> {
    loop {
        let length = stream.read_u16().await?;
        let mut question = vec![0; length.into()];
        stream.read_exact(&mut question).await?;
        let reply = answer(&table.borrow(), &question, Transport::Stream);
        let Some(reply) = reply else { return Ok(()) };
        stream.write_u16(u16::try_from(reply.len())?).await?;
        stream.write_all(&reply).await?;
    }
}
