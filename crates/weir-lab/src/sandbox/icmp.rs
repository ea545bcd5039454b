// SPDX-License-Identifier: Apache-2.0
//! Echo requests over ICMP sockets: the kernel fills in identifier and checksum and sorts the answers.

use std::io;

use super::socket;
use crate::protocol::{Path, Protocol};

const ECHO_REQUEST_V4: u8 = 8;
const ECHO_REPLY_V4: u8 = 0;
const ECHO_REQUEST_V6: u8 = 128;
const ECHO_REPLY_V6: u8 = 129;
const HEADER: usize = 8;

/// Sends one echo request and waits for its answer.
pub(crate) async fn ping(path: &Path, payload: &[u8]) -> io::Result<()> {
    let (request_type, reply_type) = if path.destination.is_ipv6() {
        (ECHO_REQUEST_V6, ECHO_REPLY_V6)
    } else {
        (ECHO_REQUEST_V4, ECHO_REPLY_V4)
    };
    let socket = socket::datagram(socket::open_client(Protocol::Icmp, path)?)?;
    let mut request = vec![0; HEADER];
    request[0] = request_type;
    request[7] = 1;
    request.extend_from_slice(payload);
    socket.send(&request).await?;
    let mut answer = vec![0; request.len() + 1];
    loop {
        let length = socket.recv(&mut answer).await?;
        if answer[0] == reply_type && answer.get(HEADER..length) == Some(payload) {
            return Ok(());
        }
    }
}
