/** What is said about networks and cards. Pure; tested in network-words.test.ts. */
import type { Network, NetworkMode, Nic } from "../../api/networks.ts";

/** How a network is connected to the outside, in a sentence. */
export const modes: Record<NetworkMode, { label: string; means: string }> = {
  nat: {
    label: "nat",
    means: "Instances reach the outside through their node. They are reached from there by published ports only.",
  },
  isolated: { label: "isolated", means: "Instances reach each other, and nothing outside of the network." },
  bridge: {
    label: "bridge",
    means: "Instances are members of the hosts' own network, which gives them their addresses.",
  },
};

/** How many addresses a network has for cards of instances. */
export const roomOf = ({ nics, free }: Pick<Network, "nics" | "free">) => nics + free;

/** The address of a card that is read first. */
export function addressOf(nic: Nic): string | null {
  return nic.address_v4 ?? nic.address_v6;
}

/** All addresses of cards as one text, to sort and find by. */
export const addressesOf = (nics: readonly Nic[]) =>
  nics.flatMap(({ address_v4, address_v6 }) => [address_v4, address_v6].filter(Boolean)).join(" ");

type Published = Nic["ports"][number];

/** Where a published port is reached: `192.0.2.7:30000`; null while the instance has no node. */
export function reachedAt({ node_address, node_port }: Published): string | null {
  if (node_address === null) return null;
  return `${node_address.includes(":") ? `[${node_address}]` : node_address}:${node_port}`;
}

/** The line that signs in by a published port; null if it does not lead to an SSH server. */
export function sshLine({ node_address, node_port, port, protocol }: Published, user: string | null): string | null {
  if (node_address === null || port !== 22 || protocol !== "tcp") return null;
  return `ssh -p ${node_port} ${user ?? "root"}@${node_address}`;
}
