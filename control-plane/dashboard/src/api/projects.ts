/**
 * The projects of the cluster. `/v1/projects` is not built yet, so their names are gathered from what has a project: the
 * tokens of tenants. `default` is always there.
 */
import { useQueries, useQuery } from "@tanstack/react-query";
import { useMemo } from "react";
import { api, body, type Schemas } from "./client.ts";
import { useIsOperator } from "./me.ts";
import { tokensQuery } from "./tokens.ts";

/** The names of all projects that are known; for tenants only their own. */
export function useProjects(): string[] {
  const operator = useIsOperator();
  const tokens = useQuery({ ...tokensQuery(), enabled: operator });
  return useMemo(() => {
    const names = new Set(["default"]);
    for (const token of tokens.data?.items ?? []) if (token.project) names.add(token.project);
    return [...names].sort();
  }, [tokens.data]);
}

/** A project, and how much there is in it. */
export interface ProjectUse {
  name: string;
  /** Tokens of its tenants. */
  tokens: number;
  /** Undefined until it is read. */
  summary: Schemas["Summary"] | undefined;
}

/** The most projects whose contents are counted: each costs a call. */
const mostCounted = 100;

/** All projects with what is in them. It is counted anew every half minute, not with every event. */
export function useProjectUses(): ProjectUse[] {
  const names = useProjects();
  const tokens = useQuery(tokensQuery());
  const summaries = useQueries({
    queries: names.slice(0, mostCounted).map((project) => ({
      queryKey: ["project-use", project],
      queryFn: ({ signal }: { signal: AbortSignal }) =>
        body(api.GET("/v1/summary", { params: { query: { project } }, signal })),
      refetchInterval: 30_000,
    })),
    combine: (results) => results.map(({ data }) => data),
  });
  return useMemo(
    () =>
      names.map((name, n) => ({
        name,
        tokens: tokens.data?.items.filter(({ project }) => project === name).length ?? 0,
        summary: summaries[n],
      })),
    [names, tokens.data, summaries],
  );
}
