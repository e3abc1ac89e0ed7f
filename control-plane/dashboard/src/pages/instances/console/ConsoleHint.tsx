import { Text } from "@mantine/core";
import type { ReactNode } from "react";
import { CopyId } from "../../../ui/CopyId.tsx";

/** How keys work in a console, and the command line that opens the same. */
export function ConsoleHint({ command, children }: { command?: string; children: ReactNode }) {
  return (
    <Text size="xs" c="dimmed" component="div">
      {children}
      {command !== undefined && (
        <>
          {" "}
          The same at the command line: <CopyId value={command} label="command" />
        </>
      )}
    </Text>
  );
}
