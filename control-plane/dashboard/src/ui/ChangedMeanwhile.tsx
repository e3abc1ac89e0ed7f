import { Alert, Button, Group, Text } from "@mantine/core";
import { IconAlertTriangle } from "@tabler/icons-react";
import type { ReactNode } from "react";

interface Props {
  /** What the thing is now. */
  children: ReactNode;
  /** The form shows the newest state, without what was typed. */
  onTakeTheirs: () => void;
  /** The form stays as it is, and may replace the newest state. */
  onKeepMine: () => void;
}

/** Tells in a form that somebody else changed the thing meanwhile, so that nobody's change is lost unseen. */
export function ChangedMeanwhile({ children, onTakeTheirs, onKeepMine }: Props) {
  return (
    <Alert color="yellow" icon={<IconAlertTriangle size={18} />} title="Somebody changed it meanwhile" role="alert">
      <Text size="sm" component="div">
        {children}
      </Text>
      <Group gap="xs" mt="xs">
        <Button size="compact-sm" variant="default" onClick={onTakeTheirs}>
          Show theirs in the form
        </Button>
        <Button size="compact-sm" variant="default" onClick={onKeepMine}>
          Keep mine, and replace theirs when I save
        </Button>
      </Group>
    </Alert>
  );
}
