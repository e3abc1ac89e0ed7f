/** What a proof is told by its environment; README.md beside this folder lists it. */
import { mkdirSync } from "node:fs";

export function setting(name) {
  const value = process.env[name];
  if (value === undefined || value === "")
    throw new Error(`set ${name}: control-plane/dashboard/README.md says to what`);
  return value;
}

/** The folder for screenshots. */
export function pictures() {
  const folder = setting("MUSTER_OUT");
  mkdirSync(folder, { recursive: true });
  return folder;
}
