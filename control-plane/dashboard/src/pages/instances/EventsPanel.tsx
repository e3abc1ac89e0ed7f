import { Text } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { type Instance, instanceEventsQuery, type MusterEvent } from "../../api/instances.ts";
import { TextLink } from "../../ui/links.tsx";
import { Panel } from "../../ui/Panel.tsx";
import { StateBadge } from "../../ui/StateBadge.tsx";
import { ThingLink } from "../../ui/ThingLink.tsx";
import { TimeAgo } from "../../ui/TimeAgo.tsx";
import classes from "./InstanceDetail.module.css";

const mostShown = 100;

/** What happened to an instance, newest first, and who caused it. */
export function EventsPanel({ instance }: { instance: Instance }) {
  const events = useQuery(instanceEventsQuery(instance));
  const newest = events.data?.items.slice(-mostShown).reverse() ?? [];
  return (
    <Panel
      title="Events"
      flush={newest.length > 0}
      aside={
        <TextLink to="/events" search={{ deployment: instance.deployment_name } as never} fz="xs">
          all of the deployment
        </TextLink>
      }
    >
      {newest.length === 0 ? (
        <Text size="sm" c="dimmed">
          {events.isPending
            ? "Looking for its events…"
            : events.error
              ? "Its events cannot be read now. The page tries again."
              : "Nothing in the last 7 days. Older events are not kept."}
        </Text>
      ) : (
        // biome-ignore lint/a11y/noNoninteractiveTabindex: so that it can be scrolled by keyboard
        <ol className={classes.events} tabIndex={0} aria-label="Events, newest first">
          {newest.map((event) => (
            <li key={event.id} className={classes.event}>
              <What event={event} />
              <TimeAgo time={event.time} />
              <span>
                by{" "}
                {event.operation === undefined ? (
                  event.actor
                ) : (
                  <ThingLink kind="operation" id={event.operation} name={event.actor} project={event.project} />
                )}
              </span>
            </li>
          ))}
        </ol>
      )}
    </Panel>
  );
}

function What({ event }: { event: MusterEvent }) {
  const data = event.data as { state?: unknown; reason?: unknown; ready?: unknown };
  if (event.kind === "instance.state" && typeof data.state === "string") {
    const ready =
      data.state === "running" && typeof data.ready === "boolean" ? (data.ready ? "ready" : "booting") : null;
    const reason = typeof data.reason === "string" ? data.reason : ready;
    return <StateBadge state={data.state} reason={reason} />;
  }
  return <span>{event.kind.replace(/^instance\./, "").replaceAll("_", " ")}</span>;
}
