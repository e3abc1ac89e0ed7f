import { useMutation, useQuery } from "@tanstack/react-query";
import { api, body, type Schemas } from "./client.ts";
import { listQuery, oneQuery, readAgain, showChanged } from "./lists.ts";

export type SecurityGroup = Schemas["SecurityGroup"];
export type SecurityRule = Schemas["SecurityRule"];
export type CreateRule = Schemas["CreateRule"];
export type RuleProtocol = Schemas["RuleProtocol"];
export type CreateSecurityGroup = Schemas["CreateSecurityGroup"];
export type PatchSecurityGroup = Schemas["PatchSecurityGroup"];

export const securityGroupsQuery = () =>
  listQuery<SecurityGroup>("security-groups", {}, (page, signal) =>
    body(api.GET("/v1/security-groups", { params: { query: page }, signal })),
  );

export function useSecurityGroups() {
  return useQuery(securityGroupsQuery());
}

export const securityGroupQuery = (id: string) =>
  oneQuery<SecurityGroup>("security-groups", id, (signal) =>
    body(api.GET("/v1/security-groups/{security_group}", { params: { path: { security_group: id } }, signal })),
  );

export function useSecurityGroup(id: string) {
  return useQuery(securityGroupQuery(id));
}

export function useCreateSecurityGroup() {
  return useMutation({
    mutationFn: ({ project, request }: { project: string | undefined; request: CreateSecurityGroup }) =>
      body(
        api.POST("/v1/security-groups", {
          params: { query: project === undefined ? {} : { project } },
          body: request,
        }),
      ) as Promise<SecurityGroup>,
  });
}

const at = ({ id, project }: SecurityGroup) => ({ path: { security_group: id }, query: { project } });

interface Change {
  group: SecurityGroup;
  patch: PatchSecurityGroup;
  /** The change is made only if the group still has this etag. */
  ifMatch?: string;
}

export function usePatchSecurityGroup() {
  return useMutation({
    mutationFn: ({ group, patch, ifMatch }: Change) =>
      body(
        api.PATCH("/v1/security-groups/{security_group}", {
          params: { ...at(group), ...(ifMatch === undefined ? {} : { header: { "If-Match": ifMatch } }) },
          body: patch,
        }),
      ),
    onSuccess: (changed, { group }, _result, { client }) => showChanged(client, "security-groups", group, changed),
    onError: (error, _change, _result, { client }) => readAgain(client, "security-groups", error),
  });
}

export function useDeleteSecurityGroup() {
  return useMutation({
    mutationFn: (group: SecurityGroup) => api.DELETE("/v1/security-groups/{security_group}", { params: at(group) }),
  });
}
