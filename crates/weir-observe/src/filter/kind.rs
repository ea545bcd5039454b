// SPDX-License-Identifier: Apache-2.0
//! Types of events, alone (`drop`) or with what they are about (`drop:POLICY_DENIED`).

use super::FilterError;
use std::str::FromStr;
use weir_abi::{DropReason, ObservationPoint};
use weir_api::event::Event;

/// The types that can be asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EventKind {
    Drop,
    Trace,
    PolicyVerdict,
    Agent,
}

/// `TYPE[:SUBTYPE]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TypeFilter {
    Kind(EventKind),
    /// Drops for one reason.
    Reason(DropReason),
    /// Traces at one point.
    Point(ObservationPoint),
}

impl FromStr for TypeFilter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, subtype) = match text.split_once(':') {
            Some((kind, subtype)) => (kind, Some(subtype)),
            None => (text, None),
        };
        let kind = match kind.to_ascii_lowercase().as_str() {
            "drop" => EventKind::Drop,
            "trace" => EventKind::Trace,
            "policy-verdict" => EventKind::PolicyVerdict,
            "agent" => EventKind::Agent,
            _ => {
                return Err(FilterError::Type {
                    text: text.to_owned(),
                });
            }
        };
        match (kind, subtype) {
            (_, None) => Ok(Self::Kind(kind)),
            (EventKind::Drop, Some(reason)) => DropReason::parse(reason)
                .map(Self::Reason)
                .ok_or_else(|| FilterError::Reason {
                    text: reason.to_owned(),
                }),
            (EventKind::Trace, Some(point)) => ObservationPoint::ALL
                .iter()
                .copied()
                .find(|known| known.name().eq_ignore_ascii_case(point))
                .map(Self::Point)
                .ok_or_else(|| FilterError::Point {
                    text: point.to_owned(),
                }),
            (EventKind::PolicyVerdict | EventKind::Agent, Some(_)) => Err(FilterError::Type {
                text: text.to_owned(),
            }),
        }
    }
}

impl TypeFilter {
    /// Whether the event is of this type; lost events are of every type.
    pub fn matches(self, event: &Event) -> bool {
        match (self, event) {
            (_, Event::Lost(_))
            | (Self::Kind(EventKind::Drop), Event::Drop(_))
            | (Self::Kind(EventKind::Trace), Event::Trace(_))
            | (Self::Kind(EventKind::PolicyVerdict), Event::PolicyVerdict(_))
            | (Self::Kind(EventKind::Agent), Event::Agent(_)) => true,
            (Self::Reason(reason), Event::Drop(packet)) => {
                packet.reason_code == Some(reason.number())
            }
            (Self::Point(point), Event::Trace(packet)) => {
                packet.observation_point.as_deref() == Some(point.name())
            }
            (
                Self::Kind(_) | Self::Reason(_) | Self::Point(_),
                Event::Drop(_) | Event::Trace(_) | Event::PolicyVerdict(_) | Event::Agent(_),
            ) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_accepted_as_people_know_them() {
        for text in ["drop:POLICY_DENIED", "drop:Policy denied", "Drop:133"] {
            assert_eq!(
                text.parse(),
                Ok(TypeFilter::Reason(DropReason::PolicyDenied)),
                "{text}"
            );
        }
        assert_eq!(
            "trace:to-endpoint".parse(),
            Ok(TypeFilter::Point(ObservationPoint::ToEndpoint))
        );
        for text in [
            "",
            "drops",
            "drop:",
            "drop:nothing",
            "trace:nowhere",
            "agent:x",
        ] {
            assert!(text.parse::<TypeFilter>().is_err(), "{text}");
        }
    }
}
