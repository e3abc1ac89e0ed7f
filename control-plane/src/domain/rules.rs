//! Rules of security groups: from the texts of a request to what nodes get, and back.

use ipnet::IpNet;
use muster_api::{
    SecurityGroupId,
    error::FieldError,
    node_protocol::network::{PortProtocol, Rule, RuleDirection, RuleMatch, RuleRemote},
    security_group::{CreateRule, RuleProtocol},
};

/// Most rules of one group. All of them go to each node that has a card with the group.
pub const RULES_MAX: usize = 100;

/// Where packets come from or go to, as a request says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side<'a> {
    /// Any address: the rule names no other side.
    Any,
    /// Addresses in this range.
    Range(IpNet),
    /// The security group with this id or name, which has still to be looked up.
    Group(&'a str),
}

/// A rule whose group has still to be looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sketch<'a> {
    direction: RuleDirection,
    matches: RuleMatch,
    /// The other side.
    pub side: Side<'a>,
    /// JSON pointer to it.
    pub pointer: String,
}

impl Sketch<'_> {
    /// The rule. `group` is the id of the group that it names.
    #[must_use]
    pub fn with(self, group: Option<SecurityGroupId>) -> Rule {
        let remote = match (self.side, group) {
            (Side::Group(_), group) => RuleRemote::Group(group.expect("the caller looked it up")),
            (Side::Range(range), _) => RuleRemote::Range(range),
            (Side::Any, _) => RuleRemote::Any,
        };
        Rule { direction: self.direction, matches: self.matches, remote }
    }
}

/// Checks the rules of a request. An error lists all fields that do not fit.
pub fn read(wanted: &[CreateRule]) -> Result<Vec<Sketch<'_>>, Vec<FieldError>> {
    let error = |pointer: String, code: &str, detail: String| FieldError { pointer, code: code.to_owned(), detail };
    if wanted.len() > RULES_MAX {
        let why = format!("at most {RULES_MAX}, got {}", wanted.len());
        return Err(vec![error("/rules".to_owned(), "out_of_range", why)]);
    }
    let (mut sketches, mut wrong) = (Vec::new(), Vec::new());
    for (n, rule) in wanted.iter().enumerate() {
        let at = |field: &str| format!("/rules/{n}/{field}");
        let (field, side, other, other_side) = match rule.direction {
            RuleDirection::In => ("from", &rule.from, "to", &rule.to),
            RuleDirection::Out => ("to", &rule.to, "from", &rule.from),
        };
        if other_side.is_some() {
            let why = format!("a rule with this direction has {field}, not {other}");
            wrong.push(error(at(other), "invalid", why));
        }
        let matches = ports(rule).unwrap_or_else(|why| {
            wrong.push(error(at("ports"), "invalid", why));
            RuleMatch::Any
        });
        let side = side.as_deref().map_or(Ok(Side::Any), read_side).unwrap_or_else(|why| {
            wrong.push(error(at(field), "invalid", why));
            Side::Any
        });
        sketches.push(Sketch { direction: rule.direction, matches, side, pointer: at(field) });
    }
    if wrong.is_empty() { Ok(sketches) } else { Err(wrong) }
}

fn ports(rule: &CreateRule) -> Result<RuleMatch, String> {
    let transport = match rule.protocol {
        RuleProtocol::Tcp => PortProtocol::Tcp,
        RuleProtocol::Udp => PortProtocol::Udp,
        RuleProtocol::Any | RuleProtocol::Icmp if rule.ports.is_some() => {
            return Err("only tcp and udp have ports".to_owned());
        }
        RuleProtocol::Any => return Ok(RuleMatch::Any),
        RuleProtocol::Icmp => return Ok(RuleMatch::Icmp),
    };
    let Some(text) = &rule.ports else { return Ok(RuleMatch::Ports { transport, from: 1, to: u16::MAX }) };
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    match (port(from), port(to)) {
        (Some(from), Some(to)) if from <= to => Ok(RuleMatch::Ports { transport, from, to }),
        _ => Err(format!("a port such as 22, or a range such as 8000-8099, from 1 to 65535; got '{text}'")),
    }
}

fn port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port > 0)
}

/// No name of a group begins with a digit or has one of the marks of an address.
fn read_side(text: &str) -> Result<Side<'_>, String> {
    if !text.contains(['/', ':', '.']) {
        return Ok(Side::Group(text));
    }
    let range = text.parse().or_else(|_| text.parse().map(|address: std::net::IpAddr| IpNet::from(address)));
    let range = range.map_err(|_| {
        format!("a range of addresses such as 10.0.0.0/8, or the name of a security group; got '{text}'")
    })?;
    if range.addr() != range.network() {
        return Err(format!("{range} is an address in a range: the range is {}", range.trunc()));
    }
    Ok(Side::Range(range))
}

/// Which packets a rule is about, as the API says it, and their ports.
#[must_use]
pub fn shown_match(matches: RuleMatch) -> (RuleProtocol, Option<String>) {
    match matches {
        RuleMatch::Any => (RuleProtocol::Any, None),
        RuleMatch::Icmp => (RuleProtocol::Icmp, None),
        RuleMatch::Ports { transport, from, to } => {
            let protocol = match transport {
                PortProtocol::Tcp => RuleProtocol::Tcp,
                PortProtocol::Udp => RuleProtocol::Udp,
            };
            let ports = match (from, to) {
                (1, u16::MAX) => None,
                (from, to) if from == to => Some(from.to_string()),
                (from, to) => Some(format!("{from}-{to}")),
            };
            (protocol, ports)
        }
    }
}

/// The rules of the group `default` of a project: everything out, everything in from the same group.
#[must_use]
pub fn of_default(id: SecurityGroupId) -> Vec<Rule> {
    let rule = |direction, remote| Rule { direction, matches: RuleMatch::Any, remote };
    vec![rule(RuleDirection::Out, RuleRemote::Any), rule(RuleDirection::In, RuleRemote::Group(id))]
}

/// Whether one of the rules is about cards with this group.
#[must_use]
pub fn name(rules: &[Rule], group: SecurityGroupId) -> bool {
    rules.iter().any(|rule| rule.remote == RuleRemote::Group(group))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn rules(body: Value) -> Vec<CreateRule> {
        serde_json::from_value(body).expect("the JSON fits the type")
    }

    #[test]
    fn a_rule_reads_as_it_was_said() {
        let wanted = rules(json!([
            {"direction": "in", "protocol": "tcp", "ports": "22"},
            {"direction": "in", "protocol": "udp", "ports": "8000-8099", "from": "10.0.0.0/8"},
            {"direction": "in", "protocol": "any", "from": "web"},
            {"direction": "out", "protocol": "icmp", "to": "fd00::/8"},
            {"direction": "out", "protocol": "tcp", "to": "10.1.2.3"},
        ]));
        let read = read(&wanted).expect("they fit");
        let shown: Vec<_> = read.iter().map(|sketch| shown_match(sketch.matches)).collect();
        assert_eq!(shown[0], (RuleProtocol::Tcp, Some("22".to_owned())));
        assert_eq!(shown[1], (RuleProtocol::Udp, Some("8000-8099".to_owned())));
        assert_eq!(shown[4], (RuleProtocol::Tcp, None));
        assert_eq!(read[2].side, Side::Group("web"));
        assert_eq!(read[4].side, Side::Range("10.1.2.3/32".parse().expect("a range")));
        let group = SecurityGroupId::generate();
        assert_eq!(read[2].clone().with(Some(group)).remote, RuleRemote::Group(group));
    }

    #[test]
    fn each_complaint_names_its_field() {
        for (rule, field) in [
            (json!({"direction": "in", "protocol": "any", "ports": "22"}), "ports"),
            (json!({"direction": "in", "protocol": "icmp", "ports": "22"}), "ports"),
            (json!({"direction": "in", "protocol": "tcp", "ports": "0"}), "ports"),
            (json!({"direction": "in", "protocol": "tcp", "ports": "+22"}), "ports"),
            (json!({"direction": "in", "protocol": "tcp", "ports": "90-80"}), "ports"),
            (json!({"direction": "in", "protocol": "tcp", "ports": "65536"}), "ports"),
            (json!({"direction": "in", "protocol": "any", "to": "web"}), "to"),
            (json!({"direction": "out", "protocol": "any", "from": "web"}), "from"),
            (json!({"direction": "in", "protocol": "any", "from": "10.0.0.1/8"}), "from"),
            (json!({"direction": "in", "protocol": "any", "from": "10.0.0/8"}), "from"),
        ] {
            let wanted = rules(json!([rule]));
            let errors = read(&wanted).expect_err("it does not fit");
            let pointers: Vec<_> = errors.into_iter().map(|error| error.pointer).collect();
            assert_eq!(pointers, [format!("/rules/0/{field}")], "{rule}");
        }
        let many = vec![rules(json!([{"direction": "in", "protocol": "any"}])).remove(0); RULES_MAX + 1];
        assert_eq!(read(&many).expect_err("too many")[0].pointer, "/rules");
    }
}
