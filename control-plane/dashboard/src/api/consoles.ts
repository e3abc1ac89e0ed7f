import { api, body, type Schemas } from "./client.ts";
import type { Instance } from "./instances.ts";

export type OpenConsole = Schemas["OpenConsole"];
export type ConsoleTicket = Schemas["ConsoleTicket"];
export type ConsoleEvent = Schemas["ConsoleEvent"];

/** Leave to open a console of an instance, once and soon. */
export function consoleTicket(instance: Instance, open: OpenConsole): Promise<ConsoleTicket> {
  return body(
    api.POST("/v1/instances/{instance}/console", {
      params: { path: { instance: instance.id }, query: { project: instance.project } },
      body: open,
    }),
  );
}
