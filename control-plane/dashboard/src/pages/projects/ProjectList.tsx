import { Button } from "@mantine/core";
import { IconPlus } from "@tabler/icons-react";
import { useState } from "react";
import { type ProjectUse, useProjectUses } from "../../api/projects.ts";
import { useCommands } from "../../commands/registry.ts";
import { count } from "../../ui/format.ts";
import { TextLink } from "../../ui/links.tsx";
import { Page } from "../../ui/Page.tsx";
import { type Column, ThingsTable } from "../../ui/table/ThingsTable.tsx";
import { NewToken } from "../tokens/NewToken.tsx";
import { totalOf } from "./total.ts";

const number = (
  key: string,
  title: string,
  value: (use: ProjectUse) => number | undefined,
  from?: "sm" | "md",
): Column<ProjectUse> => ({ key, title, value, cell: (use) => count(value(use)), align: "right", width: 112, from });

const columns: readonly Column<ProjectUse>[] = [
  {
    key: "name",
    title: "Project",
    value: (use) => use.name,
    cell: (use) => (
      <TextLink to="/" search={{ project: use.name }}>
        {use.name}
      </TextLink>
    ),
  },
  number("instances", "Instances", (use) => totalOf(use.summary?.instances)),
  number("running", "Running", (use) => use.summary && (use.summary.instances.running ?? 0), "sm"),
  number("failed", "Failed", (use) => use.summary && (use.summary.instances.failed ?? 0), "md"),
  number("deployments", "Deployments", (use) => totalOf(use.summary?.deployments), "sm"),
  number("images", "Images", (use) => totalOf(use.summary?.images), "md"),
  number("snapshots", "Snapshots", (use) => totalOf(use.summary?.snapshots), "md"),
  number("tokens", "Tokens", (use) => use.tokens, "sm"),
];
const idOf = (use: ProjectUse) => use.name;

/** Who shares the cluster, and how much each has. */
export default function ProjectList() {
  const uses = useProjectUses();
  const [making, setMaking] = useState(false);
  useCommands(() => [{ id: "new-project", title: "Make a project", run: () => setMaking(true) }], []);
  return (
    <Page
      title="Projects"
      subtitle="A project begins with the first token of its tenants, and keeps what is theirs apart from the others."
      actions={
        <Button size="xs" leftSection={<IconPlus size={15} />} onClick={() => setMaking(true)}>
          New project
        </Button>
      }
    >
      <ThingsTable
        name="projects"
        rows={uses}
        rowId={idOf}
        columns={columns}
        sort="name"
        link={(use) => ({ to: "/", search: { project: use.name } })}
      />
      <NewToken opened={making} onClose={() => setMaking(false)} firstOfProject />
    </Page>
  );
}
