//! Networks of a project and the cards that instances have in them: `/v1/networks`, and `nics` of deployments and
//! instances.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::{
    Labels, LabelsPatch, MacAddress, Name, NetworkId, OrUnknown, Ref, SecurityGroupId, Timestamp,
    packet::PortProtocol,
    patch::{nullable, required},
};

/// How a network is connected to the outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NetworkMode {
    /// Instances reach the outside with the address of their node. They are reached by published ports only.
    #[default]
    Nat,
    /// Instances reach each other only.
    Isolated,
    /// Cards are on a bridge of the host, whose network gives the addresses. For operators only.
    Bridge,
}

/// State of a network or a security group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NetworkState {
    /// It can be used.
    Ready,
    /// It is deleted. It is listed with `?deleted=true` for 24 hours.
    Deleted,
    /// A word that this program does not know.
    #[serde(other)]
    Unknown,
}

/// Request of `POST /v1/networks`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateNetwork {
    /// Name of the network; generated if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// How it is connected to the outside. Default: `nat`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<NetworkMode>,
    /// With mode `bridge`: the name of the bridge on the hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<String>,
    /// The range of its IPv4 addresses: /16 to /29 within 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 or 100.64.0.0/10. It
    /// may overlap with other networks. Default: what the controller's configuration says as `networks.default_subnet`,
    /// which is 10.77.0.0/16 unless the operator has set it. Not with mode `bridge`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub subnet_v4: Option<Ipv4Net>,
    /// The range of its IPv6 addresses: a /64 within fd00::/8. Default: it has none. Not with mode `bridge`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub subnet_v6: Option<Ipv6Net>,
    /// The IPv4 address of the gateway within `subnet_v4`. Default: its first address. Not with mode `bridge`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub gateway: Option<Ipv4Addr>,
    /// Name servers for what is not a name of this network, at most 3. Default: those that the nodes use themselves. Not
    /// with mode `bridge`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub dns: Option<Vec<IpAddr>>,
    /// Largest packet that instances may send, in bytes: 576 to 9000, with IPv6 at least 1280. Default: 1450, which leaves
    /// room for the tunnel between nodes; with mode `bridge` 1500.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// Labels of the network.
    #[serde(default)]
    pub labels: Labels,
}

/// Request of `PATCH /v1/networks/{n}`, a JSON merge patch.
#[derive(Clone, Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PatchNetwork {
    /// The new name; unchanged if absent.
    #[serde(default, deserialize_with = "required", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub name: Option<Name>,
    /// The new name servers; unchanged if absent. `null`: those that the nodes use themselves.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub dns: Option<Option<Vec<IpAddr>>>,
    /// The new largest packet, in bytes; unchanged if absent. `null`: the default. Instances learn it when they next ask
    /// for their address.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u16>)]
    pub mtu: Option<Option<u16>>,
    /// What changes in the labels; nothing if absent.
    #[serde(default, skip_serializing_if = "LabelsPatch::is_nothing")]
    #[schema(value_type = Option<LabelsPatch>)]
    pub labels: LabelsPatch,
}

/// A network: one Ethernet segment over all nodes, for the instances of one project.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Network {
    /// Id of the network.
    pub id: NetworkId,
    /// Unique among the project's networks.
    pub name: String,
    /// Name of the project that owns the network.
    pub project: String,
    /// Labels of the network.
    pub labels: Labels,
    /// Current state.
    pub state: NetworkState,
    /// Why it is in that state, a stable word; null where the state says it all.
    pub reason: Option<String>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// Changes with every change of the network; give it as `If-Match`.
    pub etag: String,
    /// How it is connected to the outside.
    #[schema(value_type = NetworkMode)]
    pub mode: OrUnknown<NetworkMode>,
    /// The name of the bridge on the hosts; null unless the mode is `bridge`.
    pub bridge: Option<String>,
    /// The range of its IPv4 addresses; null with mode `bridge`.
    #[schema(value_type = Option<String>)]
    pub subnet_v4: Option<Ipv4Net>,
    /// The IPv4 address of the gateway; null with mode `bridge`.
    #[schema(value_type = Option<String>)]
    pub gateway: Option<Ipv4Addr>,
    /// The range of its IPv6 addresses; null if it has none.
    #[schema(value_type = Option<String>)]
    pub subnet_v6: Option<Ipv6Net>,
    /// The IPv6 address of the gateway; null if it has none.
    #[schema(value_type = Option<String>)]
    pub gateway_v6: Option<Ipv6Addr>,
    /// Name servers for what is not a name of this network. Empty: those that the nodes use themselves.
    #[schema(value_type = Vec<String>)]
    pub dns: Vec<IpAddr>,
    /// Largest packet that instances may send, in bytes.
    pub mtu: u16,
    /// Domain in which its instances have their host names; null with mode `bridge`.
    pub domain: Option<String>,
    /// Number of cards of instances in it.
    pub nics: u64,
    /// Number of further cards for which it has addresses.
    pub free: u64,
}

/// A network card that each member of a deployment gets.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateNic {
    /// Id or name of the network.
    #[schema(value_type = String)]
    pub network: Ref<NetworkId>,
    /// The IPv4 address that the card gets, only if the deployment has one member. Default: a free one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub address: Option<Ipv4Addr>,
    /// Refused: the MAC address follows from the network and the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub mac: Option<MacAddress>,
    /// Ids or names of the security groups that decide what reaches the card and what leaves it, at most 8. Default: the
    /// group `default` of the project. Not with mode `bridge`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub security_groups: Option<Vec<Ref<SecurityGroupId>>>,
    /// Ports of the card that are reached from outside by a port of the node, at most 32. Only with mode `nat`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PublishPort>,
}

/// A port of each member that is reached from outside by a port of its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PublishPort {
    /// The port on the node, only if the deployment has one member. It is in the range `networks.published_ports` of the
    /// controller's configuration, which is 30000-32767 unless the operator has set it. Default: a free one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_port: Option<u16>,
    /// The port of the instance.
    pub port: u16,
    /// TCP or UDP. Default: `tcp`.
    #[serde(default)]
    pub protocol: PortProtocol,
}

/// A network card that each member of a deployment has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DeploymentNic {
    /// Id of the network.
    pub network: NetworkId,
    /// Name of the network.
    pub network_name: String,
    /// The IPv4 address that the request asked for; null if it asked for none.
    #[schema(value_type = Option<String>)]
    pub address: Option<Ipv4Addr>,
    /// Ids of its security groups.
    pub security_groups: Vec<SecurityGroupId>,
    /// Names of its security groups, in the same order.
    pub security_group_names: Vec<String>,
    /// Ports that are reached from outside, as the request said.
    #[schema(value_type = Vec<PublishPort>)]
    pub ports: Vec<OrUnknown<PublishPort>>,
}

/// A network card of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Nic {
    /// Id of the network.
    pub network: NetworkId,
    /// Name of the network.
    pub network_name: String,
    /// MAC address.
    pub mac: MacAddress,
    /// IPv4 address; null in a network of mode `bridge`.
    #[schema(value_type = Option<String>)]
    pub address_v4: Option<Ipv4Addr>,
    /// IPv6 address; null if the network has none.
    #[schema(value_type = Option<String>)]
    pub address_v6: Option<Ipv6Addr>,
    /// Ids of its security groups.
    pub security_groups: Vec<SecurityGroupId>,
    /// Names of its security groups, in the same order.
    pub security_group_names: Vec<String>,
    /// Ports that are reached from outside.
    pub ports: Vec<NicPort>,
}

/// A port of a card that is reached from outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct NicPort {
    /// The address of the node; null while the instance has none.
    pub node_address: Option<String>,
    /// The port on the node.
    pub node_port: u16,
    /// The port of the instance.
    pub port: u16,
    /// TCP or UDP.
    #[schema(value_type = PortProtocol)]
    pub protocol: OrUnknown<PortProtocol>,
}
