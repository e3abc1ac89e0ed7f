import type { SecurityGroup } from "../../api/security-groups.ts";
import { ThingLink } from "../../ui/ThingLink.tsx";
import { TimeAgo } from "../../ui/TimeAgo.tsx";
import type { Column } from "../../ui/table/ThingsTable.tsx";
import { whatOf, whoOf } from "./rules.ts";

/** The rules of one direction in one line. */
const line = ({ rules }: SecurityGroup, direction: "in" | "out") =>
  rules
    .filter((rule) => rule.direction === direction)
    .map((rule) => (rule.from === null && rule.to === null ? whatOf(rule) : `${whatOf(rule)} ${whoOf(rule)}`))
    .join("; ") || "nothing";

export const groupColumns: readonly Column<SecurityGroup>[] = [
  {
    key: "name",
    title: "Name",
    value: (group) => group.name,
    cell: (group) => <ThingLink kind="security_group" id={group.id} name={group.name} project={group.project} />,
    width: 200,
  },
  {
    key: "in",
    title: "Lets in",
    value: (group) => line(group, "in"),
    cell: (group) => <span title={line(group, "in")}>{line(group, "in")}</span>,
  },
  {
    key: "out",
    title: "Lets out",
    value: (group) => line(group, "out"),
    cell: (group) => <span title={line(group, "out")}>{line(group, "out")}</span>,
    from: "md",
  },
  { key: "rules", title: "Rules", value: (group) => group.rules.length, align: "right", width: 76, from: "sm" },
  {
    key: "changed",
    title: "Changed",
    value: (group) => group.updated_at,
    cell: (group) => <TimeAgo time={group.updated_at} />,
    width: 100,
    from: "sm",
  },
  {
    key: "created",
    title: "Created",
    value: (group) => group.created_at,
    cell: (group) => <TimeAgo time={group.created_at} />,
    width: 100,
    hidden: true,
  },
  { key: "project", title: "Project", value: (group) => group.project, width: 120, from: "xl" },
  { key: "id", title: "Id", value: (group) => group.id, width: 300, hidden: true },
];
