/** Where the page of a thing is. */
import type { LinkOptions } from "@tanstack/react-router";
import { allProjects, currentScope, searchOf } from "../api/scope.ts";
import { basePath } from "../base-path.ts";
import { stringifySearch } from "./search-state.ts";

export interface Addressed {
  /** The kind as the API says it: `deployment`, `instance`, `image`, `version`, `snapshot`, `node`, `operation`. */
  kind: string;
  id: string;
  /** The project of the thing. */
  project?: string | undefined;
}

/** Whether things of a kind have a page. */
export function hasPage(kind: string): boolean {
  return ["deployment", "instance", "image", "version", "snapshot", "node", "operation"].includes(kind);
}

/** The address of a thing's page; the overview for kinds that have none. */
export function thingAddress({ kind, id, project }: Addressed): LinkOptions {
  const search = searchOf(project);
  switch (kind) {
    case "deployment":
      return { to: "/deployments/$deployment", params: { deployment: id }, search };
    case "instance":
      return { to: "/instances/$instance", params: { instance: id }, search };
    case "image":
      return { to: "/images/$image", params: { image: id }, search };
    case "version":
      return { to: "/versions/$version", params: { version: id }, search };
    case "snapshot":
      return { to: "/snapshots/$snapshot", params: { snapshot: id }, search };
    case "operation":
      return { to: "/operations/$operation", params: { operation: id }, search };
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
  return `${basePath}/${kind}s/${encodeURIComponent(id)}${stringifySearch(search)}`;
}
