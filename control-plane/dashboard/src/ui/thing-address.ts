/** Where the page of a thing is. */
import type { LinkOptions } from "@tanstack/react-router";
import { allProjects, currentScope, searchOf } from "../api/scope.ts";
import { basePath } from "../base-path.ts";
import { stringifySearch } from "./search-state.ts";

export interface Addressed {
  /** The kind as the API says it: `deployment`, `instance`, `security_group`, … */
  kind: string;
  id: string;
  /** The project of the thing. */
  project?: string | undefined;
}

/** Where the pages of things of a kind are. */
const folders: Record<string, string> = {
  deployment: "deployments",
  disk: "disks",
  image: "images",
  instance: "instances",
  network: "networks",
  node: "nodes",
  operation: "operations",
  pool: "pools",
  security_group: "security-groups",
  snapshot: "snapshots",
  version: "versions",
};

/** Whether things of a kind have a page. */
export function hasPage(kind: string): boolean {
  return kind in folders;
}

/** The address of a thing's page; the overview for kinds that have none. */
export function thingAddress({ kind, id, project }: Addressed): LinkOptions {
  const search = searchOf(project);
  switch (kind) {
    case "deployment":
      return { to: "/deployments/$deployment", params: { deployment: id }, search };
    case "disk":
      return { to: "/disks/$disk", params: { disk: id }, search };
    case "instance":
      return { to: "/instances/$instance", params: { instance: id }, search };
    case "image":
      return { to: "/images/$image", params: { image: id }, search };
    case "version":
      return { to: "/versions/$version", params: { version: id }, search };
    case "snapshot":
      return { to: "/snapshots/$snapshot", params: { snapshot: id }, search };
    case "network":
      return { to: "/networks/$network", params: { network: id }, search };
    case "security_group":
      return { to: "/security-groups/$group", params: { group: id }, search };
    case "operation":
      return { to: "/operations/$operation", params: { operation: id }, search };
    case "pool":
      return { to: "/pools/default" };
    case "node":
      return { to: "/nodes/$node", params: { node: id } };
    default:
      return { to: "/" };
  }
}

/** The same as a text for `href`. It costs far less than the router's own, which counts where a table has many links. */
export function thingHref({ kind, id, project }: Addressed): string {
  const scope = currentScope();
  const search = { project: scope === "" || scope === allProjects ? undefined : scope, ...searchOf(project) };
  return `${basePath}/${folders[kind]}/${encodeURIComponent(id)}${stringifySearch(search)}`;
}
