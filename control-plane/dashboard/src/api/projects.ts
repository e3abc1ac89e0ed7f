/**
 * The projects of the cluster. `/v1/projects` is not built yet, so their names are gathered from what has a project: the
 * tokens of tenants. `default` is always there.
 */
import { useQuery } from "@tanstack/react-query";
import { useMemo } from "react";
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
