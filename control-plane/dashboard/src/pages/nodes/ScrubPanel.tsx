import { Text } from "@mantine/core";
import type { Scrub, ScrubRound } from "../../api/nodes.ts";
import { bytes, count, percent } from "../../ui/format.ts";
import { KeyValues } from "../../ui/KeyValues.tsx";
import { Panel } from "../../ui/Panel.tsx";
import { ProgressBar } from "../../ui/ProgressBar.tsx";
import { TimeAgo } from "../../ui/TimeAgo.tsx";

const all = 1_000_000;

/** How far a node is with reading and hashing all that it has of the pool, and what it found. */
export function ScrubPanel({ scrub }: { scrub: Scrub }) {
  const { now, last, done_ppm: done } = scrub;
  return (
    <Panel title="Scrub">
      <Text size="sm" c="dimmed" mb="sm">
        It reads and hashes all that it has. Bad copies are dropped, and other nodes send them again.
      </Text>
      {now !== null && (
        <div style={{ marginBottom: 14 }}>
          <Text size="sm" mb={6}>
            {percent(done, all)} of a round, begun <TimeAgo time={now.began_at} />
          </Text>
          <ProgressBar done={done} total={all} label="of this round" />
        </div>
      )}
      <KeyValues
        items={[
          ["Found in this round", now === null ? undefined : foundWords(now)],
          [
            "Last full round",
            last === null ? "none yet" : <TimeAgo key="last" time={last.ended_at ?? last.began_at} />,
          ],
          ["It read", last === null ? undefined : `${count(last.objects)} objects, ${bytes(last.bytes)}`],
          ["It found", last === null ? undefined : foundWords(last)],
          ["Next round", now === null ? <TimeAgo key="next" time={scrub.next_at} /> : undefined],
        ]}
      />
    </Panel>
  );
}

function foundWords({ bad, unreadable }: ScrubRound): string {
  if (bad === 0 && unreadable === 0) return "all good";
  return `${count(bad)} bad, ${count(unreadable)} unreadable`;
}
