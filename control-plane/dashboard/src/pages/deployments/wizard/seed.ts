/**
 * What guests are told at their first boot: keys that may sign in, and user data. It is no part of the form in the URL: user
 * data may be secret, and a private key may be pasted by mistake. Pure; tested in seed.test.ts.
 */
import type { CreateDeployment } from "../../../api/deployments.ts";

export interface SeedForm {
  /** One key on each line. */
  keys: string;
  data: string;
  /** Of a fork: what is left empty is not taken over from the deployment that was forked. */
  fresh: boolean;
}
export type SeedField = "keys" | "data";

export const emptySeed: SeedForm = { keys: "", data: "", fresh: false };

/** Where the command line reads user data from. */
export const userDataFile = "user-data.txt";

export interface SeedMeant {
  request: Pick<CreateDeployment, "ssh_keys" | "user_data">;
  /** What must not be sent, by field. */
  unread: Partial<Record<SeedField, string>>;
}

/** The part of the request that says what guests are told. A private key never leaves the page. */
export function seedMeantBy({ keys, data, fresh }: SeedForm, fork: boolean): SeedMeant {
  if (keys.includes("PRIVATE KEY") || keys.includes("PuTTY-User-Key-File")) {
    const keys =
      "This is a private key, which must stay on your machine. Paste the public one, whose file ends in .pub.";
    return { request: {}, unread: { keys } };
  }
  const lines = keys.split("\n").map((line) => line.trim());
  const given = lines.filter((line) => line !== "");
  return {
    request: {
      ...(given.length > 0 || (fork && fresh) ? { ssh_keys: given } : {}),
      ...(data !== "" || (fork && fresh) ? { user_data: data } : {}),
    },
    unread: {},
  };
}
