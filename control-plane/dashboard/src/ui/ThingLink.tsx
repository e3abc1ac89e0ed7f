import { useRouter } from "@tanstack/react-router";
import type { MouseEvent } from "react";
import { type Addressed, hasPage, thingAddress, thingHref } from "./thing-address.ts";

/** The name of a thing as a link to its page; plain text for kinds that have none. */
export function ThingLink({ name, ...thing }: Addressed & { name?: string | null | undefined }) {
  const router = useRouter();
  const text = name || thing.id;
  if (!hasPage(thing.kind)) return text;
  const follow = (event: MouseEvent) => {
    // With a key held, or another button, the browser opens a tab.
    if (event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    void router.navigate(thingAddress(thing));
  };
  return (
    <a href={thingHref(thing)} className="thing-link" onClick={follow}>
      {text}
    </a>
  );
}
