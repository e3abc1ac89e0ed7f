/** The rules of a security group while they are edited. Pure; tested in rule-rows.test.ts. */
import type { CreateRule, RuleProtocol, SecurityRule } from "../../api/security-groups.ts";
import { portRange } from "./rules.ts";

/** Where packets of a rule come from or go to. */
export type Side = "any" | "range" | "group";

export interface RuleRow {
  id: number;
  direction: "in" | "out";
  protocol: RuleProtocol;
  ports: string;
  side: Side;
  range: string;
  /** Id of a group, or {@link itself}. */
  group: string;
}

/** Stands for the group that is edited. */
export const itself = "itself";

export type RuleField = "direction" | "protocol" | "ports" | "side";

/** What is wrong, by row (its place) and field. */
export type RowErrors = Partial<Record<string, string>>;
export const errorKey = (place: number, field: RuleField) => `${place}/${field}`;

let lastId = 0;

export function newRow(more: Partial<RuleRow> = {}): RuleRow {
  lastId += 1;
  return { id: lastId, direction: "in", protocol: "tcp", ports: "", side: "any", range: "", group: itself, ...more };
}

/** The rules of a group as rows. */
export function rowsOf(group: { id: string; rules: readonly SecurityRule[] }): RuleRow[] {
  return group.rules.map(({ direction, protocol, ports, from, to, group_name }) => {
    const side = from ?? to ?? null;
    return newRow({
      direction,
      protocol,
      ports: ports ?? "",
      side: side === null ? "any" : group_name === null ? "range" : "group",
      range: side === null || group_name !== null ? "" : side,
      group: group_name === null || side === null || side === group.id ? itself : side,
    });
  });
}

export const hasPorts = (row: RuleRow) => row.protocol === "tcp" || row.protocol === "udp";

/** What can be told to be wrong without asking the controller. */
export function problemsOf(rows: readonly RuleRow[]): RowErrors {
  const errors: RowErrors = {};
  for (const [place, row] of rows.entries()) {
    if (hasPorts(row) && row.ports.trim() !== "" && portRange(row.ports) === null) {
      errors[errorKey(place, "ports")] = "One port such as 22, or a range such as 8000-8099.";
    }
    if (row.side === "range" && row.range.trim() === "") {
      errors[errorKey(place, "side")] = "Write a range of addresses, such as 192.0.2.0/24.";
    }
  }
  return errors;
}

/** The rows as a request has them. `self` is the id of the group that is edited, or its name where it has no id yet. */
export function requestOf(rows: readonly RuleRow[], self: string): CreateRule[] {
  return rows.map((row) => {
    const ports = hasPorts(row) ? row.ports.trim() : "";
    const other = row.side === "any" ? null : row.side === "range" ? rangeText(row.range) : row.group;
    const side = other === itself ? self : other;
    return {
      direction: row.direction,
      protocol: row.protocol,
      ...(ports === "" ? {} : { ports }),
      ...(side === null ? {} : row.direction === "in" ? { from: side } : { to: side }),
    };
  });
}

/** A single address is the range that has it alone. */
function rangeText(typed: string): string {
  const text = typed.trim();
  if (text.includes("/")) return text;
  if (/^\d+\.\d+\.\d+\.\d+$/.test(text)) return `${text}/32`;
  return text.includes(":") ? `${text}/128` : text;
}

/** The row and field that an error of the API is about, as a key of {@link RowErrors}. */
export function rowFieldOf(pointer: string): string | undefined {
  const found = /^\/rules\/(\d+)(?:\/(\w+))?/.exec(pointer);
  if (found === null) return undefined;
  const fields: Record<string, RuleField> = { direction: "direction", protocol: "protocol", ports: "ports" };
  return errorKey(Number(found[1]), fields[found[2] ?? ""] ?? "side");
}
