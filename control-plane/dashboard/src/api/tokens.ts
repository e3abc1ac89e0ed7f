import { api, body, type Schemas } from "./client.ts";
import { listQuery } from "./lists.ts";

export type Token = Schemas["Token"];

/** All tokens that the caller may see. Operators see those of all projects. */
export const tokensQuery = () =>
  listQuery<Token>("tokens", {}, (page, signal) => body(api.GET("/v1/tokens", { params: { query: page }, signal })));
