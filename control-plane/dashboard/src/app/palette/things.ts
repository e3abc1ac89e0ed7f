/**
 * The things that the palette finds: all lists that are in the query cache, those that are short by nature, which are
 * read when the palette opens, and what the controller answers for the typed text as a name or id.
 */

import { useDebouncedValue } from "@mantine/hooks";
import { hashKey, useQueries, useQueryClient } from "@tanstack/react-query";
import { useMemo } from "react";
import { api, body } from "../../api/client.ts";
import { listQuery, type Noun } from "../../api/lists.ts";
import { useProjects } from "../../api/projects.ts";
import { allProjects, currentScope } from "../../api/scope.ts";

export interface Thing {
  kind: string;
  id: string;
  name: string;
  project?: string;
  state?: string;
}

const kindOf: Partial<Record<Noun, string>> = {
  deployments: "deployment",
  disks: "disk",
  instances: "instance",
  images: "image",
  versions: "version",
  snapshots: "snapshot",
  networks: "network",
  "security-groups": "security_group",
  nodes: "node",
};

interface Named {
  id: string;
  name: string;
  project: string;
  state: string;
}

const shortLists = (operator: boolean) => [
  listQuery<Named>("deployments", {}, (page, signal) =>
    body(api.GET("/v1/deployments", { params: { query: page }, signal })),
  ),
  listQuery<Named>("images", {}, (page, signal) => body(api.GET("/v1/images", { params: { query: page }, signal }))),
  listQuery<Named>("snapshots", {}, (page, signal) =>
    body(api.GET("/v1/snapshots", { params: { query: page }, signal })),
  ),
  listQuery<Named>("networks", {}, (page, signal) =>
    body(api.GET("/v1/networks", { params: { query: page }, signal })),
  ),
  listQuery<Named>("security-groups", {}, (page, signal) =>
    body(api.GET("/v1/security-groups", { params: { query: page }, signal })),
  ),
  ...(operator
    ? [listQuery<Named>("nodes", {}, (page, signal) => body(api.GET("/v1/nodes", { params: { query: page }, signal })))]
    : []),
];

/** Asks for one thing of each kind by name or id. What is not there is no error here. */
async function lookUp(
  text: string,
  project: string | undefined,
  operator: boolean,
  signal: AbortSignal,
): Promise<Thing[]> {
  const query = project === undefined ? {} : { project };
  const options = { signal };
  const isId = /^[0-9a-f]{8}-[0-9a-f-]{27}$/i.test(text);
  const get = async (kind: string, call: Promise<{ data?: unknown }>): Promise<Thing[]> => {
    try {
      const data = (await call).data as Named;
      return [{ kind, id: data.id, name: data.name ?? data.id, project: data.project, state: data.state }];
    } catch {
      return [];
    }
  };
  const answers = await Promise.all([
    get("instance", api.GET("/v1/instances/{instance}", { params: { path: { instance: text }, query }, ...options })),
    ...(isId
      ? [
          get(
            "deployment",
            api.GET("/v1/deployments/{deployment}", { params: { path: { deployment: text }, query }, ...options }),
          ),
          get("image", api.GET("/v1/images/{image}", { params: { path: { image: text }, query }, ...options })),
          get("version", api.GET("/v1/versions/{version}", { params: { path: { version: text }, query }, ...options })),
          get(
            "snapshot",
            api.GET("/v1/snapshots/{snapshot}", { params: { path: { snapshot: text }, query }, ...options }),
          ),
          get("network", api.GET("/v1/networks/{network}", { params: { path: { network: text }, query }, ...options })),
          get(
            "security_group",
            api.GET("/v1/security-groups/{security_group}", {
              params: { path: { security_group: text }, query },
              ...options,
            }),
          ),
          get(
            "operation",
            api.GET("/v1/operations/{operation}", { params: { path: { operation: text }, query }, ...options }),
          ),
          ...(operator
            ? [get("node", api.GET("/v1/nodes/{node}", { params: { path: { node: text } }, ...options }))]
            : []),
        ]
      : []),
  ]);
  return answers.flat();
}

/** Whether a text can be a whole name or id, and is worth a call. */
function mayBeThing(text: string): boolean {
  return /^[a-z0-9][a-z0-9._-]{1,80}$/i.test(text);
}

/** The projects in which things are looked for. */
const mostProjects = 8;

/** All things that are known, and those that the controller finds for the text. */
export function useThings(text: string, operator: boolean): Thing[] {
  const client = useQueryClient();
  const projects = useProjects();
  const lists = useQueries({ queries: shortLists(operator) });
  const [wanted] = useDebouncedValue(text.trim(), 250);
  const scope = currentScope();
  const places = scope === allProjects ? projects.slice(0, mostProjects) : [scope === "" ? undefined : scope];
  const lookups = useQueries({
    queries: places.map((project) => ({
      queryKey: ["lookup", project ?? "", wanted],
      queryFn: ({ signal }: { signal: AbortSignal }) => lookUp(wanted, project, operator, signal),
      enabled: mayBeThing(wanted),
      retry: false,
      staleTime: 5_000,
    })),
  });
  const version = hashKey([...lists, ...lookups].map((each) => each.dataUpdatedAt));
  // biome-ignore lint/correctness/useExhaustiveDependencies: the cache is read anew when a list or an answer came
  return useMemo(() => {
    const found = new Map<string, Thing>();
    for (const each of lookups) for (const thing of each.data ?? []) found.set(thing.id, thing);
    for (const [key, data] of client.getQueriesData<{ items?: Named[] }>({
      predicate: (query) => query.queryKey[1] === "list",
    })) {
      const kind = kindOf[key[0] as Noun];
      if (kind === undefined || key[2] !== scope) continue;
      for (const { id, name, project, state } of data?.items ?? []) {
        if (!found.has(id)) found.set(id, { kind, id, name, project, state });
      }
    }
    return [...found.values()];
  }, [client, scope, version]);
}
