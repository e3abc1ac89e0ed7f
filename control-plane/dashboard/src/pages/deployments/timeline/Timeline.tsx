import { SegmentedControl, Skeleton, Stack, Text } from "@mantine/core";
import { useMemo } from "react";
import type { Deployment } from "../../../api/deployments.ts";
import type { Instance } from "../../../api/instances.ts";
import type { Loaded } from "../../../api/lists.ts";
import { useNow } from "../../../ui/clock.ts";
import { EmptyState } from "../../../ui/EmptyState.tsx";
import { count, duration } from "../../../ui/format.ts";
import { Panel } from "../../../ui/Panel.tsx";
import { useSearchState } from "../../../ui/search-state.ts";
import { axisTo, bestScale, type Scale } from "./axis.ts";
import { Curve } from "./Curve.tsx";
import { Failures } from "./Failures.tsx";
import { MemberGrid } from "./MemberGrid.tsx";
import { MemberRows } from "./MemberRows.tsx";
import { Percentiles } from "./Percentiles.tsx";
import { Slowest } from "./Slowest.tsx";
import classes from "./Timeline.module.css";
import { Transfer } from "./Transfer.tsx";
import { countPhases, lengthAt, percentile, phaseTitles, reachedBy, type Track, tracksOf } from "./tracks.ts";

/** Up to so many members have a row each. */
const mostRows = 30;

interface Props {
  deployment: Deployment;
  members: Loaded<Instance>;
}

/** How the members of a deployment came up, or come up now. */
export function Timeline({ deployment, members }: Props) {
  const tracks = useMemo(() => tracksOf(members.items), [members.items]);
  if (tracks.length === 0) {
    return members.complete ? (
      <EmptyState title="No members are left" cli={`muster deployment scale ${deployment.name} 4`}>
        Scale the deployment up, or delete it.
      </EmptyState>
    ) : (
      <Skeleton height={320} role="status" aria-label="Loading the members" />
    );
  }
  const parts = { deployment, members, tracks };
  // What has ended is drawn once: nothing in it changes with the time.
  return tracks.some(({ ended }) => ended === null) ? <Ticking {...parts} /> : <Parts {...parts} now={0} />;
}

type PartsProps = Props & { tracks: readonly Track[] };

function Ticking(props: PartsProps) {
  return <Parts {...props} now={useNow()} />;
}

function Parts({ deployment, members, tracks, now }: PartsProps & { now: number }) {
  const [{ axis: chosenScale }, setSearch] = useSearchState({ axis: "" });
  const reached = useMemo(() => reachedBy(tracks), [tracks]);
  const phases = useMemo(() => countPhases(tracks), [tracks]);
  const longest = useMemo(() => tracks.reduce((most, track) => Math.max(most, lengthAt(track, now)), 0), [tracks, now]);
  const scale: Scale =
    chosenScale === "log" || chosenScale === "linear"
      ? chosenScale
      : bestScale(percentile(reached.ready, 50) ?? percentile(reached.started, 50), longest);
  const axis = useMemo(() => axisTo(longest * 1.02, scale), [longest, scale]);
  const small = tracks.length <= mostRows;

  return (
    <Stack gap="md">
      <Failures tracks={tracks} deployment={deployment} />
      <div className={classes.columns}>
        <Panel
          title="From the request until ready"
          aside={
            <SegmentedControl
              size="xs"
              aria-label="Scale of the time axis"
              value={scale}
              onChange={(value) => setSearch({ axis: value })}
              data={[
                { value: "linear", label: "Linear" },
                { value: "log", label: "Logarithmic" },
              ]}
            />
          }
        >
          <Stack gap="sm">
            <ul className={classes.legend}>
              {phases.map(({ phase, members: some }) => (
                <li key={phase}>
                  <span className={classes.swatch} data-phase={phase} />
                  {count(some)} {phaseTitles[phase]}
                </li>
              ))}
            </ul>
            {!small && <Curve reached={reached} total={tracks.length} axis={axis} />}
            {small ? (
              <MemberRows tracks={tracks} axis={axis} now={now} />
            ) : (
              <>
                <Text size="xs" c="dimmed">
                  Each cell is a member, by number, as it is now. Point at one, or move with the arrow keys.
                </Text>
                <MemberGrid tracks={tracks} now={now} />
              </>
            )}
            {!members.complete && (
              <Text size="xs" c="dimmed" aria-live="polite">
                {count(tracks.length)} members are loaded so far.
              </Text>
            )}
            {now > 0 && reached.ready.length === 0 && (
              <Text size="xs" c="dimmed">
                The first member was asked for {duration(longest)} ago. None is ready yet.
              </Text>
            )}
          </Stack>
        </Panel>
        <div className={classes.side}>
          <Percentiles reached={reached} />
          <Slowest tracks={tracks} now={now} />
          <Transfer deployment={deployment} />
        </div>
      </div>
    </Stack>
  );
}
