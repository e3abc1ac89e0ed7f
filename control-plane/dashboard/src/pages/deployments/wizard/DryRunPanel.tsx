import { Group, List, Loader, Stack, Text } from "@mantine/core";
import { ApiError } from "../../../api/client.ts";
import type { DryRun } from "../../../api/deployments.ts";
import { ErrorBox } from "../../../ui/ErrorBox.tsx";
import { count } from "../../../ui/format.ts";
import { Panel } from "../../../ui/Panel.tsx";
import { ToneIcon } from "../../../ui/StateBadge.tsx";
import { ThingLink } from "../../../ui/ThingLink.tsx";
import { verdictOf } from "./verdict.ts";
import classes from "./Wizard.module.css";

interface Props {
  /** Whether anything is chosen to start from. */
  sourced: boolean;
  /** Whether some fields have to be mended first. */
  blocked: boolean;
  answer: DryRun | undefined;
  error: unknown;
  busy: boolean;
  /** The answer is about the form as it was before the last change. */
  old: boolean;
  /** How many have to fit, if not all. */
  least: number | undefined;
  onRetry: () => void;
}

/** Where the members would go if they were deployed now, and why not elsewhere. */
export function DryRunPanel({ sourced, blocked, answer, error, busy, old, least, onRetry }: Props) {
  return (
    <Panel
      title="Where they would go"
      aside={busy ? <Loader size={14} aria-label="Asking where they would go" /> : undefined}
    >
      <div aria-live="polite" className={old ? classes.old : undefined}>
        {!sourced ? (
          <Text size="sm" c="dimmed">
            Choose what to start from. Then this shows which nodes the members would go to, before anything starts.
          </Text>
        ) : blocked || (error instanceof ApiError && error.errors.length > 0) ? (
          <Group gap="xs" wrap="nowrap">
            <ToneIcon tone="warn" />
            <Text size="sm">Some fields have to be mended first. They say what is wrong.</Text>
          </Group>
        ) : error !== null && error !== undefined ? (
          <ErrorBox error={error} title="It cannot be told" onRetry={onRetry} />
        ) : answer === undefined ? (
          <Text size="sm" c="dimmed">
            Asking …
          </Text>
        ) : (
          <Places answer={answer} least={least} />
        )}
      </div>
    </Panel>
  );
}

function Places({ answer, least }: { answer: DryRun; least: number | undefined }) {
  const verdict = verdictOf(answer, least);
  const most = Math.max(1, ...answer.nodes.map((node) => node.count));
  return (
    <Stack gap="sm">
      <Group gap="xs" wrap="nowrap" align="flex-start">
        <ToneIcon tone={verdict.tone} size={17} />
        <div>
          <Text size="sm" fw={600}>
            {verdict.title}
          </Text>
          {verdict.means !== undefined && <Text size="sm">{verdict.means}</Text>}
        </div>
      </Group>
      {answer.nodes.length > 0 && (
        <ul className={classes.nodes} aria-label="Members by node">
          {answer.nodes.map((node) => (
            <li key={node.node}>
              <span className={classes.nodeName}>
                <ThingLink kind="node" id={node.node} name={node.node_name} />
              </span>
              <span className={classes.track}>
                <span className={classes.fill} style={{ width: `${(100 * node.count) / most}%` }} />
              </span>
              <span className={classes.nodeCount}>{count(node.count)}</span>
            </li>
          ))}
        </ul>
      )}
      {answer.nodes.length === 20 && (
        <Text size="xs" c="dimmed">
          The 20 nodes with the most members are shown.
        </Text>
      )}
      {answer.reasons.length > 0 && (
        <div>
          <Text size="sm" fw={600} mb={4}>
            {answer.placed === 0 ? "Why not" : "Why no more fit"}
          </Text>
          <List size="sm" spacing={4}>
            {answer.reasons.map((each) => (
              <List.Item key={each.reason}>
                {sentence(each.detail ?? `${count(each.count)} × ${each.reason}`)}
              </List.Item>
            ))}
          </List>
        </div>
      )}
    </Stack>
  );
}

const sentence = (text: string) => text.charAt(0).toUpperCase() + text.slice(1);
