import { Tabs, Text } from "@mantine/core";
import { Fragment } from "react";
import type { CreateDeployment } from "../../../api/deployments.ts";
import { CopyId } from "../../../ui/CopyId.tsx";
import { JsonView } from "../../../ui/JsonView.tsx";
import { Panel } from "../../../ui/Panel.tsx";
import { commandFor, isUnsayable } from "./cli.ts";
import { userDataFile } from "./seed.ts";
import classes from "./Wizard.module.css";

/** The same call for those who would rather type it, or put it into a script. */
export function SameCall({ request, project }: { request: CreateDeployment; project: string | undefined }) {
  const parts = commandFor(request, project);
  return (
    <Panel title="The same call">
      <Tabs defaultValue="cli">
        <Tabs.List mb="sm">
          <Tabs.Tab value="cli">Command line</Tabs.Tab>
          <Tabs.Tab value="json">JSON</Tabs.Tab>
        </Tabs.List>
        <Tabs.Panel value="cli">
          <div className={classes.command}>
            <code>
              {parts.map((part) => (
                <Fragment key={part}>
                  <span className={classes.part}>{part}</span>{" "}
                </Fragment>
              ))}
            </code>
            <CopyId value={parts.join(" ")} bare label="command" />
          </div>
          {request.name === undefined && (
            <Text size="xs" c="dimmed" mt={6}>
              The command line needs a name in place of NAME.
            </Text>
          )}
          {isUnsayable(request) && (
            <Text size="xs" c="dimmed" mt={6}>
              The command line gives all cards the same groups, and publishes ports of the first card only. The JSON
              says what is meant.
            </Text>
          )}
          {request.user_data && (
            <Text size="xs" c="dimmed" mt={6}>
              The command line reads the user data from the file <code>{userDataFile}</code>.
            </Text>
          )}
        </Tabs.Panel>
        <Tabs.Panel value="json">
          <Text size="xs" c="dimmed" mb={6}>
            <code>POST /v1/deployments{project === undefined ? "" : `?project=${encodeURIComponent(project)}`}</code>
          </Text>
          <JsonView value={request} label="request" />
        </Tabs.Panel>
      </Tabs>
    </Panel>
  );
}
