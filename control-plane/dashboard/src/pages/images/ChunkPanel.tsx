import { Group, SegmentedControl, Skeleton, Text } from "@mantine/core";
import { useState } from "react";
import { useChunks, type Version } from "../../api/versions.ts";
import { ErrorBox } from "../../ui/ErrorBox.tsx";
import { bytes, count, percent } from "../../ui/format.ts";
import { Panel } from "../../ui/Panel.tsx";
import { ChunkGrid, type ChunkView } from "./ChunkGrid.tsx";
import classes from "./ChunkPanel.module.css";
import { bootWords, cellsOfExtents, heatGradient, totals } from "./cells.ts";

/** The chunk map of a version with its legend: what is zero, what is shared, what the last boots read in which order. */
export function ChunkPanel({ version }: { version: Version }) {
  const { data: chunks, error, refetch } = useChunks(version, cellsOfExtents);
  const [chosen, setView] = useState<ChunkView>();
  if (error !== null) {
    return <ErrorBox error={error} title="The chunk map cannot be read" onRetry={() => void refetch()} />;
  }
  if (chunks === undefined) {
    return (
      <Panel title="Chunk map">
        <Skeleton height={260} />
      </Panel>
    );
  }
  const size = version.size_bytes;
  const sum = totals(chunks, size);
  const hasBoots = chunks.boot_order?.some((order) => order !== null) ?? false;
  const view = chosen ?? "content";
  const part = (value: number) => `${bytes(value)}, ${percent(value, size)}`;
  return (
    <Panel
      title="Chunk map"
      aside={
        hasBoots && (
          <SegmentedControl
            size="xs"
            value={view}
            onChange={(value) => setView(value as ChunkView)}
            data={[
              { value: "content", label: "What it holds" },
              { value: "boots", label: "What boots read" },
            ]}
            aria-label="What the map shows"
          />
        )
      }
    >
      <ul className={classes.legend}>
        {view === "content" ? (
          <>
            <li>
              <i className={classes.own} /> {sum.shared === null ? "Data" : "Data of its own"} <b>{part(sum.own)}</b>
            </li>
            {sum.shared !== null && (
              <li>
                <i className={classes.shared} /> Shared with its parent <b>{part(sum.shared)}</b>
              </li>
            )}
          </>
        ) : (
          <>
            <li>
              Read first <i className={classes.scale} style={{ background: heatGradient }} /> read last
              {sum.read !== null && <b>{part(sum.read)}</b>}
            </li>
            <li>
              <i className={classes.unread} /> Data that the last boots did not read
            </li>
          </>
        )}
        <li>
          <i className={classes.zero} /> Zeros, which are not stored <b>{part(sum.zero)}</b>
        </li>
        {sum.unknown > 0 && (
          <li>
            <i className={classes.unknown} /> Not found out in time <b>{part(sum.unknown)}</b>
          </li>
        )}
      </ul>
      <ChunkGrid chunks={chunks} size={size} view={view} />
      <Group gap="md" mt={6}>
        <Text size="xs" c="dimmed">
          {chunks.step === 1
            ? `Each cell is one chunk of ${bytes(chunks.chunk_bytes)}.`
            : `Each cell is ${count(chunks.step)} chunks, ${bytes(chunks.step * chunks.chunk_bytes)}.`}{" "}
          {count(chunks.count)} chunks in all, from left to right and from above to below.
          {hasBoots && ` ${bootWords(chunks, version.id)}`}
        </Text>
      </Group>
    </Panel>
  );
}
