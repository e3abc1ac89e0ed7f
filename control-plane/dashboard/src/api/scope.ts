/**
 * Which project calls are about. The URL decides, so that a view can be shared: `?project=` is the operator's choice in
 * the header, and `?in=` is the project of the one thing that a page shows while all projects are chosen.
 */

/** Stands for all projects. Only lists of operators take it. */
export const allProjects = "*";

let scope: string | undefined;
let thing: string | undefined;

/** Called by the router before pages load. `undefined` leaves the choice to the token: that is how tenants call. */
export function setScope(chosen: string | undefined, ofThing: string | undefined): void {
  scope = chosen;
  thing = ofThing;
}

/** The chosen project, `*` for all; part of the key of each query. */
export function currentScope(): string {
  return scope ?? "";
}

/** The project of the thing that the page shows, or that a change is about. */
export function thingScope(): string | undefined {
  return thing ?? (scope === allProjects ? "default" : scope);
}

/** The project that a call names: lists take the choice, calls about one thing and changes need exactly one project. */
export function projectFor(method: string, schemaPath: string): string | undefined {
  // These belong to the cluster, or to whoever calls.
  if (/^\/v1\/(me|nodes|pools|projects|session|sessions|tokens)\b/.test(schemaPath)) return undefined;
  return method === "GET" && !schemaPath.includes("{") ? scope : thingScope();
}

/** The search part of a link to a thing of a project: says which one, where the scope does not. */
export function searchOf(project: string | undefined): { in?: string } {
  return scope === allProjects && project !== undefined && project !== "default" ? { in: project } : {};
}
