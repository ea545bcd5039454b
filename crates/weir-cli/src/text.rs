// SPDX-License-Identifier: Apache-2.0
//! Small pieces of text that several commands print.

use serde::Serialize;

/// `10.8.3.41:80`, `[fd00::1]:80`.
pub(crate) fn socket(address: &str, port: u16) -> String {
    if address.contains(':') {
        format!("[{address}]:{port}")
    } else {
        format!("{address}:{port}")
    }
}

/// ` (name)`, or nothing where there is no name or only numbers are wanted.
pub(crate) fn beside(name: &str, numeric: bool) -> String {
    if name.is_empty() || numeric {
        String::new()
    } else {
        format!(" ({name})")
    }
}

/// `17.3%`: one digit after the point, rounded down, so that only a full map is 100 %.
pub(crate) fn percent(used: u64, size: u64) -> String {
    if size == 0 {
        return String::new();
    }
    let tenths = u128::from(used) * 1000 / u128::from(size);
    format!("{}.{}%", tenths / 10, tenths % 10)
}

/// `3d4h`, `2h5m`, `41s`: the two largest units.
pub(crate) fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{}s", seconds % 60),
        (0, _, _) => format!("{hours}h{minutes}m"),
        _ => format!("{days}d{hours}h"),
    }
}

/// The name that a value of one of the API's enums has in JSON.
pub(crate) fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => text,
        Ok(other) => other.to_string(),
        Err(_) => String::new(),
    }
}

/// An absent value as the peers print it.
pub(crate) fn or_never(value: Option<&String>) -> String {
    value.cloned().unwrap_or_else(|| "never".to_owned())
}

/// `1 event`, `2 events`.
pub(crate) fn count(number: u64, noun: &str) -> String {
    if number == 1 {
        format!("{number} {noun}")
    } else {
        format!("{number} {noun}s")
    }
}

/// Makes a part of a path out of anything (RFC 3986, section 2.3: what need not be escaped).
pub(crate) fn path_segment(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut path, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b':') {
            path.push(char::from(byte));
        } else {
            let _ = write!(path, "%{byte:02X}");
        }
        path
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!(percent(1, 3), "33.3%");
        assert_eq!(percent(999_999, 1_000_000), "99.9%");
        assert_eq!(percent(u64::MAX, u64::MAX), "100.0%");
        assert_eq!(percent(0, 0), "");
        assert_eq!(duration(41), "41s");
        assert_eq!(duration(125), "2m5s");
        assert_eq!(duration(7500), "2h5m");
        assert_eq!(duration(90_000), "1d1h");
        assert_eq!(count(1, "event"), "1 event");
        assert_eq!(count(0, "event"), "0 events");
    }

    #[test]
    fn a_reference_stays_one_part_of_a_path() {
        assert_eq!(path_segment("shop/web 1"), "shop%2Fweb%201");
        assert_eq!(path_segment("ipv6:fd00::1"), "ipv6:fd00::1");
        assert_eq!(path_segment("../../x?y#z"), "..%2F..%2Fx%3Fy%23z");
    }
}
