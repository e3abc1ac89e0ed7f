import type { Network } from "../../api/networks.ts";
import { count } from "../../ui/format.ts";
import { ThingLink } from "../../ui/ThingLink.tsx";
import { TimeAgo } from "../../ui/TimeAgo.tsx";
import type { Column } from "../../ui/table/ThingsTable.tsx";

export const networkColumns: readonly Column<Network>[] = [
  {
    key: "name",
    title: "Name",
    value: (network) => network.name,
    cell: (network) => <ThingLink kind="network" id={network.id} name={network.name} project={network.project} />,
  },
  { key: "mode", title: "Mode", value: (network) => network.mode, width: 90, from: "sm" },
  {
    key: "range",
    title: "IPv4 range",
    value: (network) => network.subnet_v4,
    cell: (network) => network.subnet_v4 ?? (network.bridge === null ? "–" : `of bridge ${network.bridge}`),
    width: 140,
  },
  { key: "v6", title: "IPv6 range", value: (network) => network.subnet_v6, width: 220, from: "lg" },
  { key: "gateway", title: "Gateway", value: (network) => network.gateway, width: 130, hidden: true },
  {
    key: "cards",
    title: "Cards",
    value: (network) => network.nics,
    cell: (network) => count(network.nics),
    align: "right",
    width: 80,
    from: "sm",
  },
  {
    key: "free",
    title: "Free",
    value: (network) => network.free,
    cell: (network) => count(network.free),
    align: "right",
    width: 90,
    from: "sm",
  },
  { key: "mtu", title: "Largest packet", value: (network) => network.mtu, align: "right", width: 110, hidden: true },
  { key: "domain", title: "Domain", value: (network) => network.domain, width: 260, from: "xl" },
  {
    key: "created",
    title: "Created",
    value: (network) => network.created_at,
    cell: (network) => <TimeAgo time={network.created_at} />,
    width: 100,
    from: "sm",
  },
  { key: "project", title: "Project", value: (network) => network.project, width: 120, from: "xl" },
  { key: "id", title: "Id", value: (network) => network.id, width: 300, hidden: true },
];
