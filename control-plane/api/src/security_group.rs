//! Security groups: what may reach the cards of instances and what may leave them. `/v1/security-groups`.

use serde::{Deserialize, Serialize};

use crate::{
    Labels, LabelsPatch, Name, OrUnknown, SecurityGroupId, Timestamp, network::NetworkState, packet::RuleDirection,
    patch::required,
};

/// Which packets a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RuleProtocol {
    /// All packets.
    Any,
    /// ICMP of version 4 and 6.
    Icmp,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// One thing that a security group lets through, in a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateRule {
    /// Whether it is about packets to the instance (`in`) or from it (`out`).
    pub direction: RuleDirection,
    /// Which packets it is about.
    pub protocol: RuleProtocol,
    /// With `tcp` and `udp`: the ports that packets go to, one (`22`) or a range (`8000-8099`). Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<String>,
    /// With direction `in`: where packets come from, a range of addresses (`10.0.0.0/8`) or the id or name of a security
    /// group, which means the cards in the same network that have it. Default: everywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// With direction `out`: where packets go to, in the same way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// One thing that a security group lets through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SecurityRule {
    /// Whether it is about packets to the instance (`in`) or from it (`out`).
    #[schema(value_type = RuleDirection)]
    pub direction: OrUnknown<RuleDirection>,
    /// Which packets it is about.
    #[schema(value_type = RuleProtocol)]
    pub protocol: OrUnknown<RuleProtocol>,
    /// The ports that packets go to, one or a range; null for all.
    pub ports: Option<String>,
    /// With direction `in`: where packets come from, a range of addresses or the id of a security group; null for
    /// everywhere.
    pub from: Option<String>,
    /// With direction `out`: where packets go to, in the same way.
    pub to: Option<String>,
    /// Name of the security group that `from` or `to` is; null if it is none.
    pub group_name: Option<String>,
}

/// Request of `POST /v1/security-groups`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateSecurityGroup {
    /// Name of the group; generated if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// What it lets through, at most 100 rules. Answers to what was let through always pass. Everything else is dropped.
    /// A rule may name the group itself by the name that it gets.
    #[serde(default)]
    pub rules: Vec<CreateRule>,
    /// Labels of the group.
    #[serde(default)]
    pub labels: Labels,
}

/// Request of `PATCH /v1/security-groups/{g}`, a JSON merge patch.
#[derive(Clone, Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PatchSecurityGroup {
    /// The new name; unchanged if absent.
    #[serde(default, deserialize_with = "required", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub name: Option<Name>,
    /// The rules that it has from now on, instead of all that it had; unchanged if absent. Connections that are open
    /// stay so.
    #[serde(default, deserialize_with = "required", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub rules: Option<Vec<CreateRule>>,
    /// What changes in the labels; nothing if absent.
    #[serde(default, skip_serializing_if = "LabelsPatch::is_nothing")]
    #[schema(value_type = Option<LabelsPatch>)]
    pub labels: LabelsPatch,
}

/// A security group: rules for cards of instances. A card with several groups lets through what one of them does.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SecurityGroup {
    /// Id of the group.
    pub id: SecurityGroupId,
    /// Unique among the project's security groups.
    pub name: String,
    /// Name of the project that owns the group.
    pub project: String,
    /// Labels of the group.
    pub labels: Labels,
    /// Current state.
    pub state: NetworkState,
    /// Why it is in that state, a stable word; null where the state says it all.
    pub reason: Option<String>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// Changes with every change of the group; give it as `If-Match`.
    pub etag: String,
    /// What it lets through.
    pub rules: Vec<SecurityRule>,
}
