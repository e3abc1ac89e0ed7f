/** Rules of security groups: in words, as a command line, and what they let through. Pure; tested in rules.test.ts. */
import type { Schemas } from "../../api/client.ts";
import type { CreateRule, SecurityRule } from "../../api/security-groups.ts";

/** A rule as requests and answers have it. */
export type Rule = Pick<SecurityRule, "direction" | "protocol"> & {
  ports?: string | null | undefined;
  from?: string | null | undefined;
  to?: string | null | undefined;
  group_name?: string | null | undefined;
};

/** A port that is to be reached from outside. */
export type Port = Pick<Schemas["PublishPort"], "port" | "protocol">;

const sideOf = (rule: Rule) => rule.from ?? rule.to ?? null;

/** What a rule lets through: `TCP port 22`, `everything`. */
export function whatOf({ protocol, ports }: Rule): string {
  if (protocol === "any") return "everything";
  if (protocol === "icmp") return "ping and other ICMP";
  const name = protocol.toUpperCase();
  if (!ports) return `${name}, all ports`;
  return ports.includes("-") ? `${name} ports ${ports.replace("-", " to ")}` : `${name} port ${ports}`;
}

/** The other side of a rule: `from everywhere`, `to 10.0.0.0/8`, `from cards with web`. */
export function whoOf(rule: Rule): string {
  const word = rule.direction === "in" ? "from" : "to";
  if (rule.group_name) return `${word} cards with ${rule.group_name}`;
  return `${word} ${sideOf(rule) ?? "everywhere"}`;
}

/** A rule as the command line takes it: `in:tcp:22:10.0.0.0/8`. */
export function ruleText(rule: Rule): string {
  const side = rule.group_name ? `group=${rule.group_name}` : sideOf(rule);
  return [rule.direction, rule.protocol, rule.ports, side].filter(Boolean).join(":");
}

/** An answer's rule as a request takes it. */
export function asRequest({ direction, protocol, ports, from, to }: SecurityRule): CreateRule {
  return {
    direction,
    protocol,
    ...(ports ? { ports } : {}),
    ...(from ? { from } : {}),
    ...(to ? { to } : {}),
  };
}

/** First and last of a text such as `22` or `8000-8099`; null if it is neither. */
export function portRange(text: string): readonly [number, number] | null {
  const found = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(text.trim());
  if (found === null) return null;
  const first = Number(found[1]);
  const last = Number(found[2] ?? found[1]);
  return first >= 1 && first <= last && last <= 65_535 ? [first, last] : null;
}

/** Whether a rule lets somebody outside of the network reach a port. What is from a group comes from within. */
function letsIn(rule: Rule, port: Port): boolean {
  if (rule.direction !== "in" || rule.group_name) return false;
  if (rule.protocol !== "any" && rule.protocol !== (port.protocol ?? "tcp")) return false;
  if (!rule.ports) return true;
  const range = portRange(rule.ports);
  return range !== null && range[0] <= port.port && port.port <= range[1];
}

/** Whether one of the rules lets a port be reached from outside. */
export function isOpen(rules: readonly Rule[], port: Port): boolean {
  return rules.some((rule) => letsIn(rule, port));
}

/** A port in words, as tables have it: `22/tcp`. */
export function portText({ port, protocol }: Port): string {
  return `${port}/${protocol ?? "tcp"}`;
}

const known: Record<string, string> = { "22/tcp": "ssh", "80/tcp": "http", "443/tcp": "https", "3389/tcp": "rdp" };

/** A name for a group that lets a port in, which no other group has. */
export function groupNameFor(port: Port, taken: readonly string[]): string {
  const text = portText(port);
  const plain = `${port.protocol ?? "tcp"}-${port.port}`;
  const names = [known[text] ?? plain, plain];
  for (let n = 2; ; n += 1) {
    const free = names.find((name) => !taken.includes(name));
    if (free !== undefined) return free;
    names.push(`${plain}-${n}`);
  }
}
