//! `muster network …` and `muster security-group …`.

use muster_api::{
    network::{CreateNetwork, Network, PatchNetwork},
    security_group::{CreateSecurityGroup, PatchSecurityGroup, SecurityGroup},
};
use reqwest::Method;

use super::{Ctx, Frees, body, filtered, labels, parsed};
use crate::{
    args::{NetworkCommand, SecurityGroupCommand},
    cells::{self, age, optional, word},
    client::Call,
    failure::Failure,
    rule,
    table::{Column, Order, names, numbers, texts, wide, words},
};

const NETWORKS: [Column<Network>; 9] = [
    names("NAME", |v| v.name.clone()),
    words("STATE", |v| word(&v.state)),
    words("MODE", |v| word(&v.mode)),
    words("SUBNET", |v| optional(v.subnet_v4)),
    numbers("CARDS", |v| v.nics.to_string()),
    numbers("FREE", |v| v.free.to_string()),
    numbers("AGE", |v| age(v.created_at)),
    wide(words("LABELS", |v| cells::labels(&v.labels))),
    wide(words("ID", |v| v.id.to_string())),
];

const GROUPS: [Column<SecurityGroup>; 6] = [
    names("NAME", |v| v.name.clone()),
    words("STATE", |v| word(&v.state)),
    texts("RULES", |v| v.rules.iter().map(rule::text).collect::<Vec<_>>().join(" ")),
    numbers("AGE", |v| age(v.created_at)),
    wide(words("LABELS", |v| cells::labels(&v.labels))),
    wide(words("ID", |v| v.id.to_string())),
];

fn networks() -> Call {
    Call::to(&["v1", "networks"])
}

fn groups() -> Call {
    Call::to(&["v1", "security-groups"])
}

pub(super) async fn run(ctx: &Ctx, command: NetworkCommand) -> Result<(), Failure> {
    match command {
        NetworkCommand::Create { name, subnet, subnet_v6, gateway, dns, mtu, mode, bridge, label } => {
            let create = CreateNetwork {
                name: Some(parsed("name", &name)?),
                mode,
                bridge,
                subnet_v4: subnet,
                subnet_v6,
                gateway,
                dns: (!dns.is_empty()).then_some(dns),
                mtu,
                labels: labels(label)?,
            };
            let answer = ctx.client.post(&networks(), &body(&create)?).await?;
            ctx.finish(answer, &networks().then(&name), described).await
        }
        NetworkCommand::Ls(listing) => ctx.list(&filtered(networks(), &listing), &NETWORKS, Order::Name).await,
        NetworkCommand::Show { network } => ctx.show(&networks().then(&network), |object| details(ctx, object)).await,
        NetworkCommand::Set { network, name, dns, no_dns, mtu } => {
            let patch = PatchNetwork {
                name: name.as_deref().map(|name| parsed("name", name)).transpose()?,
                dns: match (no_dns, dns.is_empty()) {
                    (true, _) => Some(None),
                    (false, true) => None,
                    (false, false) => Some(Some(dns)),
                },
                mtu: mtu.map(Some),
                labels: muster_api::LabelsPatch::default(),
            };
            let thing = networks().then(&network);
            let answer = ctx.client.change(Method::PATCH, &thing, Some(&body(&patch)?)).await?;
            ctx.finish(answer, &thing, described).await
        }
        NetworkCommand::Rm(removal) => ctx.remove("network", &["v1", "networks"], &removal, Frees::Nothing).await,
    }
}

pub(super) async fn run_groups(ctx: &Ctx, command: SecurityGroupCommand) -> Result<(), Failure> {
    match command {
        SecurityGroupCommand::Create { name, allow, label } => {
            let create =
                CreateSecurityGroup { name: Some(parsed("name", &name)?), rules: allow, labels: labels(label)? };
            let answer = ctx.client.post(&groups(), &body(&create)?).await?;
            ctx.finish(answer, &groups().then(&name), |group| group_details(ctx, group)).await
        }
        SecurityGroupCommand::Ls(listing) => ctx.list(&filtered(groups(), &listing), &GROUPS, Order::Name).await,
        SecurityGroupCommand::Show { security_group: group } => {
            ctx.show(&groups().then(&group), |object| group_details(ctx, object)).await
        }
        SecurityGroupCommand::Set { security_group: group, name, allow, allow_nothing } => {
            let patch = PatchSecurityGroup {
                name: name.as_deref().map(|name| parsed("name", name)).transpose()?,
                rules: (allow_nothing || !allow.is_empty()).then_some(allow),
                labels: muster_api::LabelsPatch::default(),
            };
            let thing = groups().then(&group);
            let answer = ctx.client.change(Method::PATCH, &thing, Some(&body(&patch)?)).await?;
            ctx.finish(answer, &thing, |group| group_details(ctx, group)).await
        }
        SecurityGroupCommand::Rm(removal) => {
            ctx.remove("security group", &["v1", "security-groups"], &removal, Frees::Nothing).await
        }
    }
}

/// `back: nat, 10.20.0.0/24`.
fn described(network: &Network) -> String {
    let range = network.subnet_v4.map(|subnet| format!(", {subnet}"));
    let bridge = network.bridge.as_ref().map(|bridge| format!(", {bridge}"));
    format!("{}: {}{}{}", network.name, word(&network.mode), optional(range), optional(bridge))
}

fn details(ctx: &Ctx, network: &Network) -> String {
    let dns: Vec<String> = network.dns.iter().map(ToString::to_string).collect();
    let dns = match network.subnet_v4 {
        Some(_) if dns.is_empty() => "those of the nodes".to_owned(),
        _ => dns.join(" "),
    };
    ctx.out.facts(&[
        ("name", network.name.clone()),
        ("id", network.id.to_string()),
        ("state", word(&network.state)),
        ("reason", optional(network.reason.as_ref())),
        ("mode", word(&network.mode)),
        ("bridge", optional(network.bridge.as_ref())),
        ("subnet", optional(network.subnet_v4)),
        ("gateway", optional(network.gateway)),
        ("ipv6 subnet", optional(network.subnet_v6)),
        ("ipv6 gateway", optional(network.gateway_v6)),
        ("name servers", dns),
        ("domain", optional(network.domain.as_ref())),
        ("mtu", network.mtu.to_string()),
        ("cards", format!("{}, room for {} more", network.nics, network.free)),
        ("labels", cells::labels(&network.labels)),
        ("project", network.project.clone()),
        ("created", network.created_at.to_string()),
    ])
}

fn group_details(ctx: &Ctx, group: &SecurityGroup) -> String {
    let mut facts = vec![
        ("name", group.name.clone()),
        ("id", group.id.to_string()),
        ("state", word(&group.state)),
        ("reason", optional(group.reason.as_ref())),
        ("labels", cells::labels(&group.labels)),
        ("project", group.project.clone()),
        ("created", group.created_at.to_string()),
    ];
    facts.extend(group.rules.iter().map(|rule| ("allows", rule::text(rule))));
    if group.rules.is_empty() {
        facts.push(("allows", "nothing".to_owned()));
    }
    ctx.out.facts(&facts)
}
