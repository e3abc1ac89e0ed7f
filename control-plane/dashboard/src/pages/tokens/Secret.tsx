import { Alert, Button, CopyButton, Stack, Text } from "@mantine/core";
import { IconCheck, IconCopy, IconEyeOff } from "@tabler/icons-react";
import type { ReactNode } from "react";
import classes from "./Secret.module.css";

/** A text that is shown once, to be copied now. */
export function Secret({ value, what, children }: { value: string; what: string; children?: ReactNode }) {
  return (
    <Stack gap="sm">
      <Alert color="yellow" icon={<IconEyeOff size={18} />}>
        Copy the {what} now. It is a secret, and it is not shown again.
      </Alert>
      <pre className={classes.secret}>{value}</pre>
      <CopyButton value={value}>
        {({ copied, copy }) => (
          <Button
            onClick={copy}
            leftSection={copied ? <IconCheck size={16} /> : <IconCopy size={16} />}
            variant={copied ? "default" : "filled"}
            data-autofocus
          >
            {copied ? "Copied" : `Copy the ${what}`}
          </Button>
        )}
      </CopyButton>
      {children !== undefined && (
        <Text size="sm" c="dimmed" component="div">
          {children}
        </Text>
      )}
    </Stack>
  );
}
