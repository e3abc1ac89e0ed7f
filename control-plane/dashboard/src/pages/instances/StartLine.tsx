import { Text, Tooltip } from "@mantine/core";
import type { Instance } from "../../api/instances.ts";
import { useNow } from "../../ui/clock.ts";
import { duration, exact } from "../../ui/format.ts";
import { ToneIcon } from "../../ui/StateBadge.tsx";
import type { Tone } from "../../ui/states.ts";
import { TimeAgo } from "../../ui/TimeAgo.tsx";
import classes from "./StartLine.module.css";
import { type Step, startLine } from "./steps.ts";

const toneOf: Record<Step["state"], Tone> = { done: "good", kept: "good", now: "busy", ahead: "idle", untold: "idle" };

/** The steps of the present start, as a line whose parts are as long as they took, with the times below. */
export function StartLine({ instance }: { instance: Instance }) {
  const now = useNow();
  const line = startLine(instance, now);
  const parts = line.steps.filter(({ state, tookMs }) => (state === "done" && tookMs !== null) || state === "now");
  const spent = parts.reduce((sum, { tookMs }) => sum + (tookMs ?? 0), 0);
  return (
    <div className={classes.line}>
      <div className={classes.track} aria-hidden>
        {parts.map((step) => {
          const ms = step.tookMs ?? Math.max(0, line.totalMs - spent);
          return (
            <Tooltip key={step.key} label={`${step.before}: ${duration(ms)}`}>
              <div
                className={classes.part}
                data-step={step.key}
                data-now={step.state === "now" || undefined}
                style={{ flexGrow: Math.max(ms, line.totalMs / 200) }}
              />
            </Tooltip>
          );
        })}
      </div>
      <ol className={classes.steps}>
        {line.steps.map((step) => (
          <li key={step.key} data-state={step.state} aria-current={step.state === "now" ? "step" : undefined}>
            <span className={classes.name}>
              <ToneIcon tone={toneOf[step.state]} size={14} />
              {step.title}
            </span>
            <StepTime step={step} />
          </li>
        ))}
      </ol>
      <Text size="xs" c="dimmed" mt="xs">
        {line.going
          ? `${duration(line.totalMs)} so far.`
          : instance.steps.started_at !== null
            ? `${duration(line.totalMs)} in all.`
            : "It has not been started."}
        {instance.boots > 1 && ` This is boot ${instance.boots}.`}
      </Text>
    </div>
  );
}

function StepTime({ step }: { step: Step }) {
  switch (step.state) {
    case "done":
      if (step.tookMs === null) return <TimeAgo time={step.at} />;
      return (
        <Tooltip label={exact(step.at ?? "")}>
          <time dateTime={step.at ?? ""}>took {duration(step.tookMs)}</time>
        </Tooltip>
      );
    case "kept":
      return (
        <>
          kept since <TimeAgo time={step.at} />
        </>
      );
    case "now":
      return <>now: {step.before}</>;
    case "ahead":
      return <>not reached</>;
    case "untold":
      return <>{step.key === "ready" ? "not told now" : "time not known"}</>;
  }
}
