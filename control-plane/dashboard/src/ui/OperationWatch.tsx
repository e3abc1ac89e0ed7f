/**
 * The panel of jobs that were begun here. After a call that answered 202, hand its operation over:
 *
 *     watchOperation(await body(api.POST(...)));
 *
 * It is followed live in the corner, wherever one goes. It leaves by itself after it succeeded; a failure stays.
 */
import { CloseButton, Collapse, Group, Stack, Text, UnstyledButton } from "@mantine/core";
import { IconChevronDown, IconChevronUp } from "@tabler/icons-react";
import { useQuery } from "@tanstack/react-query";
import { useEffect, useState, useSyncExternalStore } from "react";
import { isUnderWay, type Operation, operationQuery } from "../api/operations.ts";
import { queryClient } from "../api/query-client.ts";
import { OperationProgress } from "./OperationProgress.tsx";
import classes from "./OperationWatch.module.css";
import { titleOf } from "./operation-title.ts";
import { ToneIcon } from "./StateBadge.tsx";
import { toneOf } from "./states.ts";
import { ThingLink } from "./ThingLink.tsx";

/** How long one that succeeded stays. */
const lingerMs = 6_000;

let watched: readonly { id: string; project: string }[] = [];
const watchers = new Set<() => void>();

function change(next: typeof watched): void {
  watched = next;
  for (const watcher of watchers) watcher();
}

/** Follows an operation in the corner of the page. Other answers, such as a thing that was right already, are left alone. */
export function watchOperation(answer: object): void {
  if (!("progress" in answer)) return;
  const operation = answer as Operation;
  queryClient.setQueryData(operationQuery(operation.id, operation.project).queryKey, operation);
  change([{ id: operation.id, project: operation.project }, ...watched.filter(({ id }) => id !== operation.id)]);
}

const leave = (id: string) => change(watched.filter((each) => each.id !== id));

export function OperationPanel() {
  const list = useSyncExternalStore(
    (watcher) => {
      watchers.add(watcher);
      return () => watchers.delete(watcher);
    },
    () => watched,
  );
  const [open, setOpen] = useState(true);
  if (list.length === 0) return null;
  return (
    <section className={classes.panel} aria-label="Operations begun here">
      <UnstyledButton className={classes.head} onClick={() => setOpen(!open)} aria-expanded={open}>
        <Text size="xs" fw={600}>
          {list.length === 1 ? "1 operation" : `${list.length} operations`}
        </Text>
        {open ? <IconChevronDown size={15} /> : <IconChevronUp size={15} />}
      </UnstyledButton>
      <Collapse expanded={open}>
        <Stack gap={0} className={classes.list}>
          {list.map(({ id, project }) => (
            <Watched key={id} id={id} project={project} />
          ))}
        </Stack>
      </Collapse>
    </section>
  );
}

function Watched({ id, project }: { id: string; project: string }) {
  const { data: operation } = useQuery(operationQuery(id, project));
  const succeeded = operation?.state === "succeeded";
  useEffect(() => {
    if (!succeeded) return undefined;
    const timer = setTimeout(() => leave(id), lingerMs);
    return () => clearTimeout(timer);
  }, [succeeded, id]);
  if (operation === undefined) return null;
  return (
    <div className={classes.one} role="status">
      <Group gap={8} wrap="nowrap">
        <ToneIcon tone={toneOf(operation.state, "operation")} />
        <Text size="sm" flex={1} truncate>
          <ThingLink kind="operation" id={operation.id} name={titleOf(operation)} project={operation.project} />
        </Text>
        {!isUnderWay(operation) && (
          <Text size="xs" c="dimmed">
            {operation.state}
          </Text>
        )}
        <CloseButton size="xs" onClick={() => leave(id)} aria-label="Stop following" />
      </Group>
      {isUnderWay(operation) && <OperationProgress operation={operation} />}
      {operation.error !== null && (
        <Text size="xs" lineClamp={3}>
          {operation.error.detail}
        </Text>
      )}
    </div>
  );
}
