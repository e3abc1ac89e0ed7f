/**
 * The network cards of the members: what was chosen, its form in the URL, and what it means. Pure; tested in cards.test.ts.
 */
import type { Schemas } from "../../../api/client.ts";
import type { Deployment } from "../../../api/deployments.ts";
import { defaultName } from "../../../api/networks.ts";
import { portText } from "../../security-groups/rules.ts";

type CreateNic = Schemas["CreateNic"];
type PublishPort = Schemas["PublishPort"];

/** A card of each member. References are names. */
export interface Card {
  network: string;
  /** Only for a single member. */
  address: string;
  groups: string[];
  /** Ports that are reached from outside: `22`, `53/udp`, `30022:22`. */
  ports: string[];
}

export const usualCard: Card = { network: defaultName, address: "", groups: [defaultName], ports: [] };
export const mostCards = 8;

/** What an error about cards can be about: the place of the card and its field, or all of them. */
export type CardField = "cards" | `card/${number}/${keyof Card}`;

/** A text as a part of a list in the URL, and the other way. */
export const guarded = (text: string) => text.replace(/[%;,]/g, encodeURIComponent);

/** A card as the URL has it: `back;10.20.0.5;default,web;22,53/udp`. */
export function cardText({ network, address, groups, ports }: Card): string {
  const parts = [guarded(network), guarded(address), groups.map(guarded).join(","), ports.map(guarded).join(",")];
  return parts.join(";").replace(/;+$/, "");
}

/** Reads the URL's form of a card. */
export function cardOf(text: string): Card {
  const [network = "", address = "", groups = "", ports = ""] = text.split(";");
  const listOf = (part: string) => (part === "" ? [] : part.split(",").map(plain));
  return { network: plain(network), address: plain(address), groups: listOf(groups), ports: listOf(ports) };
}

export function plain(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** Reads `[NODE_PORT:]PORT[/udp]`; null if it is none. */
export function publishedOf(text: string): PublishPort | null {
  const found = /^(?:(\d{1,5}):)?(\d{1,5})(?:\/(tcp|udp))?$/.exec(text.trim());
  if (found === null) return null;
  return {
    port: Number(found[2]),
    ...(found[1] === undefined ? {} : { node_port: Number(found[1]) }),
    ...(found[3] === "udp" ? { protocol: "udp" as const } : {}),
  };
}

/** The ports of a card that can be read. */
export const publishedBy = ({ ports }: Card) => ports.flatMap((text) => publishedOf(text) ?? []);

/** The cards as a request has them, and what cannot be read, by field. */
export function nicsOf(cards: readonly Card[]): { nics: CreateNic[]; unread: Partial<Record<CardField, string>> } {
  const unread: Partial<Record<CardField, string>> = {};
  const nics = cards.map((card, place): CreateNic => {
    const wrong = card.ports.filter((text) => publishedOf(text) === null);
    if (wrong.length > 0) {
      unread[`card/${place}/ports`] =
        `${wrong.join(", ")}: write a port such as 22 or 53/udp, or 30022:22 to choose the port of the node.`;
    }
    const usual = card.groups.length === 1 && card.groups[0] === defaultName;
    const ports = publishedBy(card);
    return {
      network: card.network,
      ...(card.address.trim() === "" ? {} : { address: card.address.trim() }),
      ...(usual ? {} : { security_groups: card.groups }),
      ...(ports.length === 0 ? {} : { ports }),
    };
  });
  return { nics, unread };
}

const fields: Record<string, keyof Card> = {
  network: "network",
  address: "address",
  mac: "address",
  security_groups: "groups",
  ports: "ports",
};

/** The field that an error of the API is about, if it is about cards. `chosen`: the form has a field for each. */
export function cardFieldOf(pointer: string, chosen: boolean): CardField | undefined {
  const [, first, place, field = ""] = pointer.split("/");
  if (first !== "nics") return undefined;
  return chosen && place !== undefined ? `card/${Number(place)}/${fields[field] ?? "network"}` : "cards";
}

/** What the wizard is filled with to make cards like those of a deployment. */
export function cardsLike({ nics, runtime }: Deployment): { cards?: string; card?: string[] } {
  if (runtime === "none") return {};
  if (nics.length === 0) return { cards: "none" };
  const texts = nics.map(({ network_name, security_group_names, ports }) =>
    cardText({
      network: network_name,
      // Only one can have them.
      address: "",
      groups: security_group_names,
      ports: ports.map(({ port, protocol }) => (protocol === "udp" ? portText({ port, protocol }) : String(port))),
    }),
  );
  return texts.length === 1 && texts[0] === cardText(usualCard) ? {} : { cards: "chosen", card: texts };
}
