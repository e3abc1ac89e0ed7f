import { TextLink } from "./links.tsx";
import { type Addressed, hasPage, thingAddress } from "./thing-address.ts";

/** The name of a thing as a link to its page; plain text for kinds that have none. */
export function ThingLink({ name, ...thing }: Addressed & { name?: string | null | undefined }) {
  const text = name || thing.id;
  return hasPage(thing.kind) ? <TextLink {...thingAddress(thing)}>{text}</TextLink> : text;
}
