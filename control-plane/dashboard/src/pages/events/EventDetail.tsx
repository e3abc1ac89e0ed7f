import type { MusterEvent } from "../../live/feed.ts";
import { CopyId } from "../../ui/CopyId.tsx";
import { exact } from "../../ui/format.ts";
import { JsonView } from "../../ui/JsonView.tsx";
import { KeyValues } from "../../ui/KeyValues.tsx";
import { ThingLink } from "../../ui/ThingLink.tsx";

/** One event with all that it tells. */
export function EventDetail({ event }: { event: MusterEvent }) {
  return (
    <>
      <KeyValues
        items={[
          ["Kind", event.kind],
          ["Target", <ThingLink key="target" {...event.target} project={event.project} />],
          ["When", exact(event.time)],
          ["By", event.actor],
          ["Project", event.project],
          [
            "Operation",
            event.operation === undefined ? undefined : (
              <ThingLink key="operation" kind="operation" id={event.operation} project={event.project} />
            ),
          ],
          ["Position", <CopyId key="id" value={event.id} label="position" />],
        ]}
      />
      <JsonView value={event.data} label="data" />
    </>
  );
}
