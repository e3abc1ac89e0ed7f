//! Rules of security groups as people write them: `in:tcp:80-90:10.0.0.0/8`, `in:any:group=web`, `out:any`.

use muster_api::{
    packet::RuleDirection,
    security_group::{CreateRule, RuleProtocol, SecurityRule},
};

use crate::cells::word;

/// What stands before the name of a security group.
const GROUP: &str = "group=";

/// Parses a rule. Whether its ports and its other side fit is for the controller to say.
pub(crate) fn parse(text: &str) -> Result<CreateRule, String> {
    let wrong = || format!("a rule is DIRECTION:PROTOCOL[:PORTS][:OTHER SIDE], such as in:tcp:22; got '{text}'");
    let (direction, rest) = text.split_once(':').ok_or_else(wrong)?;
    let direction = match direction {
        "in" => RuleDirection::In,
        "out" => RuleDirection::Out,
        _ => return Err(wrong()),
    };
    // Addresses of version 6 have colons as well, so only what stands before them is cut off.
    let (protocol, rest) = rest.split_once(':').map_or((rest, None), |(protocol, rest)| (protocol, Some(rest)));
    let protocol = match protocol {
        "any" => RuleProtocol::Any,
        "icmp" => RuleProtocol::Icmp,
        "tcp" => RuleProtocol::Tcp,
        "udp" => RuleProtocol::Udp,
        _ => return Err(wrong()),
    };
    let (ports, side) = match rest {
        None => (None, None),
        Some(rest) => {
            let (first, more) = rest.split_once(':').map_or((rest, None), |(first, more)| (first, Some(more)));
            let is_ports = !first.is_empty() && first.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
            if is_ports { (Some(first.to_owned()), more) } else { (None, Some(rest)) }
        }
    };
    let side = side.map(|side| side.strip_prefix(GROUP).unwrap_or(side).to_owned());
    if side.as_ref().is_some_and(String::is_empty) {
        return Err(wrong());
    }
    let (from, to) = match direction {
        RuleDirection::In => (side, None),
        RuleDirection::Out => (None, side),
    };
    Ok(CreateRule { direction, protocol, ports, from, to })
}

/// The rule as it is written on a command line.
pub(crate) fn text(rule: &SecurityRule) -> String {
    let side = rule.from.as_ref().or(rule.to.as_ref());
    let side = rule.group_name.as_ref().map_or_else(|| side.cloned(), |name| Some(format!("{GROUP}{name}")));
    let parts = [Some(word(&rule.direction)), Some(word(&rule.protocol)), rule.ports.clone(), side];
    parts.into_iter().flatten().collect::<Vec<_>>().join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_shown_as_it_was_written() {
        for written in [
            "in:tcp:22",
            "in:tcp",
            "in:tcp:80-90:10.0.0.0/8",
            "in:any:group=web",
            "in:udp:53:group=web",
            "in:tcp:22:fd00:1::/64",
            "in:icmp:fd00::/8",
            "out:any",
            "out:tcp:192.0.2.0/24",
        ] {
            let CreateRule { direction, protocol, ports, from, to } = parse(written).expect("a rule");
            let group_name = written.split_once(GROUP).map(|(_, name)| name.to_owned());
            let rule =
                SecurityRule { direction: direction.into(), protocol: protocol.into(), ports, from, to, group_name };
            assert_eq!(text(&rule), written);
        }
        for wrong in ["", "tcp:22", "in", "in:sctp:9", "up:tcp:22", "in:tcp:", "in:tcp:22:", "in:any:group="] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
