import { useMutation } from "@tanstack/react-query";
import { api, body, type Schemas } from "./client.ts";
import { listQuery } from "./lists.ts";
import { queryClient } from "./query-client.ts";

export type Token = Schemas["Token"];
export type CreateToken = Schemas["CreateToken"];

/** All tokens that the caller may see. Operators see those of all projects. */
export const tokensQuery = () =>
  listQuery<Token>("tokens", {}, (page, signal) => body(api.GET("/v1/tokens", { params: { query: page }, signal })));

/** Tokens and sessions leave no events, so a change reads them again. */
export const refreshTokens = () =>
  Promise.all([
    queryClient.invalidateQueries({ queryKey: ["tokens"] }),
    queryClient.invalidateQueries({ queryKey: ["sessions"] }),
  ]);

/** Makes a token. Its text is in this answer and nowhere else. */
export function useCreateToken() {
  return useMutation({
    mutationFn: (wanted: CreateToken) => body(api.POST("/v1/tokens", { body: wanted })),
    onSuccess: refreshTokens,
  });
}

/** Revokes a token at once, and ends its sessions. */
export function useRevokeToken() {
  return useMutation({
    mutationFn: (token: string) => api.DELETE("/v1/tokens/{token}", { params: { path: { token } } }),
    onSuccess: refreshTokens,
  });
}
