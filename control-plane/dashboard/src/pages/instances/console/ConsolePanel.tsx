import { Skeleton, Tabs, Text } from "@mantine/core";
import { Suspense } from "react";
import type { Instance } from "../../../api/instances.ts";
import { lazyPart } from "../../../app/parts.ts";
import { useCommands } from "../../../commands/registry.ts";
import { Panel } from "../../../ui/Panel.tsx";
import { useSearchState } from "../../../ui/search-state.ts";

const ConsoleLog = lazyPart(() => import("./ConsoleLog.tsx"));
const SerialConsole = lazyPart(() => import("./SerialConsole.tsx"));
const ScreenConsole = lazyPart(() => import("./ScreenConsole.tsx"));

const views = [
  { key: "log", title: "Log", View: ConsoleLog },
  { key: "serial", title: "Serial console", View: SerialConsole },
  { key: "screen", title: "Screen", View: ScreenConsole },
];

/** The console of an instance: what it printed, the same to type into, and its screen. Each is loaded when it is opened. */
export function ConsolePanel({ instance }: { instance: Instance }) {
  const [{ console: shown }, change] = useSearchState({ console: "log" });
  const isFile = instance.runtime === "none";
  const { name } = instance;
  useCommands(
    () =>
      isFile
        ? []
        : [
            {
              id: "serial",
              title: `Open the serial console of ${name}`,
              words: "terminal type",
              run: () => change({ console: "serial" }),
            },
            {
              id: "screen",
              title: `Open the screen of ${name}`,
              words: "vnc console",
              run: () => change({ console: "screen" }),
            },
          ],
    [name, isFile, change],
  );
  if (isFile) {
    return (
      <Panel title="Console">
        <Text size="sm" c="dimmed">
          Its runtime is none: it is a disk file for other programs, without a guest, so there is no console.
        </Text>
      </Panel>
    );
  }
  const known = views.some(({ key }) => key === shown) ? shown : "log";
  return (
    <Panel title="Console">
      <Tabs value={known} onChange={(key) => change({ console: key ?? "log" })} keepMounted={false}>
        <Tabs.List mb="sm">
          {views.map(({ key, title }) => (
            <Tabs.Tab key={key} value={key}>
              {title}
            </Tabs.Tab>
          ))}
        </Tabs.List>
        {views.map(({ key, View }) => (
          <Tabs.Panel key={key} value={key}>
            <Suspense fallback={<Skeleton height={300} role="status" aria-label="Loading the console" />}>
              <View instance={instance} />
            </Suspense>
          </Tabs.Panel>
        ))}
      </Tabs>
    </Panel>
  );
}
